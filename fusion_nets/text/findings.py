"""Findings: the statements of a description, as data, and the sentences that say them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

__all__ = ["PLACES", "Finding", "parse_findings", "write_findings"]


@dataclass(frozen=True)
class Finding:
    """One statement about an image.

    Args:
        kind: what was seen, such as "bright region".
        side: "left", "right", "midline", "both", or "" where nothing is said; the patient's side.
        place: where along the other axes, such as "anterior", or "".
        size: how large, in ``unit``; None where nothing is said. A length, but of an extent the share of the image.
        unit: "%" (of the image, or its length) or "mm"; "" without a size.
        intensity: in percent of the display range (an asymmetry: of the darker half); None where nothing is said.
    """

    kind: str
    side: str = ""
    place: str = ""
    size: float | None = None
    unit: str = ""
    intensity: float | None = None


_STATEMENTS = (
    "head extent",
    "mean level",
    "contrast level",
    "noise level",
    "bright extent",
    "bright rim",
    "central dark area",
    "midline shift",
)
"""Kinds that are read as they stand."""

_NOUNS = {
    "asymmetry": r"asymmetr\w+|half brighter|halves alike",
    "region": r"regions?|areas?|zones?|fo(?:cus|ci)|spots?|signals?|hyp(?:er|o)(?:intensit|densit|attenuati)\w+",
    "lesion": r"lesions?",
    "mass": r"mass(?:es)?(?! effect)|tumou?rs?",
    "hemorrhage": r"h(?:a|)emorrhag\w+|h(?:a|)ematomas?|bleed(?:s|ing)?",
    "edema": r"o?edema\w*",
    "infarct": r"infarct\w*",
    "ischemia": r"isch(?:a|)emi\w+",
    "uptake": r"uptakes?",
    "calcification": r"calcifi\w+",
    "ventricles": r"ventric(?:les?|ulomegaly)",
    "hydrocephalus": r"hydrocephalus",
    "atrophy": r"atroph\w+",
    "fracture": r"fractures?",
    "cyst": r"cysts?",
    "abscess": r"abscess(?:es)?",
    "aneurysm": r"aneurysms?",
    "collection": r"collections?",
    "enhancement": r"enhancement",
    "herniation": r"herniations?",
    "thickening": r"thickening",
    "defect": r"defects?",
}
_OF = r"(?=[\s-]+(?:t[12][\s-]+|tracer\s+|fdg\s+)?(?:signal|uptake|dens|attenuat|intens|activity|metabol|perfusion))"
_TONES = {
    "bright": rf"bright|hyper(?:intens|dens|attenuat|metabol)\w+|(?:high|increased|elevated){_OF}|hot|avid|intense",
    "dark": rf"dark|hypo(?:intens|dens|attenuat|metabol)\w+|(?:low|decreased|reduced){_OF}|cold|photopenic",
}
_PLACES = {
    "anterior": r"anterior(?:ly)?",
    "posterior": r"posterior(?:ly)?",
    "superior": r"superior(?:ly)?",
    "inferior": r"inferior(?:ly)?",
    "central": r"central(?:ly)?",
    "frontal": r"front(?:al|o)",
    "parietal": r"pariet(?:al|o)",
    "temporal": r"tempor(?:al|o)",
    "occipital": r"occipit(?:al|o)",
    "cerebellar": r"cerebell\w+",
    "periventricular": r"periventricular",
    "medial": r"medial(?:ly)?",
    "lateral": r"lateral(?:ly)?",
    "subcortical": r"subcortical",
    "cortical": r"cortical",
    "insular": r"insul\w+",
    "thalamic": r"thalam\w+",
    "basal": r"basal",
    "brainstem": r"brain ?stem|pontine|pons|midbrain",
    "callosal": r"callos\w+",
    "subdural": r"subdural",
    "epidural": r"(?:epi|extra)dural",
    "subarachnoid": r"subarachnoid",
}
PLACES = tuple(_PLACES)
"""The words for where a finding lies along the other axes."""
_SIDES = {"left": r"left", "right": r"right", "both": r"bilateral(?:ly)?|both", "midline": r"midline"}

_EXTENTS = {"head extent": "of the image", "bright extent": "of the image", "bright rim": "of the border"}
"""What a percentage of these kinds is a part of; every other size is a length."""


def _any_of(words: dict[str, str]) -> re.Pattern[str]:
    return re.compile("|".join(rf"(?P<{name}>\b(?:{pattern}))" for name, pattern in words.items()))


_NUMBER = r"\d+(?:\.\d+)?"
_STATEMENT = re.compile("|".join(rf"\b{kind}\b" for kind in _STATEMENTS))
_NOUN = re.compile("|".join(rf"(?P<{name}>\b(?:{pattern})\b)" for name, pattern in _NOUNS.items()))
_TONE, _PLACE = _any_of({k: rf"(?:{v})\b" for k, v in _TONES.items()}), _any_of(_PLACES)
_SIDE = _any_of({k: rf"(?:{v})\b" for k, v in _SIDES.items()})
_LEVEL = re.compile(rf"\b(?:level|brighter by|alike within) ({_NUMBER})%")
_SIZE = re.compile(rf"({_NUMBER}(?:\s*(?:mm|cm)?\s*(?:x|×|by)\s*{_NUMBER})*)[\s-]*(%|percent\b|mm\b|cm\b)")  # noqa: RUF001
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n+")
_CLAUSE = re.compile(r"(;|,|\b(?:but|however|although|though|with|and|or|nor)\b|(?=\bwithout\b))")
_DENIAL = re.compile(r"\b(?:no|not|without|neither|nor|absent|absence|negative|denies|free of|ruled out|excluded)\b")
_DENIED_AFTER = re.compile(
    r"\b(?:is|are|was|were|appears?|has|have|been)\s+(?:\w+\s+)?"
    r"(?:not (?:seen|identified|present|visuali[sz]ed|detected|evident|found)"
    r"|absent|excluded|ruled out|normal|unremarkable|resolved)\b"
)
_TURN = {";", "but", "however", "although", "though"}
"""What ends the reach of a denial."""


def write_findings(findings: Sequence[Finding], bright: str = "") -> str:
    """Write findings as radiologists do, one sentence each, figures with one decimal.

    Args:
        findings: what to say, in order.
        bright: what the bright extent is made of in this modality, such as "bone".

    Returns:
        The sentences; :func:`parse_findings` gives the findings back, their figures rounded.

    Raises:
        ValueError: for a finding outside the vocabulary, which no reader could get back.
    """
    return " ".join(_written(finding, bright) for finding in findings)


def parse_findings(text: str) -> list[Finding]:
    """Read the findings of a description, in a radiologist's ordinary words as well, in order.

    Sentences are taken apart into clauses, and each clause that names a kind gives at most one finding; what is denied
    ("no", "without") or normal gives none. "Hyperintense", "hyperdense", "increased" and the like become "bright",
    their opposites "dark": "a hyperintense lesion" is a "bright lesion", a "hypodensity" a "dark region". Lengths are
    in mm, of several the largest. A description's own order, and nothing else, decides the order.

    Args:
        text: English prose.

    Returns:
        The findings; none for a text without any.
    """
    findings = []
    for sentence in _SENTENCE.split(text.lower().replace("approx.", "approximately")):
        findings += [_read(clause, kind) for clause, kind in _clauses(sentence)]
    return findings


def _clauses(sentence: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The clauses of a sentence that state something, each with the match of its kind."""
    pieces = ["", *_CLAUSE.split(sentence)]
    run, denied = "", False
    for mark, piece in zip(pieces[::2], pieces[1::2], strict=True):
        found, before = _kind(piece), _kind(run)
        if found and before and (found.lastgroup != "region" or _SIZE.search(piece) or _SIDE.search(piece)):
            denied = _is_denied(run, before, denied)
            if not denied:
                yield run, before
            denied = denied and mark not in _TURN and not _SIZE.search(piece)
            run = "nor" if mark == "nor" else ""
        run += f"{mark}{piece}"
    last = _kind(run)
    if last and not _is_denied(run, last, denied):
        yield run, last


