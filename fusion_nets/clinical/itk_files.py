"""NRRD and MetaImage, the forms of the ITK world."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fusion_nets.cautions import caution

from .choosing import Labels, Wanted, choose_volumes
from .errors import ImageError, Pixels, Reason, check_affine, check_voxels, unreadable
from .metaimage import LONGEST_HEADER, Stored, beside, read_metaimage
from .nifti import least_white

__all__ = ["ITK_SUFFIXES", "nrrd_fields", "nrrd_header", "read_itk"]

logger = logging.getLogger(__name__)

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of files that are read as NRRD or MetaImage."""
DATA_FILE = re.compile(rb"^data ?file: *(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
KNOWN_SPACES = re.compile(
    r"(right|left)-anterior-superior(-time)?|left-posterior-superior(-time)?|RAST?|LAST?|LPST?", re.I
)
MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "um": 0.001, "micron": 0.001, "cm": 10.0, "m": 1000.0, "meter": 1000.0}


def read_itk(path: Path, volume: Wanted = None) -> Pixels:
    """Read an NRRD or MetaImage file: (1 | 3, X, Y[, Z]), float32, its affine (RAS), and what means white.

    Three values in each voxel are colours if the file says so, by the kind of the axis in NRRD, by unsigned whole
    numbers in MetaImage; else they are volumes, as those along a fourth axis are.

    Args:
        path: the file.
        volume: which one of several is meant, see :func:`~fusion_nets.clinical.choosing.choose_volumes`.

    Raises:
        ImageError: if it cannot be read, is gigantic, is no scalar or coloured image in two or three dimensions, or
            has its voxels in a file outside of its folder.
    """
    stored = read_metaimage(path) if path.suffix.lower().startswith(".m") else _read_nrrd(path)
    values, shape = stored.values, stored.values.shape[1:]
    if len(shape) not in (2, 3, 4):
        raise ImageError(
            Reason.SHAPE, f"{path}: shape {shape}; two or three axes are accepted, or a fourth to choose a volume from"
        )
    if stored.is_colour and len(shape) < 4:
        array = np.ascontiguousarray(values, dtype=np.float32)
    else:
        values = values[..., None] if len(shape) < 4 else values
        places = [(channel, moment) for moment in range(values.shape[-1]) for channel in range(len(values))]
        labels = stored.labels if len(stored.labels) == len(places) else [{} for _ in places]
        chosen = [places[n] for n in choose_volumes(path, labels, volume)]
        array = np.zeros((1, *shape[:3]), dtype=np.float32)
        for channel, moment in chosen:
            array[0] += values[channel, ..., moment] / np.float32(len(chosen))
    array = array[..., 0] if len(shape) >= 3 and array.shape[3] == 1 else array
    if min(array.shape[1:]) < 2:
        raise ImageError(
            Reason.TOO_SMALL, f"{path}: size {array.shape[1:]}; at least 2 pixels along each axis are accepted"
        )
    if not stored.is_placed:
        caution(logger, path, "does not say where it lies in the patient (space, origin or offset), which is a guess")
    white = least_white(array, stored.kind, path) if len(array) == 3 else None
    return Pixels(array, check_affine(path, np.diag([-1.0, -1, 1, 1]) @ stored.affine), white, stored.is_placed)


