"""Equal to the reference judge on cases of our own making: the same lesions, recoveries, and observers."""

import json

import numpy as np
import pytest
import torch
from heads import coloured, head_pair, unequal
from PIL import Image

from evaluation.observers import (
    LESION_KINDS,
    cielab,
    contrast_recovery,
    lesion_cases,
    lost,
    observer_area,
    patches_at,
)

PAIRS = {"CT": 6, "PET": 6}


def save(path, image):
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def judged(judge, tmp_path_factory):
    """The judge's cases of our pairs, fused in grey and in colour: its folder, cases, and its two tables."""
    folder = tmp_path_factory.mktemp("judge")
    pairs = []
    for group, count in PAIRS.items():
        for number in range(count):
            name = f"{group}{number}"
            for key, image in zip(("anatomy", "overlay"), head_pair(number, group == "CT"), strict=True):
                save(folder / f"{name}_{key}.png", image)
            paths = {key: str(folder / f"{name}_{key}.png") for key in ("anatomy", "overlay")}
            pairs.append({"name": name, "group": group, **paths})
    (folder / "pairs.json").write_text(json.dumps(pairs))
    judge.make(folder / "pairs.json", folder / "cases", per=4, most=24, seed=3)
    cases = json.loads((folder / "cases" / "cases.json").read_text())
    tables = {}
    for form, fuse in (("grey", unequal), ("colour", coloured)):
        (folder / form).mkdir()
        for case in cases:
            save(folder / form / f"{case['name']}_fused.png", fuse(sources(folder / "cases", case)))
        judge.score(folder / "cases", str(folder / form))
        tables[form] = json.loads((folder / form / "lesions.json").read_text())
    return folder, cases, tables


def sources(folder, case):
    images = [Image.open(folder / f"{case['name']}_{key}.png") for key in ("anatomy", "overlay")]
    return np.stack([np.asarray(image, dtype=float) / 255 for image in images])


def batch(read, cases):
    """Images of cases, (B, C, H, W), and where their lesions are, (N, 3)."""
    places = [[number, *spot] for number, case in enumerate(cases) for spot in case["spots"]]
    return torch.tensor(np.stack([read(case) for case in cases])), torch.tensor(places)


def fused(folder, case):
    image = np.asarray(Image.open(folder / f"{case['name']}_fused.png"), dtype=float) / 255
    return np.moveaxis(np.atleast_3d(image), -1, 0)


def test_cases_are_the_judges_own(judged):
    folder, cases, _ = judged
    for group, count in PAIRS.items():
        for number in range(count):
            name = f"{group}{number}"
            pair = [np.asarray(Image.open(folder / f"{name}_{key}.png")) / 255 for key in ("anatomy", "overlay")]
            made = list(lesion_cases(*pair, np.random.default_rng([3, *name.encode()]), ct=group == "CT", most=4))
            of_pair = [case for case in cases if case["pair"] == name]
            assert [case.kind for case in made] == [case["kind"] for case in of_pair] == ["none", *LESION_KINDS]
            for ours, theirs in zip(made, of_pair, strict=True):
                assert [[lesion.row, lesion.column] for lesion in ours.lesions] == theirs["spots"]
                assert np.array_equal(ours.images, sources(folder / "cases", theirs))


@pytest.mark.parametrize("form", ["grey", "colour"])
@pytest.mark.parametrize("kind", LESION_KINDS)
@pytest.mark.parametrize("group", PAIRS)
def test_recovery_and_observer(judged, group, kind, form):
    folder, cases, tables = judged
    expected = tables[form][f"{group}: {kind}"]
    present, absent = (
        [case for case in cases if case["group"] == group and case["kind"] == of] for of in (kind, "none")
    )
    seen, places = batch(lambda case: fused(folder / form, case), present)
    seen_without, _ = batch(lambda case: fused(folder / form, case), absent)
    pairs, _ = batch(lambda case: sources(folder / "cases", case), present)
    pairs_without, _ = batch(lambda case: sources(folder / "cases", case), absent)
    signs = LESION_KINDS[kind]
    channel = slice(1, 2) if signs[1] else slice(0, 1)
    recovery = contrast_recovery(seen, seen_without, pairs[:, channel], pairs_without[:, channel], places)
    assert len(recovery) == expected["lesions"] > 12
    assert np.median(recovery) == pytest.approx(expected["recovery"], abs=1e-6)
    assert lost(recovery, signs[0] * signs[1] < 0).mean().item() == pytest.approx(expected["lost"], abs=1e-12)

    subjects = [present[number]["pair"] for number in places[:, 0]]
    planes = {
        "visible": [cielab(images) / 100 if form == "colour" else images for images in (seen, seen_without)],
        "side by side": [pairs, pairs_without],
    }
    for name, images in planes.items():
        patches = torch.stack([patches_at(image, places, 24) for image in images])
        noise = torch.tensor(np.random.default_rng(0).normal(0, 1 / 255, patches.shape))
        area = observer_area(*(patches + noise), subjects)
        assert area.item() == pytest.approx(expected[name], abs=1e-3), name
        # in single precision, and with noise of one's own, about the same
        single = observer_area(*(patches + noise).float(), subjects)
        assert single.item() == pytest.approx(expected[name], abs=1e-2), name
