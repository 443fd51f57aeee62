"""How fast SMFusion fuses one 256 x 256 pair under its descriptions, and how much of that goes into the text.

    python tests/benchmarks/smfusion_speed.py [--widths 32 64 128] [--blocks 2 2 4] [--threads 2] [--repeats 5]

The full-size network by default, float32. Describing and encoding are measured on a simulated head, nothing cached.
Fails where the network takes longer than 2 s a pair.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor

from fusion_nets.networks import SMFusion
from fusion_nets.text import MeasuredText, TextEncoder

LIMIT = 2.0


def fastest(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Seconds of the fastest of some runs, and the result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def head(size: int) -> torch.Tensor:
    """Two views of an ellipse with a bright rim, dark ventricles and a lesion, (2, size, size)."""
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, size),) * 2, indexing="ij")

    def ellipse(row: float, column: float, height: float, width: float) -> torch.Tensor:
        return ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1

    anatomy = 0.5 * ellipse(0, 0, 0.85, 0.7) + 0.4 * ellipse(-0.3, 0.3, 0.12, 0.1) - 0.4 * ellipse(0, 0, 0.25, 0.15)
    overlay = 0.9 * (ellipse(0, 0, 0.9, 0.75).float() - ellipse(0, 0, 0.8, 0.65).float()) + 0.3 * ellipse(
        0, 0, 0.8, 0.6
    )
    return torch.stack([anatomy, overlay]).clamp(0, 1)


@torch.no_grad()
def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64, 128))
    parser.add_argument("--blocks", type=int, nargs="+", default=(2, 2, 4))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = SMFusion(widths=arguments.widths, blocks=arguments.blocks).eval()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = head(arguments.size)[None]
    views = [
        MetaTensor(image[0, i : i + 1], affine=torch.eye(4), meta={"modality": modality})
        for i, modality in enumerate(("MR", "CT"))
    ]

    describing, texts = fastest(lambda: MeasuredText()(views), arguments.repeats)
    encoder = TextEncoder()
    encoder(["loads the model"])
    encoding, encoded = fastest(lambda: [encoder._encode(text) for text in texts], arguments.repeats)
    encoded = encoder(texts)
    text, mask = encoded.states[None], encoded.mask[None]
    fusing, _ = fastest(lambda: network(image, text, mask), arguments.repeats)
    plain, _ = fastest(lambda: network(image), arguments.repeats)
    total = describing + encoding + fusing
    print(f"describing both sources (measured):  {describing:6.3f} s")
    print(f"encoding both descriptions:          {encoding:6.3f} s   {text.shape[2]} word pieces at most")
    print(f"fusing with text, float32:           {fusing:6.3f} s")
    print(f"fusing without text, float32:        {plain:6.3f} s")
    print(f"whole, one pair:                     {total:6.3f} s   {(total - plain) / total:.0%} of it for the text")
    return 0 if fusing <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