def _is_denied(clause: str, kind: re.Match[str], already: bool) -> bool:
    return already or bool(_DENIAL.search(clause, 0, kind.end()) or _DENIED_AFTER.search(clause, kind.end()))


def _kind(clause: str) -> re.Match[str] | None:
    """Where a clause names its kind: a region of hemorrhage is a hemorrhage, a region of nothing else a region."""
    named = _STATEMENT.search(clause)
    nouns = list(_NOUN.finditer(clause))
    return named or next((noun for noun in nouns if noun.lastgroup != "region"), nouns[0] if nouns else None)


def _read(clause: str, kind: re.Match[str]) -> Finding:
    level = _LEVEL.search(clause)
    rest = _LEVEL.sub(" ", clause)
    size, unit = _size(rest)
    around = clause[: kind.start()] + " " + clause[kind.end() :]
    name = kind.group()
    if kind.lastgroup:
        tone = _TONE.search(clause)
        name = f"{tone.lastgroup} {kind.lastgroup}" if tone else kind.lastgroup
    sides = {str(match.lastgroup) for match in _SIDE.finditer(around)}
    if {"left", "right"} <= sides or "both" in sides:
        sides = {"both"}
    side = next((side for side in ("left", "right", "both", "midline") if side in sides), "")
    places = dict.fromkeys(str(match.lastgroup) for match in _PLACE.finditer(around))
    return Finding(name, side, " ".join(places), size, unit, float(level.group(1)) if level else None)


def _size(text: str) -> tuple[float | None, str]:
    """The first size a text states: its largest dimension, in "mm" or "%"."""
    match = _SIZE.search(text)
    if not match:
        return None, ""
    largest = max(float(number) for number in re.findall(_NUMBER, match.group(1)))
    if match.group(2) == "cm":
        return round(10 * largest, 3), "mm"
    return largest, "mm" if match.group(2) == "mm" else "%"


def _written(finding: Finding, bright: str) -> str:
    size = None if finding.size is None else f"{finding.size:.1f}"
    level = None if finding.intensity is None else f"{finding.intensity:.1f}%"
    exact = replace(
        finding,
        size=None if size is None else float(size),
        intensity=None if level is None else float(level[:-1]),
    )
    sentence = _sentence(finding, size, level, bright)
    if parse_findings(sentence) != [exact]:
        raise ValueError(f"{finding} is outside the vocabulary of findings: {sentence!r} does not read as it")
    return sentence


def _sentence(finding: Finding, size: str | None, level: str | None, bright: str) -> str:
    kind, side = finding.kind, finding.side
    if kind == "asymmetry" and level and size is None and side in ("left", "right", "both") and not finding.place:
        return (
            f"Both halves alike within {level}." if side == "both" else f"{side.capitalize()} half brighter by {level}."
        )
    words = ["bilateral" if side == "both" else side, finding.place, kind]
    if kind == "bright extent" and bright:
        words.append(f"of {bright}")
    sentence = " ".join(filter(None, words))
    if size is not None:
        sentence += f", {size}{'%' if finding.unit == '%' else f' {finding.unit}'} {_EXTENTS.get(kind, 'across')}"
    if level is not None:
        sentence += f" {level}" if kind.endswith("level") and size is None else f", level {level}"
    return f"{sentence[:1].upper()}{sentence[1:]}."
