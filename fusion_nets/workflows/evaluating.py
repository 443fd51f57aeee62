"""Compare methods: measure their fused images against the sources, and write a report."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from evaluation import report
from evaluation.functional import FUSION_METRICS, fusion_metrics
from fusion_nets.clinical import ImageError, Reason
from fusion_nets.datalists import load_pairs
from fusion_nets.drawing.palettes import palette_colours
from fusion_nets.files import whole_file
from fusion_nets.names import entries_read, shown
from fusion_nets.registration import LEAST_OVERLAP, RegistrationMode
from fusion_nets.transforms import PaletteChroma
from fusion_nets.transforms.display import Window

from .inference import image_error
from .judging import JudgedLesions, judge_lesions
from .matching import FusedImages
from .progress import LOG_ABOVE_BAR
from .study_images import StudyImages, StudySources, read_fused, study_rows

__all__ = ["evaluate_methods", "read_fused"]

_WEIGHTS = (9798 / 2**15, 19235 / 2**15, 3735 / 2**15)
"""BT.601 luminance in 15 bits, as OpenCV has it, by which the published numbers of this field are made: one pixel in
thousands differs from the exact weights, which their fourth decimal shows."""

_WHITE_BY = {"asked": "as asked for", "file": "by their files", "inferred": "as the least that no value exceeds"}
_TYPICAL = "Qabf"
_MOST_EXAMPLES = 4


def evaluate_methods(
    pairs: Sequence[dict[str, Any]],
    methods: Mapping[str, str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    windows: Mapping[str, Window | None] | None = None,
    register: RegistrationMode = "auto",
    metrics: Iterable[str] | None = None,
    device: str = "cpu",
    progress: bool = True,
    lesions: str | os.PathLike[str] | None = None,
    fused_white: float | None = None,
    least_overlap: float = LEAST_OVERLAP,
) -> list[Path]:
    """Measure the fused images of any number of methods over the same pairs, and write the comparison.

    Sources are prepared as the bundles do: overlay on the anatomy's grid, pictures from black to white, measured values
    over their display range, of colours the luminance. All is measured in the 8-bit grey levels that published numbers
    are measured on, in float64; volumes slice by slice over the slices with content. Written are ``cases.csv``,
    ``summary.json``, ``summary.md``, ``boxplots.png``, ``montage.png`` and ``report.html``, each whole; the same input
    gives the same bytes. With ``lesions`` there are also ``lesions.csv``, ``lesion_kinds.csv``, ``psychometric.csv``,
    ``psychometric.png`` and ``worst_lesions_1.png`` and so on, one of each method.

    Args:
        pairs: as :func:`fusion_nets.datalists.load_pairs` takes and gives them; those with a "pair" (such as "PET-MRI")
            are also summarised by it.
        methods: folder of each method's fused images, found as :class:`FusedImages` says; the others are tested against
            the first.
        output_dir: folder to write into.
        windows: display range by "anatomy" and "overlay", (low, high) in stored units or a name, see
            :class:`fusion_nets.transforms.ScaleToDisplayRange`; that under which the methods fused.
        register: how the overlays are brought onto the anatomies, see :func:`fusion_nets.registration.register`.
        metrics: which, of ``evaluation.FUSION_METRICS``; by default all.
        device: where the metrics are computed.
        progress: show a progress bar.
        lesions: folder that :func:`write_lesion_pairs` wrote, whose pairs the methods fused, too: what became of the
            lesions is judged.
        fused_white: what means white in the fused images, such as 4095 of 12 bit; by default what their files say, or
            else the least that fits, which the report tells, see :func:`read_fused`.
        least_overlap: share of what one of the two images shows that must lie in the field of view of the other, see
            :func:`fusion_nets.registration.check_overlap`.

    Returns:
        The files.

    Raises:
        ImageError: after all others were measured and written, if some images could not be; each is logged with its
            reason, and the report tells them.
        ValueError: for no method, a folder that is missing, an unknown metric, a malformed pair or window.
        ModuleNotFoundError: if matplotlib is missing.
    """
    pairs = load_pairs(pairs)
    if not methods:
        raise ValueError("no method to evaluate; at least one name with its folder of fused images is accepted")
    for name in methods:
        if name != name.encode(errors="replace").decode():
            raise ValueError(f"the method's name {name!r} is no text in Unicode; one is accepted")
    chosen = list(dict.fromkeys(FUSION_METRICS if metrics is None else metrics))
    unknown = [name for name in chosen if name not in FUSION_METRICS]
    if unknown or not chosen:
        raise ValueError(f"metrics {unknown} are unknown; accepted are {', '.join(FUSION_METRICS)}")
    study = StudyImages(pairs, methods, windows or {}, register, fused_white, least_overlap)
    _check_sources(Path(output_dir), study)
    scores, failures = [], []
    with ExitStack() as stack:
        stack.enter_context(LOG_ABOVE_BAR)
        bar = stack.enter_context(
            tqdm(total=len(pairs) * len(methods), desc="measuring", unit="image", disable=not progress)
        )
        for pair in pairs:
            sources = study.sources(pair)
            if isinstance(sources, ImageError):
                failures.append(_failed(pair, "", sources))
                bar.update(len(methods))
                continue
            for method in methods:
                try:
                    values, slices = _measure(study.fused(method, pair, sources), sources, chosen, device)
                except Exception as error:
                    if (reason := image_error(error)) is None:
                        raise
                    failures.append(_failed(pair, method, reason, study.methods[method]))
                else:
                    whose = pair.get("pair", ""), slices, pair.get("subject", "")
                    scores.append(report.Score(pair["name"], method, values, *whose))
                bar.update()
    if not scores:
        raise ImageError(
            Reason.SEVERAL,
            f"none of {len(pairs) * len(methods)} fused images could be measured, reasons are given above",
        )
    measured = [name for name in chosen if any(math.isfinite(score.values[name]) for score in scores)]
    comparison = report.Comparison(
        list(methods),
        {name: FUSION_METRICS[name].higher_is_better for name in measured},
        [score._replace(values={name: score.values[name] for name in measured}) for score in scores],
        failures,
    )
    judged = None
    if lesions is not None:
        judged = judge_lesions(lesions, methods, progress, fused_white)
        known = {failure[:2] for failure in failures}
        failures += [
            _failed(pair, method, error, study.methods[method])
            for pair, method, error in judged.failures
            if (pair["name"], method) not in known
        ]
    left_out = [name for name in chosen if name not in measured]
    written = _write(
        Path(output_dir), comparison, study, _notes(windows or {}, left_out, study.whites, bool(judged)), judged
    )
    if failures:
        raise ImageError(
            Reason.SEVERAL,
            f"{len(failures)} images could not be measured, reasons are given above; the others are in {output_dir}",
        )
    return written


def _check_sources(folder: Path, study: StudyImages) -> None:
    """Refuse a folder in which the report's pictures would be written over images that it is about."""
    pairs = study.pairs.values()
    read = [str(pair[key]) for pair in pairs for key in ("anatomy", "overlay")]
    for fused in study.methods.values():
        for pair in pairs:
            with suppress(ImageError):
                read.append(str(fused.find(pair)))
    for entry, source in entries_read(folder, read).items():
        if re.fullmatch(r"(boxplots|montage|psychometric|worst_lesions_\d+)\.png", entry):
            raise ValueError(
                f"{folder / entry}: would be written over {source}, which is read; another folder is accepted"
            )


