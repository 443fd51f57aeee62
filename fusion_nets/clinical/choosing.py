"""Which of several volumes in one file or series is meant: echoes, diffusion weightings, moments, or their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .errors import ImageError, Reason

__all__ = ["Labels", "Wanted", "choose_volumes"]

Wanted = str | int | None
"""Which volume a user asks for, see :func:`choose_volumes`."""
Labels = Mapping[str, object]
"""What tells one volume from the others, by name."""

ALIASES = {
    "b": ("DiffusionBValue",),
    "echo": ("EchoTime", "EffectiveEchoTime", "EchoNumbers"),
    "time": (
        "TemporalPositionIdentifier",
        "TemporalPositionIndex",
        "FrameReferenceTime",
        "TriggerTime",
        "NominalCardiacTriggerDelayTime",
        "AcquisitionTime",
        "FrameTimesStart",
        "seconds",
    ),
    "inversion": ("InversionTime",),
    "type": ("ImageType", "FrameType"),
    "stack": ("StackID",),
}
"""Short names of what DICOM has several keywords for."""
LISTED = 8


def choose_volumes(where: object, volumes: Sequence[Labels], wanted: Wanted) -> list[int]:
    """The volume that is meant, by its number from 0; several where their mean is.

    Args:
        where: what messages start with.
        volumes: what tells each from the others; empty where nothing but their order does.
        wanted: a number from 1, in the order of the volumes; what tells one apart, such as "echo=30", "b=1000" or
            "EchoTime=30" by the names of the labels; "mean" of all; or several of these parted by commas, such as
            "b=1000,mean". None where there is only one.

    Raises:
        ImageError: if no volume or more than one is meant; the message lists what there is.
    """
    asked = [] if wanted is None else [part.strip() for part in str(wanted).split(",") if part.strip()]
    chosen, mean = list(range(len(volumes))), "mean" in asked
    for part in asked:
        key, equals, value = (text.strip() for text in part.partition("="))
        if equals:
            names = ALIASES.get(key.lower(), (key,))
            chosen = [n for n in chosen if any(_fits(volumes[n], name, value) for name in names)]
        elif part != "mean":
            chosen = [n for n in chosen if part == str(n + 1)]
    if len(chosen) == 1 or (chosen and mean):
        return chosen
    if chosen:
        raise ImageError(
            Reason.AMBIGUOUS,
            f"{where}: holds {len(chosen)} volumes: {_listed(volumes, chosen)}; a single one is accepted, chosen as "
            f"`volume` by its number{_example(volumes, chosen)} or as their mean",
        )
    raise ImageError(
        Reason.MISSING,
        f"{where}: holds no volume {wanted!r}; {_listed(volumes, range(len(volumes)))} or their mean is accepted",
    )


def _fits(labels: Labels, name: str, value: str) -> bool:
    found = next((label for key, label in labels.items() if key.lower() == name.lower()), None)
    if found is None:
        return False
    try:
        return math.isclose(float(str(found)), float(value), rel_tol=1e-3, abs_tol=1e-6)
    except ValueError:
        return value.lower() in (str(found).lower(), *str(found).lower().split("\\"))


def _listed(volumes: Sequence[Labels], chosen: Sequence[int]) -> str:
    if len(chosen) <= LISTED:
        return ", ".join(f"{n + 1} ({_told(volumes[n])})" if volumes[n] else str(n + 1) for n in chosen)
    told = [f"{chosen[0] + 1} to {chosen[-1] + 1}"]
    for key in dict.fromkeys(key for n in chosen for key in volumes[n]):
        values = list(dict.fromkeys(_short(volumes[n].get(key)) for n in chosen))
        shown = values if len(values) <= LISTED else [*values[: LISTED - 2], "...", values[-1]]
        told.append(f"{key} {', '.join(shown)}")
    return "; ".join(told)


def _told(labels: Labels) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in labels.items())


def _example(volumes: Sequence[Labels], chosen: Sequence[int]) -> str:
    labels = volumes[chosen[-1]]
    return "".join(f", by {key}={_short(value)}" for key, value in list(labels.items())[:1])


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
