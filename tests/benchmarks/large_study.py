"""Memory and time of a long study: a CT and its PET of any number of slices, in all that `fuse` does.

    python tests/benchmarks/large_study.py [--size 512] [--slices 300 1000] [--method dmfnet] [--network own | pass]
        [--instant] [--format nifti] [--sources dicom | nifti] [--register auto] [--engine auto]

Each number of slices runs in a process of its own, on series that are made first, in a temporary folder. Prints a line
each: the peak of memory that cannot be given back (RssAnon and RssShmem of it and of elastix' process, every 20 ms),
the peak of all (VmHWM, in which pages of files count that the system may take back at any time), in bytes per voxel
above what the imports take, too; seconds until the first slice is on the disk, and of the whole; and below it each
stage's seconds, and in brackets those of the processor. `--network pass` puts a mean of both sources in the place of
the network, which tells of everything else. `--size 2048` shows what tiles take. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fusion_nets import elastix_process, stages
from fusion_nets.lean import lean_monai

MIB = 2**20


class Mean(nn.Module):
    """In the place of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor, **given: Any) -> torch.Tensor:
        return image.mean(dim=1, keepdim=True)


def status(*names: str) -> int:
    """Of this process and of those that it began, such as elastix'."""
    total, me = 0, str(os.getpid())
    for file in Path("/proc").glob("[0-9]*/status"):
        try:
            told = dict(line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines() if ":" in line)
        except OSError:  # it has ended
            continue
        if me in (file.parent.name, told.get("PPid", "").strip()):
            total += sum(int(told[name].split()[0]) * 1024 for name in names if name in told)
    return total


class Peak(threading.Thread):
    """Of what cannot be given back."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.first: float | None = None
        self.began = time.perf_counter()
        self.output = Path()

    def run(self) -> None:
        while True:
            self.most = max(self.most, status("RssAnon", "RssShmem"))
            if self.first is None and any(self.output.rglob("*[0-9].png")):
                self.first = time.perf_counter() - self.began
            time.sleep(0.02)


class Clock(stages._Stages):
    """Of the seconds of each stage, and of the processor's in it."""

    taken: dict[str, list[float]] = {}

    def begin(self, name: str) -> None:
        self.taken.setdefault(name, [0.0, 0.0])
        super().begin(name)
        self.began, self.worked = time.monotonic(), time.process_time()

    def end(self) -> None:
        if self.name:
            taken = self.taken[self.name]
            taken[0] += time.monotonic() - self.began
            taken[1] += time.process_time() - self.worked
        super().end()


def make(folder: Path, size: int, slices: int, form: str) -> tuple[Path, Path]:
    """A body's CT and a PET with a spot, and lungs to register by, of one frame of reference, slice by slice."""
    import nibabel as nib
    import numpy as np

    from fusion_nets import slabs

    generator = np.random.default_rng(0)

    def blob(shape: tuple[int, int, int], values: tuple[float, float, float], noise: float) -> np.ndarray:
        made = slabs.zeros((1, *shape))[0]
        x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
        for k in range(shape[2]):
            body = x**2 / 0.5 + y**2 / 0.7 < 1 - 0.2 * (k / shape[2] - 0.5) ** 2
            lungs = (np.abs(x) - 0.35) ** 2 / 0.05 + y**2 / 0.15 + (k / shape[2] - 0.6) ** 2 / 0.06 < 1
            spot = (x - 0.2) ** 2 + y**2 + (k / shape[2] - 0.5) ** 2 < 0.01
            made[..., k] = np.where(body, np.where(lungs, values[2], values[1]) + 3 * values[1] * spot, values[0])
            made[..., k] += generator.normal(0, noise, shape[:2])
        return made

    few = (max(size // 3, 24), max(size // 3, 24), max(slices // 2, 4))
    ct, pet = blob((size, size, slices), (-1000, 40, -700), 8), blob(few, (0.0, 2.0, 0.5), 0.05)
    fine, coarse = np.diag([0.9, 0.9, 1.5, 1]), np.diag([*(0.9 * size / n for n in few[:2]), 1.5 * slices / few[2], 1])
    for affine, shape in ((fine, ct.shape), (coarse, few)):
        affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    paths = folder / "ct.nii", folder / "pet.nii"
    for path, values, affine, note in zip(
        paths, (ct, pet), (fine, coarse), ("CT units=HU", "PT units=SUV"), strict=True
    ):
        image = nib.Nifti1Image(np.rint(values).astype(np.int16) if path == paths[0] else values, affine)
        image.header["descrip"] = f"modality={note}"
        image.to_filename(path)
    if form == "nifti":
        return paths
    from fusion_nets.clinical import convert_image

    convert_image(paths[0], folder / "ct")
    convert_image(paths[1], folder / "pet", reference=folder / "ct")
    return folder / "ct", folder / "pet"


def fuse(
    anatomy: str, overlay: str, output: str, method: str, formats: Sequence[str], network: str = "own", **options: Any
) -> dict[str, Any]:
    """In a process of its own; options as those of ``fuse_pair``."""
    if network == "pass":
        mean = Mean()
        torch.save(mean.state_dict(), f"{output}.pt")
        options |= {"network_def": mean, "weights": f"{output}.pt"}
    peak = Peak()
    peak.output = Path(output)
    stages._Stages = Clock  # type: ignore[misc]
    with stages.shown_stages():
        peak.start()
        from fusion_nets.workflows import fuse_pair

        before = status("RssAnon", "RssShmem")
        fuse_pair(anatomy, overlay, output, method, formats, name="case", **options)
    seconds = time.perf_counter() - peak.began
    return {
        "imports": before,
        "held": peak.most,
        "all": status("VmHWM"),
        "first": peak.first,
        "seconds": seconds,
        "stages": Clock.taken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--slices", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--method", default="dmfnet")
    parser.add_argument("--instant", action="store_true")
    parser.add_argument("--network", choices=("own", "pass"), default="own")
    parser.add_argument("--format", nargs="+", default=["nifti", "png"])
    parser.add_argument("--sources", choices=("dicom", "nifti"), default="nifti")
    parser.add_argument("--register", default="none")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        options = {"register": given.register, "register_fallback": True}
        options |= {"engine": given.engine, "instant": given.instant}
        if given.register != "none":
            elastix_process.begin()  # both as the command does
        with lean_monai():
            print(json.dumps(fuse(*given.one, given.method, given.format, given.network, **options)))
        return
    print("| slices | held, MiB | B/voxel | all, MiB | B/voxel | first slice, s | whole, s |")
    print("|---|---|---|---|---|---|---|")
    for slices in given.slices:
        with tempfile.TemporaryDirectory() as folder:
            anatomy, overlay = make(Path(folder), given.size, slices, given.sources)
            again = [sys.executable, __file__, *sys.argv[1:], "--one", str(anatomy), str(overlay), f"{folder}/out"]
            done = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        voxels, before = given.size**2 * slices, found["imports"]
        first = "-" if found["first"] is None else f"{found['first']:.0f}"
        print(
            f"| {slices} | {found['held'] / MIB:.0f} | {(found['held'] - before) / voxels:.1f} | "
            f"{found['all'] / MIB:.0f} | {(found['all'] - before) / voxels:.1f} | {first} | {found['seconds']:.0f} |",
            flush=True,
        )
        told = ", ".join(f"{name} {wall:.1f} ({work:.1f})" for name, (wall, work) in found["stages"].items())
        network = "instant" if given.instant else given.network
        print(f"\n{told}; {given.method}, network {network}, sources {given.sources}\n", flush=True)


if __name__ == "__main__":
    main()
