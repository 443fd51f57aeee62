"""How fast DMFNet fuses one 256 x 256 pair, against the plain way: six whole UNet passes one after another, float32.

    python tests/benchmarks/dmfnet_speed.py [--width 128] [--threads 2] [--repeats 3]

The full-size network by default. Fails where a ratio or an agreement falls short: 1.4 times in float32
with equal output (1e-4), and 4 times with bfloat16 autocast (1e-2) where the processor has tiles for it (AMX).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from fusion_nets.networks import DMFNet


def plain_way(network: DMFNet, image: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Fuse with whole UNet passes, one at a time, reconstruction included, as a direct program would."""
    unet, indices = network.unet, [*network.feature_indices, 0]
    clean = image * 2 - 1
    features: list[list[torch.Tensor]] = []
    for step in range(noise.shape[0]):
        for source in range(2):
            g = level[step, source].reshape(1, 1, 1, 1)
            noisy = g * clean[:, source : source + 1] + torch.sqrt(1 - g**2) * noise[step, source][:, None]
            *chosen, last = unet.features(noisy, level[step, source], indices)
            unet.head(torch.nn.functional.silu(unet.head_norm(last)))
            features.append(chosen)
    levels = [torch.stack(level).unflatten(0, (-1, 2)) for level in zip(*features, strict=True)]
    return network(image, features=levels)


def fastest(function: Callable[[], torch.Tensor], repeats: int) -> tuple[float, torch.Tensor]:
    """Seconds of the fastest of some runs, and the result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


@torch.no_grad()
def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = DMFNet(width=arguments.width, norm_groups=arguments.width // 4).eval()
    size = arguments.size
    image, noise, level = torch.rand(1, 2, size, size), torch.randn(3, 2, 1, size, size), torch.full((3, 2, 1), 0.9997)

    slow, expected = fastest(lambda: plain_way(network, image, noise, level), arguments.repeats)
    fast, fused = fastest(lambda: network(image, noise, level), arguments.repeats)
    apart = (fused - expected).abs().max().item()
    print(f"plain way, float32:        {slow:7.2f} s")
    print(f"DMFNet, float32:           {fast:7.2f} s   {slow / fast:5.2f} times   largest difference {apart:.1e}")
    good = slow / fast >= 1.4 and apart <= 1e-4

    if torch.cpu._is_amx_tile_supported():
        with torch.autocast("cpu", torch.bfloat16):
            half, fused = fastest(lambda: network(image, noise, level), arguments.repeats)
        apart = (fused - expected).abs().max().item()
        print(f"DMFNet, bfloat16 autocast: {half:7.2f} s   {slow / half:5.2f} times   largest difference {apart:.1e}")
        good = good and slow / half >= 4 and apart <= 1e-2
    else:
        print("DMFNet, bfloat16 autocast: not measured, this processor has no AMX")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