def _read_nrrd(path: Path) -> Stored:
    """By ITK."""
    import itk

    text = nrrd_header(path)
    for name in DATA_FILE.findall(text):
        beside(path, name.decode("utf-8", "replace"))
    fields = nrrd_fields(text)
    try:
        with TemporaryDirectory() as folder:
            source = _with_list(path, text, fields, Path(folder))
            file = itk.NrrdImageIO.New()
            file.SetFileName(str(source))
            file.ReadImageInformation()
            channels = file.GetNumberOfComponents()
            shape = tuple(file.GetDimensions(axis) for axis in range(file.GetNumberOfDimensions()))
            check_voxels(path, (channels, *shape), held=max(4, file.GetComponentSize()))
            if len(shape) not in (2, 3):
                raise ValueError(f"{len(shape)} dimensions")
            component = file.GetComponentTypeAsString(file.GetComponentType())
            if path.suffix.lower() == ".nrrd" and b"encoding: raw" in text.lower():
                _check_length(path, file.GetImageSizeInBytes())
            image_type = itk.Image[itk.F, len(shape)] if channels == 1 else itk.VectorImage[itk.F, len(shape)]
            reader = itk.ImageFileReader[image_type].New(ImageIO=file, FileName=str(source))
            reader.Update()
            image = reader.GetOutput()
            values = np.array(itk.array_view_from_image(image).reshape(*shape[::-1], channels).T, order="C")
            affine, size = np.eye(4), len(shape)
            affine[:size, :size] = itk.array_from_matrix(image.GetDirection()) @ np.diag(list(image.GetSpacing()))
            affine[:size, 3] = list(image.GetOrigin())
            affine[:size] *= _millimetres(path, fields)
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes ITK stumble in any way
        reason = RuntimeError(str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__)
        raise unreadable(path, "NRRD file", "a whole one", reason) from error
    kind = "f" if component in ("float", "double") else "u" if component.startswith("unsigned") else "i"
    kinds = set(fields.get("kinds", "").lower().split())
    is_colour = channels == 3 and (bool(kinds & {"rgb-color", "3-color"}) or ("vector" in kinds and kind == "u"))
    is_placed = bool(KNOWN_SPACES.fullmatch(fields.get("space", ""))) and "space origin" in fields
    return Stored(values, affine, kind, is_colour, is_placed, _weightings(fields, channels))


def nrrd_header(path: Path) -> bytes:
    """The header of an NRRD file, damaged or not."""
    with open(path, "rb") as file:
        return re.split(rb"\r?\n\r?\n", file.read(LONGEST_HEADER), maxsplit=1)[0]


def nrrd_fields(text: bytes) -> dict[str, str]:
    """Fields ("name: value") and what others have put beside them ("name:=value") of an NRRD's header."""
    lines = (line for line in text.decode("utf-8", "replace").splitlines()[1:] if not line.startswith("#"))
    parts = (re.split(r":=|:", line, maxsplit=1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in parts}


def _with_list(path: Path, text: bytes, fields: dict[str, str], folder: Path) -> Path:
    """The file, or a copy that calls a fourth axis outside of space a list, as ITK wants to have it."""
    directions = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * len(directions)
    if directions.count("none") != 1 or len(kinds) != len(directions):
        return path
    outside = directions.index("none")
    if kinds[outside] not in ("domain", "space", "time", "???", "none"):
        return path
    named = DATA_FILE.findall(text)
    content = (beside(path, named[0].decode()) if named else path).read_bytes()
    skipped = (
        content.split(b"\n", int(fields.get("line skip", 0)))[-1] if named else content[len(text) :].lstrip(b"\r\n")
    )
    lines = [line for line in text.splitlines() if not re.match(rb"(kinds|data ?file|line skip):", line, re.I)]
    kinds = ["list" if axis == outside else "domain" for axis in range(len(kinds))]
    header = [*lines, f"kinds: {' '.join(kinds)}".encode(), b"", b""]
    copy = folder / "a.nrrd"
    copy.write_bytes(b"\n".join(header) + skipped)
    return copy


def _millimetres(path: Path, fields: dict[str, str]) -> float:
    units = {unit.lower() for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))} - {"", "???"}
    if len(units) > 1 or any(unit not in MILLIMETRES for unit in units):
        raise ImageError(
            Reason.UNITS,
            f"{path}: space units are {fields['space units']}; one of {', '.join(MILLIMETRES)} is accepted",
        )
    return MILLIMETRES[units.pop()] if units else 1.0


def _weightings(fields: dict[str, str], channels: int) -> list[Labels]:
    """b-values of diffusion weighted volumes, as Slicer writes them: the square of a gradient's length tells."""
    gradients = [fields.get(f"dwmri_gradient_{n:04d}", "").split() for n in range(channels)]
    if "dwmri_b-value" not in fields or not all(len(gradient) == 3 for gradient in gradients):
        return []
    squares = np.square(np.array(gradients, dtype=np.float64)).sum(axis=1)
    values = float(fields["dwmri_b-value"]) * squares / (squares.max() or 1)
    return [{"DiffusionBValue": float(round(value, 1))} for value in values]


def _check_length(path: Path, wanted: int) -> None:
    """Before ITK asks for memory that it will not fill."""
    if path.stat().st_size < wanted:
        raise ValueError(f"{path.stat().st_size} bytes, where its header promises {wanted}")
