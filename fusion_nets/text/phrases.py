"""A finding in the words of different readers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .findings import Finding, write_findings

__all__ = ["phrase_finding", "unremarkable"]

_TONES = {
    ("MRI", "bright"): ("bright", "hyperintense", "high-signal"),
    ("MRI", "dark"): ("dark", "hypointense", "low-signal"),
    ("CT", "bright"): ("bright", "hyperdense", "hyperattenuating"),
    ("CT", "dark"): ("dark", "hypodense", "hypoattenuating"),
    ("PET", "bright"): ("bright", "hypermetabolic", "hot"),
    ("PET", "dark"): ("dark", "hypometabolic", "cold"),
}
_TONES |= {("SPECT", tone): words for (name, tone), words in _TONES.items() if name == "PET"}
_NOUNS = {
    "region": ("region", "focus", "area", "spot", "lesion"),
    "lesion": ("lesions", "spots", "foci"),
    "uptake": ("uptake", "region", "focus"),
    "mass": ("mass", "tumor", "lesion"),
    "hemorrhage": ("hemorrhage", "hematoma", "lesion"),
    "infarct": ("infarct", "region"),
    "edema": ("edema", "area"),
    "calcification": ("calcification", "focus"),
}
_SMALL, _LARGE = 8.0, 14.0
"""Diameters in mm that readers call small and large."""

_FORMS = (
    "{size_word} {tone} {noun}, {where}{measure}.",
    "{where} {size_word} {tone} {noun}{measure}.",
    "There is a {size_word} {tone} {noun} in the {where}{measure}.",
    "{tone} {noun} of the {where}{measure}.",
    "{size_word} {tone} {noun}, {where}, in the {name}.",
)
_UNREMARKABLE = (
    "Ventricles of normal size.",
    "No midline shift.",
    "No other lesion.",
    "No hemorrhage.",
    "The remainder is unremarkable.",
    "No mass effect.",
    "Head extent 46.0% of the image.",
    "Mean level 21.5%.",
    "No fracture.",
    "Study without contrast agent.",
)


def phrase_finding(finding: Finding, name: str, rng: np.random.Generator) -> str:
    """One sentence for a finding of a simulated lesion, as one reader or another would write it.

    Half of them are those of :func:`write_findings`; the others leave out what readers leave out (the size, the level,
    the kind), and name tone and size in words.

    Args:
        finding: a bright or dark one.
        name: of the image, "MRI", "CT", "PET" or "SPECT".
        rng: draws the words.
    """
    if rng.random() < 0.4:
        exact = replace(finding, size=finding.size if rng.random() < 0.7 else None)
        exact = replace(exact, unit=exact.unit if exact.size else "")
        return write_findings([replace(exact, intensity=exact.intensity if rng.random() < 0.5 else None)])
    tone, _, noun = finding.kind.partition(" ")
    size = finding.size or 0.0
    size_word = "small" if 0 < size < _SMALL else "large" if size > _LARGE else ""
    where = " ".join(filter(None, [finding.side if finding.side != "midline" else "midline", finding.place]))
    words = {
        "size_word": size_word if rng.random() < 0.6 else "",
        "tone": str(rng.choice(_TONES[name, tone])),
        "noun": str(rng.choice(_NOUNS[noun])) if rng.random() < 0.7 else "region",
        "where": where + (" lobe" if finding.place in ("frontal", "parietal") and rng.random() < 0.3 else ""),
        "measure": f", {size:.0f} mm" if size and rng.random() < 0.4 else "",
        "name": name,
    }
    sentence = " ".join(str(rng.choice(_FORMS)).format(**words).split()).replace(" ,", ",")
    return f"{sentence[:1].upper()}{sentence[1:]}"


def unremarkable(rng: np.random.Generator) -> str:
    """A sentence that names nothing that is to be found."""
    return str(rng.choice(_UNREMARKABLE))
