"""How fast networks, metrics, training and a bundle's run are on a GPU: a line a figure, and all of them as JSON.

    python tests/benchmarks/gpu_speed.py [--output gpu_speed.json] [--seconds 110]
    python tests/benchmarks/gpu_speed.py --device cpu --size 64 --batches 1 2 --pairs 4 --measure 0.2 --workers 1

Pairs are simulated. All is held against torch in strict float32, launched kernel by kernel. A part that fails is told
of and the next one runs; none begins when it needs more than is left of --seconds. Fails where a part failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)
sys.path.insert(1, str(ROOT / "tests"))  # behind the root: it has an evaluation/, too

from gpu import BUNDLES, ENCODER, random_encoder  # noqa: E402

from evaluation.functional import FUSION_METRICS, fusion_metrics  # noqa: E402
from fusion_nets.files import whole_file  # noqa: E402

FOUR = ("MI", "SSIM", "Qabf", "VIF")
FLOOR = 2.2
"""Milliseconds that the published DM-FNet's arithmetic takes at 790 TFLOP/s."""


class Row(NamedTuple):
    """A figure, and what else is told of it."""

    name: str
    value: float
    unit: str
    told: str = ""


Rows = Iterator[Row]


def timed(call: Callable[[], object], at: SimpleNamespace) -> float:
    """Milliseconds of a call, the median of those that go into a while, after a warm-up."""
    for _ in range(3):
        call()
    taken, begin = [], time.perf_counter()
    if at.device.type != "cuda":
        while not taken or time.perf_counter() - begin < at.measure:
            start = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - start))
        return statistics.median(taken)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(at.device)
    while len(taken) < 3 or time.perf_counter() - begin < at.measure:
        start.record()
        call()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken)


def simulated(at: SimpleNamespace, count: int) -> torch.Tensor:
    """Pairs with lesions, (N, 2, size, size)."""
    from torch.utils.data import DataLoader

    from fusion_nets.simulation import SimulatedPairs

    pairs = SimulatedPairs(size=at.size, length=count)
    loader = DataLoader(pairs, batch_size=None, num_workers=min(at.workers, count))
    return torch.stack([pair["lesion_image"] for pair in loader])


def make(at: SimpleNamespace) -> Rows:
    """The pairs, as tensors and as pictures with their datalist."""
    from fusion_nets.clinical import write_image

    start = time.monotonic()
    at.images = simulated(at, max(at.pairs, *at.batches))
    entries = []
    for number, image in enumerate(at.images[: at.pairs]):
        paths = [at.folder / "pairs" / f"{number:03}_{key}.png" for key in ("anatomy", "overlay")]
        for path, source in zip(paths, image, strict=True):
            write_image(path, source[None])
        entries.append({"name": f"{number:03}", "anatomy": str(paths[0]), "overlay": str(paths[1])})
        entries[-1] |= {"anatomy_modality": "MR", "overlay_modality": ("CT", "PT", "NM")[number % 3]}
    (at.folder / "pairs.json").write_text(json.dumps(entries))
    at.images = at.images.to(at.device)
    yield Row("pairs made", len(at.images), "", f"{at.size} x {at.size} in {time.monotonic() - start:.1f} s")


class strictly:
    """Float32 without TF32, for a while."""

    def __enter__(self) -> None:
        self.before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32 = self.before


@torch.no_grad()
def network(at: SimpleNamespace, method: str) -> Rows:
    """The shipped one: launched kernel by kernel, and as the library runs it, alone and in batches."""
    from fusion_nets.workflows import kept_network

    own = {choice: kept_network(method, device=str(at.device), engine="torch", precision=choice)["network"]
           for choice in ("float32", "bfloat16")}  # fmt: skip
    eager = own["float32"].network
    with strictly():
        expected = torch.cat([eager(image[None]) for image in at.images[: max(at.batches)]])
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "strict float32, eager": eager,
        "float32, eager": eager,
        "float32, as shipped": own["float32"],
        "bfloat16, as shipped": own["bfloat16"],
    }
    for batch in at.batches:
        images, plain = at.images[:batch], 0.0
        for way, run in ways.items():
            if way.startswith("strict"):
                with strictly():
                    plain = timed(partial(run, images), at) / batch
                yield Row(f"{BUNDLES[method]}, {way}, batch {batch}", plain, "ms a pair")
                continue
            taken = timed(partial(run, images), at) / batch
            told = f"{plain / taken:.2f} times as fast; {departure(run(images), expected[:batch], images)}"
            yield Row(f"{BUNDLES[method]}, {way}, batch {batch}", taken, "ms a pair", told)


def departure(fused: torch.Tensor, expected: torch.Tensor, images: torch.Tensor) -> str:
    """By how many 8-bit levels and how much of each metric a result departs."""
    apart = 255 * (fused - expected).abs()
    scores = [fusion_metrics(255 * one, *(255 * images).split(1, dim=1), FOUR[1:], 255) for one in (fused, expected)]
    moved = max((scores[0][name].mean() - scores[1][name].mean()).abs().item() for name in FOUR[1:])
    return f"{apart.mean():.3f} levels in the mean, {apart.max():.2f} at most, metrics {moved:.4f}"


