import random
import re

import pytest

from fusion_nets.text import Finding, parse_findings, write_findings

KINDS = (
    "head extent",
    "mean level",
    "contrast level",
    "noise level",
    "bright extent",
    "bright rim",
    "central dark area",
    "midline shift",
    "asymmetry",
    "bright region",
    "dark region",
    "region",
    "bright lesion",
    "mass",
    "hemorrhage",
    "edema",
    "infarct",
    "dark uptake",
    "calcification",
    "ventricles",
    "atrophy",
    "fracture",
)
PLACES = ("", "anterior", "posterior superior", "central", "frontal parietal", "cerebellar", "periventricular")


def random_finding(rng):
    unit = rng.choice(["", "%", "mm"])
    return Finding(
        kind=rng.choice(KINDS),
        side=rng.choice(["", "left", "right", "midline", "both"]),
        place=rng.choice(PLACES),
        size=round(rng.uniform(0, 250), 1) if unit else None,
        unit=unit,
        intensity=rng.choice([None, round(rng.uniform(0, 100), 1)]),
    )


@pytest.mark.parametrize("bright", ["", "bone", "tracer uptake", "signal"])
def test_what_is_written_is_read_back(bright):
    rng = random.Random(0)
    for _ in range(150):
        findings = [random_finding(rng) for _ in range(rng.randrange(6))]
        text = write_findings(findings, bright)
        assert parse_findings(text) == findings
        assert text.count(". ") == max(len(findings) - 1, 0)


def test_figures_have_one_decimal():
    text = write_findings([Finding("bright region", "left", "anterior", 12.345, "%", 71.26)])
    assert text == "Left anterior bright region, 12.3% across, level 71.3%."
    assert parse_findings(text) == [Finding("bright region", "left", "anterior", 12.3, "%", 71.3)]


@pytest.mark.parametrize(
    "finding",
    [
        Finding("unicorn"),
        Finding(""),
        Finding("region", side="top"),
        Finding("region", place="somewhere"),
        Finding("region", size=3.0, unit="furlongs"),
        Finding("region", size=3.0),
        Finding("region", unit="mm"),
        Finding("region", size=-3.0, unit="mm"),
        Finding("region", size=float("nan"), unit="mm"),
        Finding("region", intensity=float("inf")),
    ],
)
def test_what_could_not_be_read_back_is_refused(finding):
    with pytest.raises(ValueError, match=re.escape(str(finding))):
        write_findings([finding])


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        (
            "There is a 14 mm hyperintense lesion in the left frontal lobe. No hemorrhage. "
            "Bilateral periventricular white matter hyperintensities.",
            [
                Finding("bright lesion", "left", "frontal", 14.0, "mm"),
                Finding("bright region", "both", "periventricular"),
            ],
        ),
        (
            "A 1.4 x 2.3 cm mass with surrounding edema in the right temporo-occipital region; "
            "5 mm midline shift to the left.",
            [
                Finding("mass", size=23.0, unit="mm"),
                Finding("edema", "right", "temporal occipital"),
                Finding("midline shift", "left", "", 5.0, "mm"),
            ],
        ),
        ("Hypodense area in the right cerebellar hemisphere", [Finding("dark region", "right", "cerebellar")]),
        ("Decreased tracer uptake in the left parietal lobe.", [Finding("dark uptake", "left", "parietal")]),
        ("Lesion with a diameter of 9-mm, high T2 signal.", [Finding("bright lesion", size=9.0, unit="mm")]),
        ("A lesion of 12 mm x 17 mm x 9 mm.", [Finding("lesion", size=17.0, unit="mm")]),
        ("Foci of calcification in the left and right thalami.", [Finding("calcification", "both", "thalamic")]),
        ("Left haemorrhage, approx. 30 mm. Oedema.", [Finding("hemorrhage", "left", "", 30.0, "mm"), Finding("edema")]),
        ("MASS IN THE LEFT TEMPORAL LOBE\nATROPHY", [Finding("mass", "left", "temporal"), Finding("atrophy")]),
    ],
)
def test_ordinary_words_are_read(text, findings):
    assert parse_findings(text) == findings


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Axial CT.",
        "The patient was positioned supine. Comparison with 12.3.2019.",
        "No hemorrhage.",
        "No mass, hemorrhage, or midline shift.",
        "No evidence of acute infarct or edema.",
        "There is no lesion in the left frontal lobe and no fracture.",
        "Without hemorrhage.",
        "Neither mass nor hemorrhage.",
        "The ventricles are normal in size.",
        "A fracture is not seen.",
        "Negative for hemorrhage.",
    ],
)
def test_what_is_denied_or_normal_is_no_finding(text):
    assert parse_findings(text) == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("No hemorrhage, but a 3 mm calcification.", Finding("calcification", size=3.0, unit="mm")),
        ("No mass; left temporal infarct.", Finding("infarct", "left", "temporal")),
        ("A right frontal lesion without edema.", Finding("lesion", "right", "frontal")),
        ("A right frontal lesion, which is not enhancing.", Finding("lesion", "right", "frontal")),
        ("No hemorrhage. Left lesion.", Finding("lesion", "left")),
    ],
)
def test_a_denial_ends(text, finding):
    assert parse_findings(text) == [finding]