def _measure(
    fused: MetaTensor, sources: StudySources, metrics: Sequence[str], device: str
) -> tuple[dict[str, float], int]:
    """Mean of every metric over the slices with content, and their number; NaN of what needs larger slices."""
    images = torch.stack([_levels(image) for image in (fused, *sources)]).to(device)
    content = (images[1:].flatten(3).amax(3) != images[1:].flatten(3).amin(3)).any(0).squeeze(1)
    slices = int(content.sum())
    if not slices:
        raise ImageError(
            Reason.EMPTY,
            f"{fused.meta['filename_or_obj']}: its sources have no slice with content to measure; one slice that is "
            "not constant is accepted",
        )
    side = min(images.shape[-2:])
    possible = [name for name in metrics if FUSION_METRICS[name].smallest <= side]
    fused_slices, anatomy, overlay = images[:, content]
    values = fusion_metrics(fused_slices, anatomy, overlay, names=possible, data_range=255.0)
    return {name: values[name].mean().item() if name in values else math.nan for name in metrics}, slices


def _levels(image: MetaTensor) -> torch.Tensor:
    """Whole grey levels 0..255 of an image in [0, 1], as (slices, 1, H, W)."""
    grey = image.as_tensor()
    if len(grey) == 3:
        grey = sum(weight * channel for weight, channel in zip(_WEIGHTS, grey, strict=True))[None]
    # half way between two levels goes up, which no error of the division by white may decide
    levels = ((grey * 255).round(decimals=6) + 0.5).floor().clamp(0, 255)
    return levels[None] if levels.ndim == 3 else levels.movedim(-1, 0)


