"""Which cases of a datalist are done, and tables of all of them, whichever process or run did them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import write_metrics_reports
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.files import remove_partials, whole_file
from fusion_nets.names import RESULTS_BESIDE, check_name, entries_read, pair_of
from fusion_nets.overlays import SOURCES

from .digests import are_whole, digest, files_of, library_digest, sizes
from .processes import end_in_one_line, gathered, is_first_process

__all__ = ["CaseMetrics", "CaseRecords"]

_SOURCES = (*SOURCES, "regions")


class CaseRecords:
    """Records of the cases that are done, ``{output_dir}/.cases/{name}.json``, each written after all else of its case.

    A case is done when its results are there, none of them empty or shorter than it was, and its record was made by the
    same settings and weights, by the same sources of this library and versions of what it computes with, from the same
    files (their names, sizes and times of change). Such a case is not done again: not by the same command, nor by one
    for a longer datalist, in one process or any number of them on machines that share the folder. The record of a case
    goes before anything of it is written anew. It holds no path and nothing of a patient but the name that the datalist
    gives the case.

    Handlers note their figures of a case, and find those of all cases, in the order of the datalist, when an epoch is
    completed. Put this handler before them: an epoch is completed when all processes have come to its end.

    Args:
        output_dir: folder of the results.
        pairs: the datalist, of all processes.
        settings: what the results depend on besides the files: transforms, inferer, network, metrics; compared by what
            they are made of, see :func:`fusion_nets.workflows.digests.digest`, as they are when an epoch starts: a
            network with the weights that it has by then.
        resume: pass over cases that are done. Otherwise all are done, and no record of them is left.
        layout: moves the results of a case, given as its pair and their names in ``output_dir``, to where they belong,
            and gives their paths from there; such as :class:`fusion_nets.workflows.BidsDerivatives`.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        pairs: Sequence[Mapping[str, Any]],
        settings: Sequence[Any] = (),
        resume: bool = True,
        layout: Callable[[Mapping[str, Any], Sequence[str]], Sequence[str]] | None = None,
    ) -> None:
        self.layout = layout
        self.output_dir = Path(output_dir)
        self.folder = self.output_dir / ".cases"
        read = entries_read(output_dir, (pair[key] for pair in pairs for key in _SOURCES if key in pair))
        # what the results of a pair of this name would be written over
        self.read = {pair_of(entry): source for entry, source in read.items()}
        refusals = {pair["name"]: self._refusal(pair["name"]) for pair in pairs}
        self.refused = {name: reason for name, reason in refusals.items() if reason}
        self.pairs = {pair["name"]: pair for pair in pairs if not refusals[pair["name"]]}
        self.resume = resume
        self.settings = list(settings)
        self._made_with: str | None = None
        self._done: set[str] = set()
        self._begun: dict[str, str] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._finished: dict[str, Mapping[str, Any]] = {}
        self._kept: dict[str, dict[str, Any]] = {}

    def is_done(self, name: str) -> bool:
        """Whether a case need not be done; one that is to be done loses its record.

        Raises:
            ImageError: for a name that files cannot have, or results that would be written over a source of any case.
        """
        if name in self.refused:
            raise ImageError(Reason.OUTPUT, self.refused[name])
        record, self._begun[name] = self._read(name), self._made_by(name)
        if (
            record is not None
            and record["made_by"] == self._begun[name]
            and are_whole(self.output_dir, record["files"])
        ):
            self._done.add(name)
            return True
        self._path(name).unlink(missing_ok=True)
        return False

    def made_by(self, name: str) -> str:
        """A digest of what the result of a case that was begun depends on."""
        return self._begun.get(name, "")

    def note(self, name: str, kind: str, figures: Mapping[str, Any]) -> None:
        """Keep the figures of a case; NaN is one."""
        self._notes.setdefault(name, {})[kind] = dict(figures)

    def noted(self, kind: str) -> dict[str, dict[str, float]]:
        """The figures of this kind of all cases that are done, by name, in the order of the datalist."""
        records = {name: self._read(name) for name in self.pairs}
        return {name: record[kind] for name, record in records.items() if record is not None and kind in record}

    def files(self) -> list[Path]:
        """The results of all cases that are done."""
        records = [self._read(name) for name in self.pairs]
        return [self.output_dir / file for record in records if record for file in record["files"]]

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._finish)
        # the first event after all other handlers of an iteration
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._write)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._wait)
        engine.add_event_handler(Events.EXCEPTION_RAISED, end_in_one_line)

    def _start(self) -> None:
        remove_partials(self.folder)
        self._done.clear()
        self._made_with = None
        self._notes.clear()
        self._finished.clear()
        self._kept.clear()

    def _finish(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for given, made in zip(batch, output, strict=True):
            self._finished[given["name"]] = made

    def _write(self) -> None:
        for name, made in self._finished.items():
            record = {
                "made_by": self._begun.pop(name, ""),
                "files": self._files(name, made),
                **self._notes.pop(name, {}),
            }
            if self.resume:
                with whole_file(self._path(name)) as partial:
                    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            else:
                self._kept[name] = record
            self._done.add(name)
        self._finished.clear()

    def _wait(self) -> None:
        if not self.resume:
            self._kept = {name: record for kept in gathered(self._kept) for name, record in kept.items()}
            return
        done = sum(gathered(len(self._done)))
        here = sum(self._path(name).is_file() for name in self.pairs) if is_first_process() else done
        if here < done:
            raise RuntimeError(
                f"{self.output_dir}: has {here} of {done} cases that are done; a folder that all machines share is "
                "accepted"
            )

    def _refusal(self, name: str) -> str:
        try:
            check_name(name, self.output_dir)
        except ValueError as error:
            return str(error)
        if name not in self.read:
            return ""
        return (
            f"{self.output_dir}: the results of {name!r} would be written over {self.read[name]}, which is read; "
            "another folder or name is accepted"
        )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any] | None:
        if not self.resume:
            return self._kept.get(name)
        try:
            record = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and _is_record(record) else None

    def _files(self, name: str, made: Mapping[str, Any]) -> dict[str, int]:
        """The results of a case, and how long they are."""
        if self.layout is not None:
            return sizes(self.output_dir, self.layout(self.pairs[name], made.get("saved", [])))
        beside = sizes(self.output_dir, (f"{name}{ending}" for ending in RESULTS_BESIDE))
        there = {file: size for file, size in beside.items() if size}
        return there | sizes(self.output_dir, made.get("saved", []))

    def _made_by(self, name: str) -> str:
        if self._made_with is None:
            self._made_with = digest([self.settings, library_digest()])
        pair = dict(self.pairs[name])
        files = [files_of(Path(pair.pop(key))) for key in _SOURCES if key in pair]
        return digest([self._made_with, pair, files])