@torch.no_grad()
def published(at: SimpleNamespace) -> Rows:
    """DM-FNet as large as its paper's, untrained."""
    from fusion_nets.networks import DMFNet
    from fusion_nets.workflows import EngineNetwork

    torch.manual_seed(0)
    large = DMFNet().eval()
    image = at.images[:1]
    for precision in ("bfloat16", "float32"):
        shipped = EngineNetwork(large, at.device, "torch", precision)
        for way, run in (("as shipped", shipped), ("eager", shipped._torch(large))):
            taken = timed(partial(run, image), at)
            yield Row(f"published size, {precision}, {way}", taken, "ms", f"{taken / FLOOR:.1f} times the floor")


@torch.no_grad()
def metrics(at: SimpleNamespace) -> Rows:
    """Each of the four, and all, of many pairs at once."""
    side = max(at.size, *(metric.smallest for metric in FUSION_METRICS.values()))
    images = torch.nn.functional.interpolate(at.images[:64], (side, side))
    anatomy, overlay = (255 * images).round().split(1, dim=1)
    fused = torch.maximum(anatomy, overlay)
    for names in (*((name,) for name in FOUR), FOUR, tuple(FUSION_METRICS)):
        taken = timed(partial(fusion_metrics, fused, anatomy, overlay, names, 255), at) / len(images)
        told = names[0] if len(names) == 1 else f"{len(names)} metrics"
        yield Row(f"metrics, {told}", 1000 / taken, "pairs a second", f"batch {len(images)}")


def training(at: SimpleNamespace, method: str) -> Rows:
    """Iterations of train.json once its pool is full, and how long each waits for pairs."""
    from ignite.engine import Events
    from monai.bundle import ConfigParser

    root, out = ROOT / "bundles" / method, at.folder / "training" / method
    out.mkdir(parents=True)
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "train.json"))
    how: dict[str, Any] = {"bundle_root": str(root), "output_dir": str(out), "weights": str(out / "weights.pt")}
    how |= {"device": at.device, "monitoring": False, "workers": at.workers}
    how |= {"epoch_iterations": 10**6, "val_interval": 10**6}
    if at.crop:
        how |= {"crop_size": at.crop}
    if method == "smfusion":
        how |= {"text_encoder_model": at.encoder}
    parser.update(how)
    trainer: Any = parser.get_parsed_content("train#trainer")
    batch, waited, spent, began = parser["batch_size"], [0.0], [0.0], [0.0]

    def now() -> float:
        if at.device.type == "cuda":
            torch.cuda.synchronize(at.device)
        return time.perf_counter()

    def begin(_: object) -> None:
        began[0] = time.perf_counter()

    def got(engine: Any) -> None:
        if engine.state.iteration > at.warm_up:
            waited[0] += time.perf_counter() - began[0]

    def done(engine: Any) -> None:
        count = engine.state.iteration - at.warm_up
        if count == 0:
            spent[0] = now()
        elif count > 0 and time.perf_counter() - spent[0] > 15 * at.measure:
            spent[0], waited[0] = (now() - spent[0]) / count, waited[0] / count
            engine.terminate()

    trainer.add_event_handler(Events.GET_BATCH_STARTED, begin)
    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, got)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, done)
    trainer.run()
    told = f"batch {batch}, {1000 * waited[0]:.1f} of {1000 * spent[0]:.1f} ms wait for {at.workers} workers"
    yield Row(f"{BUNDLES[method]}, training by train.json", 1 / spent[0], "iterations a second", told)


def bundle(at: SimpleNamespace, method: str, processes: int = 1) -> Rows:
    """The whole of `python -m monai.bundle run` on all pairs, from its first picture to its last."""
    root, out = ROOT / "bundles" / method, at.folder / f"fused_{method}_{processes}"
    configs = [str(root / "configs" / "inference.json")]
    command = [sys.executable, "-m", "monai.bundle", "run"]
    if processes > 1:
        configs.append(str(root / "configs" / "multi_gpu_inference.json"))
        command[1:3] = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command[5:5] = ["-m", "monai.bundle"]
    command += ["--config_file", f"[{','.join(map(repr, configs))}]", "--bundle_root", str(root)]
    command += ["--datalist", str(at.folder / "pairs.json"), "--output_dir", str(out)]
    command += ["--device", f"$torch.device({str(at.device)!r})", "--logging_file", "False", "--engine", "torch"]
    start, begin = time.time(), time.monotonic()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    left = max(10.0, at.end - time.monotonic() - 1)
    done = subprocess.run(
        command, cwd=at.folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=left
    )
    whole = time.monotonic() - begin
    written = sorted(file.stat().st_mtime for file in out.glob("*_fused.png"))
    if done.returncode != 0 or len(written) != at.pairs:
        raise RuntimeError(f"exit code {done.returncode}, {len(written)} pictures: {done.stderr[-1500:]}")
    told = f"{len(written)} pairs, the first after {written[0] - start:.1f} s, all with the start in {whole:.1f} s"
    name = f"{BUNDLES[method]}, monai.bundle run" + (f", {processes} processes" if processes > 1 else "")
    yield Row(name, 1000 * (written[-1] - written[0]) / (len(written) - 1), "ms a pair", told)