def _failed(
    pair: Mapping[str, Any], method: str, error: ImageError, fused: FusedImages | None = None
) -> report.Failure:
    """Told in the log with its file; in the report without, because paths may name patients."""
    where = f"{pair['name']}, {method}" if method else pair["name"]
    logging.getLogger(__name__).error("%s: not measured: %s", shown(where), error)
    places = {shown(str(pair[key])): f"the {key}" for key in ("anatomy", "overlay")}
    if fused is not None:
        places[shown(str(fused.folder))] = "the fused image"
        with suppress(ImageError):
            places[shown(str(fused.find(pair)))] = "the fused image"
    reason = str(error)
    for place in sorted(places, key=len, reverse=True):
        reason = re.sub(rf"{re.escape(place)}(/[^:;,]*)?", places[place], reason)
    return report.Failure(shown(pair["name"]), method, reason)


def _notes(
    windows: Mapping[str, Window | None],
    left_out: Sequence[str],
    whites: Mapping[str, Mapping[tuple[float, str], int]],
    judged: bool = False,
) -> list[str]:
    asked = [f"{key} {_told(window)}" for key in ("anatomy", "overlay") if (window := windows.get(key))]
    notes = [
        "Everything is measured on luminance (BT.601) in 8-bit grey levels, as published numbers are. Overlays lie on "
        "the anatomy's grid; pictures go from black to white, CT from 0 to 80 HU, PET and SPECT from 0 and other "
        "values from their 0.5th percentile to their 99.5th in the patient"
        f"{'; asked for here: ' + ', '.join(asked) if asked else ''}. Volumes are measured slice by slice, and their "
        "value is the mean over the slices in which a source is not constant."
    ]
    told = {
        method: ", ".join(f"{white:g} {_WHITE_BY[by]} ({count})" for (white, by), count in sorted(counts.items()))
        for method, counts in whites.items()
        if counts
    }
    notes.append(f"White of the fused images: {'; '.join(f'{name}: {which}' for name, which in told.items())}.")
    if judged:
        notes.append(
            "Lesions were inserted where both sources show tissue, blurred like the source, and each pair was fused "
            "without and with them. Contrast recovery is the regression of the change in the fused luminance on the "
            "change in the source over 41 by 41 pixels; of lesions in both sources, on the overlay's. The observer has "
            "ten dense difference-of-Gaussians channels and internal noise of one grey level."
        )
    if left_out:
        sides = ", ".join(f"{name} (needs {FUSION_METRICS[name].smallest} pixels a side)" for name in left_out)
        notes.append(f"No image has a value in {sides}.")
    return notes


def _told(window: Window) -> str:
    return window if isinstance(window, str) else f"from {window[0]:g} to {window[1]:g} in stored units"


def _write(
    folder: Path, comparison: report.Comparison, study: StudyImages, notes: Sequence[str], judged: JudgedLesions | None
) -> list[Path]:
    examples, how = _examples(comparison, study)
    methods = list(comparison.methods)
    images, images_dark = (report.montage(examples, methods, dark) for dark in (False, True))
    plots, plots_dark = (report.boxplots(comparison, dark) for dark in (False, True))
    named = "; ".join(example.title.replace("\n", " ") for example in examples)
    pictures = [
        report.Picture(
            images,
            images_dark,
            "Sources and fused images",
            f"{how} Below each image the region in which the methods differ most, magnified.",
            f"Anatomy, overlay and the fused images of {', '.join(methods)}, side by side, each with the same region "
            f"magnified below it: {named}.",
        ),
        report.Picture(
            plots,
            plots_dark,
            "Every metric",
            "Quartiles, median and, as points, every pair; whiskers reach to the last pair within 1.5 times the "
            "distance of the quartiles. ↑ higher is better, ↓ lower.",
            f"Box plots of {', '.join(comparison.metrics)} for {', '.join(methods)}; the tables below tell means and "
            "deviations.",
        ),
    ]
    contents: dict[str, str | bytes] = {
        "cases.csv": report.cases_csv(comparison),
        "summary.json": report.summary_json(comparison),
        "summary.md": report.summary_markdown(comparison),
        "boxplots.png": plots,
        "montage.png": images,
    }
    seen = judged.comparison if judged else None
    lesion_pictures = _lesion_pictures(judged) if judged else {}
    if seen:
        contents |= {**report.lesion_tables(seen), **{name: of.light for name, of in lesion_pictures.items()}}
    contents["report.html"] = report.report_html(comparison, pictures, notes, seen, list(lesion_pictures.values()))
    for name, content in contents.items():
        with whole_file(folder / name) as partial:
            partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [folder / name for name in contents]


