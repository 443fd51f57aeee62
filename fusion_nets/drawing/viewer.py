"""A page to look at a fused study: sources and result in linked planes, in one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from fusion_nets.clinical.grids import affine_of, as_volume, check_same_grid, is_picture, on_cpu
from fusion_nets.clinical.quantities import MEASURED
from fusion_nets.files import whole_file
from fusion_nets.names import shown
from fusion_nets.overlays import OVERLAYS, each_of, overlays_in, record_of
from fusion_nets.registration import WorldTransform, resample_onto

from .viewer_volumes import StoredAs, factors_of, is_uptake, packed, palettes, values_of

__all__ = ["MOST_VOXELS", "Page", "pages_in", "view", "viewer_html", "write_viewer"]

MOST_VOXELS = 4_000_000
"""Of a volume in a page, where it holds three: they pack to 20 MB at most, which mail servers take."""

DISPLAY_AXES = ("L", "P", "I")
"""Where the stored axes run: as a radiologist's planes are drawn, from the left to the right and from the top down."""

PICTURE_AXES = np.array([[1, 1], [0, 1], [2, 1]])
"""How the axes of a picture, (row, column), come to lie likewise."""


def viewer_html(
    anatomy: MetaTensor,
    overlay: MetaTensor | Sequence[MetaTensor],
    fused: MetaTensor,
    record: Mapping[str, Any] | None = None,
    name: str = "",
    warnings: Iterable[str] = (),
    most_voxels: int = MOST_VOXELS,
    transform: WorldTransform | Sequence[WorldTransform | None] | None = None,
) -> str:
    """The page of one case: anatomy, overlay and fused image side by side in three planes, crosshairs linked.

    Of several overlays one is looked at, which whoever looks chooses; values are told of all of them.

    It draws in two dimensions, so that it needs no graphics processor, and loads nothing: its content security policy
    allows the script and the style that it holds, by hash, and no request at all. The sources keep their own units;
    whole numbers are exact, others stored to a 65535th of their range. Strings are data.

    Args:
        anatomy: (1, H, W[, D]) in its own units, as :func:`fusion_nets.clinical.read_image` gives it.
        overlay: (1 | 3, H', W'[, D']), likewise, on its own grid; or a list of up to three, in the record's order.
        fused: (1 | 3, H, W[, D]) in [0, 1] on the anatomy's grid.
        record: of the result, as :class:`fusion_nets.transforms.RecordChoices` gives it: its ``transform`` brings the
            overlay onto the anatomy, its display ranges and palette are shown first.
        transform: what brings the overlay onto the anatomy, where the record does not hold it, as it bends; of a list
            of overlays a list of as many, None for what the record holds.
        name: of the case.
        warnings: what else should be known before it is looked at, a line each.
        most_voxels: of a volume, where there are three; of more, so many fewer that all together are no more. Larger
            ones are reduced by whole factors, each voxel a mean; the page says so.

    Returns:
        HTML. Of patients it holds the pixels, the name of the case and the record, nothing of the files' headers.

    Raises:
        ImageError: if the fused image is not on the anatomy's grid, or a picture not on that of the other.
        ValueError: if the record's transform is no (4, 4) matrix, the anatomy is coloured, or there are other numbers
            of overlays than accepted, than transforms, or than the record tells of.
    """
    record = dict(record or {})
    overlays = [overlay] if isinstance(overlay, torch.Tensor) else list(overlay)
    records = _each(record, len(overlays))
    given: list[Any] = list(transform) if isinstance(transform, (list, tuple)) else [transform]
    transforms = each_of("transform", given, len(overlays))
    if anatomy.shape[0] != 1:
        raise ValueError(f"the anatomy has {anatomy.shape[0]} channels; a grey image is accepted")
    anatomy, fused = on_cpu(anatomy), on_cpu(fused)
    check_same_grid(fused, anatomy)
    flat = is_picture(anatomy)
    sources = {"anatomy": anatomy}
    for key, one, told, moved in zip(OVERLAYS, map(on_cpu, overlays), records, transforms, strict=False):
        if flat or is_picture(one):
            check_same_grid(one, anatomy)
        sources[key] = resample_onto(one, anatomy, _matrix(told.get("transform")) if moved is None else moved)
    affine, size = affine_of(anatomy), tuple(as_volume(anatomy).shape[1:])
    turn = PICTURE_AXES if flat else ornt_transform(io_orientation(affine), axcodes2ornt(DISPLAY_AXES))
    affine = affine @ inv_ornt_aff(turn, size)
    turned = tuple(size[axis] for axis in np.argsort(turn[:, 0]))
    stored = StoredAs(turn, factors_of(turned, voxel_sizes(affine), 3 * most_voxels // (len(sources) + 1)))
    affine = affine @ np.diag([*stored.every, 1.0])
    affine[:3, 3] += affine[:3, :3] @ ((np.array(stored.every) - 1) / 2 / np.array(stored.every))
    images, data = {}, {}
    numbers = range(1, len(overlays) + 1) if len(overlays) > 1 else [0]
    of = {"anatomy": (0, record), **dict(zip(OVERLAYS, zip(numbers, records, strict=True), strict=False))}
    for key, image in (*sources.items(), ("fused", fused)):
        number, told = of.get(key, (0, record))
        kind = "overlay" if key in OVERLAYS else key
        images[key], data[key] = packed(kind, stored.apply(values_of(image)), image, told, number)
    called = {key: images[key]["called"] for key in sources}
    kept = tuple(-(-n // every) for n, every in zip(turned, stored.every, strict=True))
    case = {
        "title": f"{shown(name)}: fused study" if name else "Fused study",
        "size": kept,
        "spacing": [1.0] * 3 if flat else voxel_sizes(affine).tolist(),
        "affine": None if flat else affine.tolist(),
        "counted": _counted(turn, 2 if flat else 3),
        "every": stored.every,
        "whole": turned,
        "voxels": "pixel" if flat else "voxel",
        "images": images,
        "palettes": palettes(told.get("overlay_palette") for told in records),
        "projection": [
            key
            for key in overlays_in(sources)
            if min(kept) > 1 and images[key]["channels"] == 1 and is_uptake(sources[key])
        ],
        "mixed": _mixed(record, images),
        "stored": _stored_told(turned, kept, images),
        "chosen": _chosen(record, records, called),
        "warnings": list(
            dict.fromkeys([*_warnings(records, called), *map(shown, warnings), *_doubts(sources, called)])
        ),
        "record": record,
    }
    return _page(case, data)


def write_viewer(
    path: str | os.PathLike[str],
    anatomy: MetaTensor,
    overlay: MetaTensor | Sequence[MetaTensor],
    fused: MetaTensor,
    **told: Any,
) -> Path:
    """Write the page of one case, see :func:`viewer_html`, whose arguments these are.

    Raises:
        ValueError: if the path does not end in .html, and as :func:`viewer_html` does.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"{path}: unknown ending; .html is accepted")
    page = viewer_html(anatomy, overlay, fused, **told)
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


class Page:
    """A page that a notebook shows, in a frame of its own which may reach nothing else."""

    def __init__(self, html: str, height: int = 900) -> None:
        self.html = html
        self.height = height

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="Fused study" sandbox="allow-scripts" width="100%" height="{int(self.height)}" '
            f'style="border:0" srcdoc="{escape(self.html)}"></iframe>'
        )


def view(case: str | os.PathLike[str], height: int = 900) -> Page:
    """Show a case in a notebook.

    Args:
        case: its page, as ``fuse --format html`` writes it, or a folder that holds one and no other.
        height: of the frame, in pixels.

    Raises:
        ValueError: if it is no such page, or the folder holds none or several.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> image = MetaTensor(np.random.default_rng(0).random((1, 8, 8, 8)))
        >>> with TemporaryDirectory() as folder:
        ...     _ = write_viewer(f"{folder}/head_fused.html", image, image, image, name="head")
        ...     page = view(folder)
        >>> page._repr_html_()[:33]
        '<iframe title="Fused study" sandb'
    """
    pages = pages_in(case)
    if len(pages) > 1:
        raise ValueError(f"{case}: {len(pages)} pages, such as {pages[0].name}; one of them is accepted")
    return Page(pages[0].read_text(encoding="utf-8"), height)


_OF_BIDS = ("", *(f"{place}figures/" for place in ("", "ses-*/", "sub-*/", "sub-*/ses-*/")))
"""Where the pages of a dataset are, seen from it, or from a folder in it."""


def pages_in(folder: str | os.PathLike[str], name: str | None = None) -> list[Path]:
    """The pages of fused studies in a folder, or the one that is given.

    Args:
        folder: what ``fuse --format html`` wrote into, also a BIDS dataset of derivatives, or a page.
        name: of the case, if only its page is meant.

    Raises:
        ValueError: if there is none.
    """
    path = Path(folder)
    patterns = ["*_fused.html", *(f"{place}*_desc-fused*.html" for place in _OF_BIDS)]
    found = [path] if path.is_file() else sorted(page for pattern in patterns for page in path.glob(pattern))
    pages = [
        page for page in found if page.suffix.lower() == ".html" and name in (None, page.stem.removesuffix("_fused"))
    ]
    if not pages:
        raise ValueError(
            f"{path}: no page{f' of {name!r}' if name else ''}; `fuse --format html` writes NAME_fused.html there, and "
            "`view` with --anatomy and --overlay, of what was fused"
        )
    return pages


def _page(case: Mapping[str, Any], data: Mapping[str, str]) -> str:
    template, style, pictures, controls = (
        files(__package__).joinpath(f"viewer{end}").read_text(encoding="utf-8")
        for end in (".html", ".css", "_pictures.js", "_controls.js")
    )
    script = f'"use strict";\n{{\n{pictures}{controls}}}\n'
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
    # JSON may write any character by its number: none of the data can end the element that holds it
    told = json.dumps(case).replace("<", "\\u003c")
    return Template(template).substitute(
        title=escape(case["title"]),
        policy=f"{policy}base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        case=told,
        data="\n".join(f'<script type="text/plain" id="data-{key}">{text}</script>' for key, text in data.items()),
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _each(record: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    """What the record says of each overlay, as if it were the only one."""
    if not 1 <= count <= len(OVERLAYS):
        raise ValueError(f"{count} overlays are given; 1 to {len(OVERLAYS)} are accepted")
    there = len(overlays_in(record.get("record", {})))
    if record and there != count and max(there, count) > 1:
        raise ValueError(f"the record is of {there} overlays, and {count} are given; as many are accepted")
    return [record_of(record, key) for key in OVERLAYS[:count]]


def _matrix(transform: Any) -> np.ndarray | None:
    if transform is None:
        return None
    try:
        matrix = np.asarray(transform, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(
            "the record's transform is no (4, 4) matrix; one of a rigid or affine registration is accepted"
        )
    return matrix


def _counted(turn: np.ndarray, axes: int) -> list[tuple[int, bool]]:
    """Of each axis of the file, which stored axis it is, and whether it runs against it."""
    return [(int(axis), bool(way < 0)) for axis, way in turn[:axes]]


def _stored_told(size: tuple[int, ...], kept: tuple[int, ...], images: Mapping[str, Any]) -> str:
    words = [" \u00d7 ".join(map(str, [n for n in one if n > 1])) for one in (size, kept)]
    told = f"{words[1]} {'voxels' if min(size) > 1 else 'pixels'}"
    if kept != size:
        told = f"Reduced from {words[0]} to {words[1]} voxels: each value is a mean of neighbours"
    steps = [
        f"{one['called']} to \u00b1{np.format_float_positional(one['slope'] / 2, 1, fractional=False)} {one['units']}"
        for key, one in images.items()
        if key != "fused" and one["slope"] != 1
    ]
    return f"{told}. Values are as read{', but rounded: ' if steps else ''}{', '.join(steps)}."


def _the(called: str) -> str:
    return f"the {called}" if called in ("anatomy", "overlay") else called


def _mixed(record: Mapping[str, Any], images: Mapping[str, Any]) -> str:
    """Which colour each of several overlays has in the fused image."""
    said = record.get("record", {})
    colours = {key: said.get(key, {}).get("colour") for key, one in images.items() if "choice" in one}
    return ", ".join(
        f"{images[key]['choice']} {shown(str(one))}".replace("_", " ") for key, one in colours.items() if one
    )


def _chosen(
    record: Mapping[str, Any], records: Sequence[Mapping[str, Any]], called: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The record in a few lines."""
    said = record.get("record", {})
    lines = [("Method", said.get("method")), ("Version", said.get("fusion_nets")), _window(said, "anatomy", "anatomy")]
    for told, words in zip(records, list(called.values())[1:], strict=True):
        said, of = told.get("record", {}), f" of {words}" if len(records) > 1 else ""
        lines += [_window(said, "overlay", words), (f"Palette{of}", told.get("overlay_palette"))]
        registration = said.get("registration")
        if registration:
            lines += [(f"Registration{of}", registration.get("mode")), ("Because", registration.get("reason"))]
            before, after = registration.get("before"), registration.get("after")
            if before is not None and after is not None:
                lines.append(("Mutual information, normalised", f"{before:.3f} before, {after:.3f} after"))
    return [(name, shown(str(value))) for name, value in lines if value]


def _window(said: Mapping[str, Any], key: str, called: str) -> tuple[str, str]:
    display = said.get(key, {}).get("display")
    if not display:
        return "", ""
    low, high = display["range"]
    return f"Window of {_the(called)}", f"{low:g} to {high:g} {display['units']} ({display['window']})"


def _warnings(records: Sequence[Mapping[str, Any]], called: Mapping[str, str]) -> list[str]:
    said = records[0].get("record", {})
    lines = [*said.get("warnings", ()), *said.get("regions", {}).get("warnings", ())]
    for told, words in zip(records, list(called.values())[1:], strict=True):
        reason = str(told.get("record", {}).get("registration", {}).get("reason", ""))
        if "failed" in reason:  # and it was asked to go on
            lines.append(f"Not registered{f', {words}' if len(records) > 1 else ''}: {reason}")
    return [shown(str(line)) for line in lines]


def _doubts(sources: Mapping[str, MetaTensor], called: Mapping[str, str]) -> list[str]:
    """What the images themselves leave open."""
    lines = [
        f"Where {_the(called[key])} lies in the patient is a guess: its file does not say it. Sides and places may be "
        "wrong."
        for key, image in sources.items()
        if not image.meta.get("placed", True)
    ]
    for key in overlays_in(sources):
        meta, words = sources[key].meta, _the(called[key])
        is_uptaken = meta.get("modality") in ("PT", "NM") and meta.get("units") not in MEASURED
        if is_uptaken and not is_picture(sources["anatomy"]):
            lines.append(f"{words[0].upper()}{words[1:]} has no units: its values are as stored, no SUV.")
    return lines