@torch.no_grad()
def compiled(at: SimpleNamespace, method: str) -> Rows:
    """By torch.compile, which the library does not use: what it would gain."""
    from fusion_nets.workflows import kept_network
    from fusion_nets.workflows.converted import EnginePart

    network = kept_network(method, device=str(at.device), engine="torch", precision="float32")["network"]
    part = EnginePart(network.network).eval()
    images = at.images[: at.batches[-1]]
    given = (images, *(network._drawn(images) if method == "dmfnet" else ()))
    start, run = time.monotonic(), torch.compile(part)
    run(*given)
    told = f"compiled in {time.monotonic() - start:.0f} s"
    for precision in ("float32", "bfloat16"):
        with torch.autocast(at.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            taken = timed(partial(run, *given), at) / len(images)
        yield Row(f"{BUNDLES[method]}, {precision}, compiled, batch {len(images)}", taken, "ms a pair", told)


def parts(at: SimpleNamespace) -> Iterator[tuple[str, float, Callable[[SimpleNamespace], Rows]]]:
    """Name, seconds that it needs on a large GPU, and what makes its figures; what matters most comes first."""
    yield "pairs", 0, make
    for method in BUNDLES:
        yield f"network {method}", 8, lambda at, m=method: network(at, m)
    yield "published", 6, published
    yield "bundle dmfnet", 25, lambda at: bundle(at, "dmfnet")
    yield "training dmfnet", 14, lambda at: training(at, "dmfnet")
    yield "training smfusion", 18, lambda at: training(at, "smfusion")
    yield "metrics", 5, metrics
    yield "bundle processes", 20, lambda at: bundle(at, "dmfnet", at.processes)
    yield "bundle smfusion", 25, lambda at: bundle(at, "smfusion")
    for method in BUNDLES if at.compiled else ():
        yield f"compiled {method}", 0, lambda at, m=method: compiled(at, m)


def main() -> int:
    """Measure and print; 1 if a part failed."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--seconds", type=float, default=110, help="in which parts may begin; default: %(default)s")
    parser.add_argument(
        "--measure", type=float, default=0.5, help="seconds that go into a figure; of trainings 15 times"
    )
    parser.add_argument("--size", type=int, default=256, help="pixels of the pairs along both axes")
    parser.add_argument("--pairs", type=int, default=100, help="that a bundle fuses")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--crop", type=int, help="pixels of what is trained on; by default the configurations'")
    parser.add_argument("--warm_up", type=int, default=40, help="iterations of a training that do not count")
    parser.add_argument("--workers", type=int, default=max(1, cores - 2), help="that simulate")
    parser.add_argument("--processes", type=int, default=min(8, cores), help="of a bundle's run by several")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="parts whose names have one of these, and the pairs")
    parser.add_argument("--compiled", action="store_true", help="by torch.compile, too; takes a minute and more")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"--device is {device}, and CUDA finds none; --device cpu runs the script without", file=sys.stderr)
        return 2
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    begin, failed = time.monotonic(), 0
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    told: dict[str, Any] = {"device": where, "torch": torch.__version__, "cores": cores, "rows": [], "parts": {}}
    print(f"{where}, {cores} cores, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        at = SimpleNamespace(**vars(arguments), folder=Path(folder), end=begin + arguments.seconds)
        at.device = torch.device("cuda", device.index or 0) if device.type == "cuda" else device
        at.encoder = random_encoder(at.folder / "encoder") if find_spec(ENCODER) is None else None
        for name, needed, part in parts(at):
            if arguments.only and name != "pairs" and not any(word in name for word in arguments.only):
                continue
            start, state = time.monotonic(), "done"
            if start + needed > at.end:
                state = f"not begun: needs {needed:.0f} s, {at.end - start:.0f} are left"
            else:
                try:
                    for row in part(at):
                        told["rows"].append(row._asdict())
                        print(f"{row.name:48} {row.value:10.2f} {row.unit:20} {row.told}", flush=True)
                except (Exception, SystemExit) as error:  # the next one is run all the same
                    traceback.print_exc(limit=-3)
                    state, failed = f"failed: {type(error).__name__}: {error}", failed + 1
            if device.type == "cuda":
                torch.cuda.empty_cache()
            told["parts"][name] = {"state": state, "seconds": round(time.monotonic() - start, 1)}
            print(f"-- {name}: {state[:300]}, {time.monotonic() - start:.1f} s", flush=True)
            if arguments.output:
                with whole_file(arguments.output) as file:
                    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(f"all in {time.monotonic() - begin:.1f} s, {failed} parts failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
