"""How long a run takes to see that 100,000 studies are done, step by step, and in which step it would not be linear.

    python tests/benchmarks/many_cases.py [--counts 12500 25000 50000 100000] [--folder FOLDER]

No image is read: sources and results are files of a byte, their records have the sixteen metrics. What is timed is what
a run does around the network: the datalist, the records, the passing over of what is done, the tables. The worst place
is taken, sources that lie in the folder of the results. Fails where a step's time for each case grows by half.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from evaluation.functional import FUSION_METRICS
from fusion_nets.datalists import load_pairs
from fusion_nets.workflows import CaseMetrics, CaseRecords, PairStream

SETTINGS = ["these"]


def make_studies(folder: Path, count: int) -> Path:
    """A datalist of studies, each a folder with two images, inside the folder of the results."""
    pairs = []
    for number in range(count):
        study = folder / f"sub-{number:06d}"
        study.mkdir(parents=True)
        for name in ("mri.nii.gz", "pet.nii.gz"):
            (study / name).write_bytes(b"1")
        anatomy, overlay = (f"{study.name}/{name}.nii.gz" for name in ("mri", "pet"))
        pairs.append({"anatomy": anatomy, "overlay": overlay, "name": study.name, "subject": study.name})
    path = folder / "pairs.json"
    path.write_text(json.dumps(pairs))
    return path


class Run:
    """A run over a datalist, its network left out."""

    def __init__(self, datalist: Path) -> None:
        self.folder = datalist.parent
        self.pairs = load_pairs(datalist)
        self.records = CaseRecords(self.folder, self.pairs, SETTINGS)
        self.stream = PairStream(self.pairs, dict, self.records)
        self.metrics = CaseMetrics(self.folder, self.records, dict.fromkeys(FUSION_METRICS))
        self.fused = 0

    def __call__(self) -> int:
        """Fuse what is not done, and write the tables; how many were fused."""
        engine = Engine(self._fuse)
        self.records.attach(engine)
        engine.run(self._batches())
        self.metrics.save_tables(engine)
        return self.fused

    def _batches(self) -> Iterator[list[Any]]:
        yield from ([pair] for pair in self.stream)

    def _fuse(self, _: Engine, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        (pair,) = batch
        self.fused += 1
        result = f"{pair['name']}_fused.nii.gz"
        (self.folder / result).write_bytes(b"1")
        self.records.note(pair["name"], "metrics", dict.fromkeys(self.metrics.metrics, self.fused / 7))
        return [{"saved": [result]}]


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and seconds of this process, which others on the machine do not change much."""
    start = time.process_time()
    return run(), time.process_time() - start


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[12500, 25000, 50000, 100000])
    parser.add_argument("--folder", help="where to write; default: the system's folder for what is temporary")
    arguments = parser.parse_args()
    steps = ("datalist and records", "first run", "run again", "bytes of .cases")
    print("cases".rjust(8), *(step.rjust(22) for step in steps))
    each: dict[str, list[float]] = {}
    for count in arguments.counts:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            datalist = make_studies(Path(folder), count)
            first, making = timed(lambda path=datalist: Run(path))
            fused, doing = timed(first)
            again, seconds = timed(lambda path=datalist: Run(path)())
            assert (fused, again) == (count, 0)
            held = sum(record.stat().st_size for record in Path(folder, ".cases").iterdir())
        for name, of in zip(steps[:3], (making, doing, seconds), strict=True):
            each.setdefault(name, []).append(of / count)
        times = [f"{of:.1f} s, {of / count * 1e6:.0f} us each" for of in (making, doing, seconds)]
        print(f"{count:8d}", *(column.rjust(22) for column in (*times, f"{held / 1e6:.0f} MB")), flush=True)
    grown = [name for name, of in each.items() if of[-1] > 1.5 * min(of)]
    if grown:
        print(f"more than linear: {', '.join(grown)}")
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
