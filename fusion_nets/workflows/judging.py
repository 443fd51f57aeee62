"""Judge methods by the lesions that can still be seen in their fused images."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from tqdm import tqdm

from evaluation import report
from evaluation.functional import quantise
from evaluation.observers import Lesion, cielab, luminance
from fusion_nets.clinical import ImageError
from fusion_nets.files import whole_file

from .cases import CaseRecords
from .lesion_pairs import KnownCase, read_lesion_pairs
from .processes import is_first_process
from .progress import LOG_ABOVE_BAR
from .study_images import StudyImages, study_rows

__all__ = ["JudgedLesions", "LesionTables", "judge_lesions", "lesion_scores"]

_MOST_PICTURES = 10


class JudgedLesions(NamedTuple):
    """What became of the lesions of a folder in any number of methods' images.

    Attributes:
        comparison: the figures; None if no lesion could be judged.
        failures: pairs whose fused image could not be read, of which method, and why.
        examples: the ten worst of each method, by its name.
    """

    comparison: report.LesionComparison | None
    failures: list[tuple[Mapping[str, Any], str, ImageError]]
    examples: dict[str, list[report.LesionExample]]


class _Planes:
    """One pair, as it is measured: (2, H, W) and (1 | 3, H, W), float64 in [0, 1]."""

    def __init__(self, sources: torch.Tensor, fused: torch.Tensor) -> None:
        self.sources = sources
        self.fused = fused
        self._seen: dict[tuple[tuple[int, int], ...], dict[str, np.ndarray]] = {}

    def responses(self, case: KnownCase) -> dict[str, np.ndarray]:
        """At the lesions, by what is seen."""
        places = tuple((lesion.row, lesion.column) for lesion in case.lesions)
        # a pair without lesions is asked for the same places once for every kind
        if places not in self._seen:
            self._seen[places] = self._responses(case)
        return self._seen[places]

    def _responses(self, case: KnownCase) -> dict[str, np.ndarray]:
        seen = {"grey": luminance(self.fused[None])[0], "sources": self.sources}
        if len(self.fused) == 3:
            seen["colour"] = cielab(self.fused[None])[0] / 100
        return {name: report.lesion_responses(planes, case.lesions) for name, planes in seen.items()}


def _scores(
    case: KnownCase, planes: _Planes, clean: _Planes, method: str, group: str, subject: str
) -> Iterator[report.LesionScore]:
    recoveries = report.lesion_recoveries(
        *(planes.fused, clean.fused, planes.sources, clean.sources), case.signs, case.lesions
    )
    present, absent = planes.responses(case), clean.responses(case)
    for number, (lesion, recovery) in enumerate(zip(case.lesions, recoveries, strict=True)):
        responses = {
            seen: np.stack([present[seen][number], absent[seen][number]]) for seen in present if seen in absent
        }
        known = case.clean.removesuffix("-none"), case.kind, case.signs, case.make, lesion, recovery, responses
        yield report.LesionScore(method, *known, group, subject)


def lesion_scores(
    cases: Sequence[KnownCase],
    sources: torch.Tensor,
    fused: torch.Tensor,
    method: str,
    group: str = "",
    subject: str = "",
) -> list[report.LesionScore]:
    """What became of the lesions of one pair that was fused without and with them, all in memory.

    Args:
        cases: as :class:`InsertLesions` tells them, K of one pair, the first without a lesion.
        sources: anatomy and overlay of each, (K, 2, H, W) in [0, 1].
        fused: of each, (K, 1 | 3, H, W) in [0, 1]; as saved images are, in 8-bit levels.
        method: who fused them.
        group: what the pair belongs to.
        subject: whose the pair is.

    Returns:
        One score for each lesion, for :class:`evaluation.report.LesionComparison`.

    Raises:
        ValueError: if there are not as many sources and fused images as cases.
    """
    planes = [_Planes(*of) for of in zip(sources.double().cpu(), fused.double().cpu(), strict=True)]
    return [
        score
        for case, of in zip(cases, planes, strict=True)
        if case.lesions
        for score in _scores(case, of, planes[0], method, group, subject)
    ]


def judge_lesions(
    folder: str | os.PathLike[str],
    methods: Mapping[str, str | os.PathLike[str]],
    progress: bool = True,
    fused_white: float | None = None,
) -> JudgedLesions:
    """Measure what methods keep of the lesions that :func:`write_lesion_pairs` inserted.

    Args:
        folder: what it wrote.
        methods: folder of each method's fused images of all its pairs, found as :class:`FusedImages` says.
        progress: show a progress bar.
        fused_white: what means white in the fused images, see :func:`read_fused`.

    Returns:
        The figures, what could not be read, and the ten worst.

    Raises:
        ValueError: if the folder is none of lesions, or a method's folder is missing.
    """
    pairs, cases = read_lesion_pairs(folder)
    study = StudyImages(pairs, methods, {}, "none", fused_white)
    scores: list[report.LesionScore] = []
    failures: list[tuple[Mapping[str, Any], str, ImageError]] = []
    of_clean: dict[str, list[KnownCase]] = {}
    for case in cases:
        of_clean.setdefault(case.clean, []).append(case)
    total = len(of_clean) * len(methods)
    with LOG_ABOVE_BAR, tqdm(total=total, desc="judging", unit="pair", disable=not progress) as bar:
        for clean_name, of_pair in of_clean.items():
            pair = study.pairs[clean_name]
            for method in methods:
                bar.update()
                try:
                    clean = _planes(study, method, pair)
                except ImageError as error:
                    failures.append((pair, method, error))
                    continue
                for case in of_pair:
                    if not case.lesions:
                        continue
                    try:
                        planes = _planes(study, method, study.pairs[case.name])
                    except ImageError as error:
                        failures.append((study.pairs[case.name], method, error))
                        continue
                    scores += _scores(case, planes, clean, method, pair["pair"], pair["subject"])
    if not scores:
        return JudgedLesions(None, failures, {})
    comparison = report.LesionComparison(list(methods), scores)
    named = {(case.clean.removesuffix("-none"), case.kind, case.make): case for case in cases}
    examples = {}
    for method in methods:
        worst = comparison.worst(method, _MOST_PICTURES)
        if worst:
            of_worst = [(score, named[score.case, score.kind, score.make]) for score in worst]
            examples[method] = [_example(study, method, score, case) for score, case in of_worst]
    return JudgedLesions(comparison, failures, examples)


def _planes(study: StudyImages, method: str, pair: Mapping[str, Any]) -> _Planes:
    sources = study.sources(pair)
    if isinstance(sources, ImageError):
        raise sources
    fused = _channels(study.fused(method, pair, sources))
    return _Planes(torch.cat([_channels(source) for source in sources]), fused)


def _channels(image: MetaTensor) -> torch.Tensor:
    """(1 | 3, rows, columns)."""
    plane = np.atleast_3d(study_rows(image, 0)[0])
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(plane, -1, 0)))


def _example(study: StudyImages, method: str, score: report.LesionScore, case: KnownCase) -> report.LesionExample:
    with_lesion, without = (_planes(study, method, study.pairs[name]) for name in (case.name, case.clean))
    images = [*with_lesion.sources[:, None], without.fused, with_lesion.fused]
    pictures = [image.movedim(0, -1).squeeze(-1).float().numpy() for image in images]
    return report.LesionExample(score, pictures)


class LesionTables:
    """Judge the lesions of a run that :class:`InsertLesions` prepared, and write the tables over all cases.

    These are ``lesions.csv``, a row for each lesion; ``lesion_kinds.csv``, with shares lost, median recovery and the
    observer's areas by kind; and ``psychometric.csv``. As of :class:`CaseMetrics`, cases are those of the datalist,
    whichever process or earlier run did them, and the first process writes. Fused images are measured in the 8-bit grey
    levels that would be saved. The shares lost are in ``engine.state.metrics``, by group and kind.

    The engine's items need "name", "image" (2, H, W, K), "pred" (1, H, W, K), "lesions" and "group", and may have a
    "subject".

    Args:
        output_dir: folder to write to.
        records: of the cases; earlier among the handlers.
        method: what it is called in the tables.
    """

    def __init__(self, output_dir: str | os.PathLike[str], records: CaseRecords, method: str = "fused") -> None:
        self.output_dir = Path(output_dir)
        self.records = records
        self.method = method

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_tables)

    def __call__(self, engine: Engine) -> None:
        """Judge the cases of a batch."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for given, made in zip(batch, output, strict=True):
            item = {**given, **made}
            cases = [KnownCase.from_plain(told) for told in json.loads(item["lesions"])]
            images, fused = (item[key].as_subclass(torch.Tensor).double().cpu() for key in ("image", "pred"))
            levels = quantise(fused) / 255
            whose = self.method, item["group"], item.get("subject", "")
            scores = lesion_scores(cases, images.movedim(-1, 0), levels.movedim(-1, 0), *whose) if cases else []
            self.records.note(item["name"], "lesions", {"lesions": [_plain_score(score) for score in scores]})

    def save_tables(self, engine: Engine) -> None:
        """Write the tables of all cases."""
        noted = self.records.noted("lesions") if is_first_process() else {}
        rows: list[Any] = [row for figures in noted.values() for row in figures["lesions"]]  # type: ignore[attr-defined]
        if not rows:
            if noted:
                logging.getLogger(__name__).warning("no pair has a place for a lesion; no table is written")
            return
        comparison = report.LesionComparison([self.method], [_score_of(row) for row in rows])
        engine.state.metrics |= {f"lost, {of.group}: {of.kind}": of.lost for of in comparison.summaries}
        for name, content in report.lesion_tables(comparison).items():
            with whole_file(self.output_dir / name) as partial:
                partial.write_text(content, encoding="utf-8")


def _plain_score(score: report.LesionScore) -> dict[str, Any]:
    responses = {seen: values.tolist() for seen, values in score.responses.items()}
    return {**score._asdict(), "lesion": score.lesion._asdict(), "responses": responses}


def _score_of(row: Mapping[str, Any]) -> report.LesionScore:
    responses = {seen: np.array(values) for seen, values in row["responses"].items()}
    signs = (int(row["signs"][0]), int(row["signs"][1]))
    return report.LesionScore(**{**row, "signs": signs, "lesion": Lesion(**row["lesion"]), "responses": responses})