class CaseMetrics:
    """Measure every case of an evaluation run, and write the tables of MONAI's ``MetricsSaver`` over all cases.

    These are ``metrics.csv``, and ``{metric}_raw.csv`` and ``{metric}_summary.csv`` for each metric. ``MetricsSaver``
    knows the cases of one run, in the order of processes; here they are those of the datalist, in its order, whichever
    process or earlier run did them, and the bytes are the same however they were done. The first process writes them,
    and has the mean values in ``engine.state.metrics``.

    The engine's items need "name", "image" (2, H, W[, D]) and "pred" (1, H, W[, D]).

    Args:
        output_dir: folder to write to.
        records: of the cases; earlier among the handlers.
        metrics: by the name that they have in the tables.
        summary_ops: as for ``MetricsSaver``.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        records: CaseRecords,
        metrics: Mapping[str, CumulativeIterationMetric],
        summary_ops: Sequence[str] = ("mean", "std"),
    ) -> None:
        self.output_dir = Path(output_dir)
        self.records = records
        self.metrics = dict(metrics)
        self.summary_ops = summary_ops

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_tables)

    def __call__(self, engine: Engine) -> None:
        """Measure the cases of a batch."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for given, made in zip(batch, output, strict=True):
            item = {**given, **made}
            figures = {}
            for name, metric in self.metrics.items():
                figures[name] = float(metric([item["pred"]], [item["image"]]))  # type: ignore[arg-type]
                metric.reset()
            self.records.note(item["name"], "metrics", figures)

    def save_tables(self, engine: Engine) -> None:
        """Write the tables of all cases."""
        rows = self.records.noted("metrics") if is_first_process() else {}
        if not rows:
            return
        details: dict[str, Any] = {name: torch.tensor([[row[name]] for row in rows.values()]) for name in self.metrics}
        means: dict[str, Any] = {
            name: do_metric_reduction(values, "mean")[0].item() for name, values in details.items()
        }
        engine.state.metrics |= means
        with tempfile.TemporaryDirectory() as folder:
            write_metrics_reports(folder, list(rows), means, details, self.summary_ops)
            for table in sorted(Path(folder).iterdir()):
                with whole_file(self.output_dir / table.name) as partial:
                    shutil.copyfile(table, partial)


def _is_record(record: Mapping[str, Any]) -> bool:
    files = record.get("files")
    return "made_by" in record and isinstance(files, dict) and all(type(size) is int for size in files.values())