def _lesion_pictures(judged: JudgedLesions) -> dict[str, report.Picture]:
    """By the names of their files."""
    comparison = judged.comparison
    if comparison is None:
        return {}
    curves, curves_dark = (report.psychometric_curves(comparison, dark) for dark in (False, True))
    pictures = {
        "psychometric.png": report.Picture(
            curves,
            curves_dark,
            "Psychometric curves",
            "Share of the lesions in one source, bright and dark together, whose contrast the fused image keeps, "
            "against their contrast and their size; 95 % intervals by bootstrap over the subjects. Discs; against "
            "contrast those of the headline's radii, against size those of its contrast.",
            f"Curves of {', '.join(comparison.methods)}; psychometric.csv has the values.",
        )
    }
    for number, (method, examples) in enumerate(judged.examples.items(), start=1):
        light, dark = (report.worst_lesions(examples, dark) for dark in (False, True))
        pictures[f"worst_lesions_{number}.png"] = report.Picture(
            light,
            dark,
            f"The worst of {method}",
            f"The {len(examples)} lesions ({comparison.makes[0]}) with the least contrast recovery r. A ring is drawn "
            "where a lesion was inserted, and in the fused image, where it should be seen.",
            "Anatomy and overlay with the lesion, the fused image without and with it: "
            + "; ".join(f"{one.score.case}, {one.score.kind}" for one in examples)
            + ".",
        )
    return pictures


def _examples(comparison: report.Comparison, study: StudyImages) -> tuple[list[report.Example], str]:
    """Typical cases, by a rule that knows nothing of how they look, and the rule in words."""
    metric = _TYPICAL if _TYPICAL in comparison.metrics else next(iter(comparison.metrics))
    chosen, groups = [], comparison.groups[:_MOST_EXAMPLES]
    for group in groups or (None,):
        counts: dict[str, int] = {}
        for score in comparison.scores:
            if group in (None, score.group):
                counts[score.case] = counts.get(score.case, 0) + 1
        most = max(counts.values())
        values = _first_values(comparison, metric)
        ranked = sorted((case for case in counts if counts[case] == most), key=lambda case: (values[case], case))
        shares = (0.5,) if groups else (0.25, 0.5, 0.75)
        chosen += [ranked[round(share * (len(ranked) - 1))] for share in shares]
    chosen = list(dict.fromkeys(chosen))
    which = "The pair of each kind" if groups else "The pairs"
    at = "the median" if groups else "the quartiles and the median"
    how = f"{which} at {at} of {comparison.baseline}'s {metric}." if len(comparison.cases) > 1 else ""
    return [_example(case, comparison, study) for case in chosen], how


def _first_values(comparison: report.Comparison, metric: str) -> dict[str, float]:
    """By case, of the first method that has it."""
    values: dict[str, float] = {}
    for method in comparison.methods:
        values = {**comparison.values(method, metric), **values}
    return {case: values.get(case, -math.inf) for case in comparison.cases}


def _example(case: str, comparison: report.Comparison, study: StudyImages) -> report.Example:
    pair = study.pairs[case]
    sources = study.sources(pair)
    if isinstance(sources, ImageError):  # it could be read a moment ago
        raise sources
    k = 0
    if sources.anatomy.ndim == 4:
        k = int(torch.stack([source.as_tensor().sum((0, 1, 2)) for source in sources]).sum(0).argmax())
    coloured = sources.overlay
    palette = PaletteChroma("auto").named(coloured)
    if palette and len(coloured) == 1:
        coloured = MetaTensor(palette_colours(coloured.as_tensor(), palette), affine=coloured.affine)
    measured = {score.method for score in comparison.scores if score.case == case}
    fused = [
        _drawn(study.fused(method, pair, sources), k)[0] if method in measured else None
        for method in comparison.methods
    ]
    (anatomy, aspect), (overlay, _) = (_drawn(source, k) for source in (sources.anatomy, coloured))
    title = "\n".join(dict.fromkeys(text for text in (pair.get("pair", ""), case) if text))
    return report.Example(title, [anatomy, overlay], fused, aspect)


def _drawn(image: MetaTensor, k: int) -> tuple[np.ndarray, float]:
    plane, aspect = study_rows(image, k)
    return plane.astype(np.float32), aspect
