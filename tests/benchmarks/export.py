"""The networks in TorchScript and ONNX: written to dist/, held against the network, and timed.

    python tests/benchmarks/export.py [--dataset_dir AANLIB] [--output_dir dist] [--repeats 3] [--newer]

Per bundle NAME_vVERSION.ts, .onnx (any size) and _256.onnx; with --newer both of torch's newer exporter as well, which
takes minutes. Fails where a fused image departs from the network's by more than 1e-3, over random images of several
sizes and, with --dataset_dir, the first validation pair of each modality.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
import yaml
from monai.bundle import ckpt_export, load, onnx_export

from fusion_nets.clinical import read_image
from fusion_nets.transforms import SplitLuminance

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SIZES = [(2, 64, 96), (1, 33, 47), (3, 97, 130), (1, 256, 256), (1, 512, 512)]
TOLERANCE = 1e-3
Network = Callable[[torch.Tensor], torch.Tensor]


def written(root: Path, output_dir: Path, newer: bool) -> dict[Path, Network]:
    """Every file of a bundle, and what runs it."""
    name = f"{root.name}_v{json.loads((root / 'configs/metadata.json').read_text())['version']}"
    places = {
        "ckpt_file": "models/model.pt",
        "meta_file": "configs/metadata.json",
        "config_file": "configs/inference.json",
    }
    common = {key: str(root / place) for key, place in places.items()}
    arguments = yaml.safe_load((root / "configs/onnx_export.yaml").read_text()) | common
    files: dict[Path, Network] = {}
    path = output_dir / f"{name}.ts"
    ckpt_export("network_def", filepath=str(path), **common)
    files[path] = torch.jit.load(path).eval()
    for exporter in ("", "_newer") if newer else ("",):
        for size in ("", "_256"):
            path = output_dir / f"{name}{size}{exporter}.onnx"
            chosen = dict(arguments["converter_kwargs"], dynamo=bool(exporter))
            given = arguments | {"filepath": str(path), "converter_kwargs": chosen}
            if size:
                del chosen["dynamic_axes"]
                given["input_shape"] = [1, 2, 256, 256]
            start = time.perf_counter()
            onnx_export(**given)
            print(f"{path.name} made in {time.perf_counter() - start:.0f} s", flush=True)
            files[path] = in_onnxruntime(path)
    return files


def in_onnxruntime(path: Path) -> Network:
    """An ONNX file as a function of tensors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def validation_pairs(dataset_dir: Path) -> list[torch.Tensor]:
    """The first validation pair of each modality, (1, 2, H, W) in [0, 1]."""
    pairs = []
    for kind, sections in json.loads((dataset_dir / "splits.json").read_text()).items():
        overlay, name = kind.split("-")[0], sections["val"][0]
        images = [read_image(dataset_dir / kind / folder / name) / 255 for folder in ("MRI", overlay)]
        pairs.append(torch.cat([SplitLuminance()(image)[0].as_tensor() for image in images])[None])
    return pairs


def seconds(functions: dict[str, Network], image: torch.Tensor, repeats: int) -> dict[str, float]:
    """Of one core's time in the fastest of some runs each, taken in turns, so that a busy machine hardly shows."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats + 1):  # the first run of TorchScript compiles
        for name, function in functions.items():
            start = time.process_time()
            function(image)
            best[name] = min(best[name], time.process_time() - start)
    return best


@torch.no_grad()
def main() -> int:
    """Write, compare, time, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--dataset_dir", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("dist"))
    parser.add_argument("--bundle", nargs="+", default=["dmfnet", "smfusion"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--newer", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    images = {"random": [torch.rand(batch, 2, *size, generator=generator) for batch, *size in SIZES]}
    if arguments.dataset_dir is not None:
        images["real"] = validation_pairs(arguments.dataset_dir)
    good = True
    for name in arguments.bundle:
        files = written(BUNDLES / name, arguments.output_dir, arguments.newer)
        network = load(name, bundle_dir=str(BUNDLES), device="cpu").eval()
        for kind, some in images.items():
            for image in some:
                expected = network(image)
                for path, fuse in files.items():
                    if "_256" in path.name and image.shape != (1, 2, 256, 256):
                        continue
                    apart = (fuse(image) - expected).abs().max().item()
                    print(f"{path.name}: {kind} {list(image.shape)}: largest difference {apart:.1e}", flush=True)
                    good = good and apart <= TOLERANCE
        taken = seconds(
            {"torch": network, **{path.name: fuse for path, fuse in files.items()}},
            images["random"][3],
            arguments.repeats,
        )
        print(f"{name} in torch: {taken['torch']:.2f} s of one core per pair of 256 x 256")
        for path in files:
            print(f"{path.name}: {taken[path.name]:.2f} s, {path.stat().st_size / 1e6:.1f} MB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
