import csv
import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from refusals import refused

from evaluation.functional import FUSION_METRICS, fusion_metrics
from fusion_nets.cli import main
from fusion_nets.clinical import Reason, read_image, write_image
from fusion_nets.datalists import aanlib_pairs
from fusion_nets.workflows import evaluate_methods
from fusion_nets.workflows.evaluating import read_fused

pytestmark = pytest.mark.slow

WRITTEN = ["cases.csv", "summary.json", "summary.md", "boxplots.png", "montage.png", "report.html"]
FEW = ("MI", "Qabf", "VIF", "MSE")


def picture(seed, size=(48, 44), channels=()):
    values = np.random.default_rng(seed).integers(0, 256, (*size, *channels))
    return np.sort(values, axis=1).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return str(path)


def make_pairs(folder, count=3):
    return [
        {
            "name": f"case{i}",
            "anatomy": save(folder / "SECRET^NAME" / f"mri{i}.png", picture(i)),
            "overlay": save(folder / "SECRET^NAME" / f"pet: {i}.png", picture(100 + i)),
        }
        for i in range(count)
    ]


def make_method(folder, pairs, share):
    for pair in pairs:
        sources = [np.asarray(Image.open(pair[key])).astype(float) for key in ("anatomy", "overlay")]
        mixed = share * sources[0] + (1 - share) * sources[1]
        save(folder / f"{pair['name']}_fused.png", np.rint(mixed).astype(np.uint8))
    return folder


@pytest.fixture
def study(tmp_path):
    pairs = make_pairs(tmp_path)
    folders = {name: make_method(tmp_path / name, pairs, share) for name, share in (("half", 0.5), ("third", 0.33))}
    return pairs, folders


def rows_of(folder):
    return list(csv.DictReader((folder / "cases.csv").open(encoding="utf-8")))


def expected(fused, anatomy, overlay, names=FEW):
    levels = [torch.from_numpy(np.asarray(image, dtype=np.float64))[None, None] for image in (fused, anatomy, overlay)]
    return {name: value.item() for name, value in fusion_metrics(*levels, names=names, data_range=255.0).items()}


def test_subjects_of_the_datalist_are_the_unit(study, tmp_path):
    pairs, folders = study
    pairs = [{**pair, "subject": subject} for pair, subject in zip(pairs, ("s1", "s1", "s2"), strict=True)]
    evaluate_methods(pairs, folders, tmp_path / "out", metrics=FEW, progress=False)
    assert [row["subject"] for row in rows_of(tmp_path / "out")] == ["s1"] * 4 + ["s2"] * 2
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (told["cases"], told["subjects"]) == (3, 2)
    assert {(test["n"], test["subjects"]) for test in told["tests"]} == {(3, 2)}


def test_every_file_is_written_and_the_scores_are_those_of_the_functions(study, tmp_path):
    pairs, folders = study
    out = tmp_path / "out"
    written = evaluate_methods(pairs, folders, out, progress=False)
    assert [path.name for path in written] == WRITTEN
    assert sorted(path.name for path in out.iterdir()) == sorted(WRITTEN)
    rows = rows_of(out)
    assert [(row["case"], row["method"]) for row in rows[:3]] == [
        ("case0", "half"), ("case0", "third"), ("case1", "half"),
    ]  # fmt: skip
    paths = folders["third"] / "case2_fused.png", pairs[2]["anatomy"], pairs[2]["overlay"]
    measured = [name for name in FUSION_METRICS if name in rows[0]]
    for name, value in expected(*map(Image.open, paths), names=measured).items():
        assert float(rows[5][name]) == pytest.approx(value, rel=1e-12)
    assert set(FUSION_METRICS) - set(measured) == {
        name for name, metric in FUSION_METRICS.items() if metric.smallest > 44
    }
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "MS-SSIM (" in page  # among what was left out


def test_same_images_same_bytes(study, tmp_path):
    pairs, folders = study
    for name in ("one", "two"):
        evaluate_methods(pairs, folders, tmp_path / name, metrics=FEW, progress=False)
    for name in WRITTEN:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("ending", "convert", "exact"),
    [
        (".png", lambda image: image, True),
        (".png", lambda image: image.astype(np.uint16) * 257, True),
        (".tif", lambda image: image, True),
        (".tiff", lambda image: image.astype(np.uint16) * 257, True),
        (".bmp", lambda image: np.repeat(image[..., None], 3, axis=2), True),
        (".jpg", lambda image: image, False),
    ],
)
def test_pictures_of_8_and_16_bit(tmp_path, ending, convert, exact):
    (pair,) = make_pairs(tmp_path, 1)
    fused = picture(7)
    path = tmp_path / "method" / f"case0{ending}"
    save(path, convert(fused))
    evaluate_methods([pair], {"method": path.parent}, tmp_path / "out", metrics=FEW, progress=False)
    stored = fused if exact else np.asarray(Image.open(path))
    (row,) = rows_of(tmp_path / "out")
    for name, value in expected(stored, Image.open(pair["anatomy"]), Image.open(pair["overlay"])).items():
        assert float(row[name]) == pytest.approx(value, rel=1e-9)


AFFINE = torch.tensor([[-2.0, 0, 0, 10], [0, 1.5, 0, 5], [0, 0, 3, 1], [0, 0, 0, 1]], dtype=torch.float64)


def volume(seed, depth=5):
    levels = np.stack([picture(seed + k) for k in range(depth)], axis=-1)
    levels[..., 0] = 0  # without content
    return levels


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_volumes_slice_by_slice_over_slices_with_content(tmp_path, ending):
    levels = {name: volume(seed) for name, seed in (("mri", 0), ("ct", 20), ("case_fused", 40))}
    for name, array in levels.items():
        image = MetaTensor(torch.from_numpy(array / 255)[None], affine=AFFINE)
        if name == "case_fused":  # as other programs write it: another order of the axes, the same place
            flip = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
            flip[0, 3] = array.shape[0] - 1
            image = MetaTensor(image.as_tensor().flip(1), affine=AFFINE @ flip)
        write_image(tmp_path / f"{name}{ending}", image)
    pair = {"name": "case", "anatomy": str(tmp_path / f"mri{ending}"), "overlay": str(tmp_path / f"ct{ending}")}
    windows = {"anatomy": (0, 1), "overlay": (0, 0.5)}
    evaluate_methods([pair], {"method": tmp_path}, tmp_path / "out", windows, metrics=FEW, progress=False)
    (row,) = rows_of(tmp_path / "out")
    assert row["slices"] == "4"
    shown = np.minimum(levels["ct"].astype(float) * 2, 255)
    per_slice = [expected(levels["case_fused"][..., k], levels["mri"][..., k], shown[..., k]) for k in range(1, 5)]
    for name in FEW:
        assert float(row[name]) == pytest.approx(np.mean([values[name] for values in per_slice]), rel=1e-6)


def test_axes_that_are_not_at_right_angles(tmp_path):
    sheared = AFFINE.clone()
    sheared[0, 1] = 0.8
    for name, seed in (("mri", 0), ("ct", 20), ("case", 40)):
        write_image(tmp_path / f"{name}.nii", MetaTensor(torch.from_numpy(volume(seed) / 255)[None], affine=sheared))
    pair = {"name": "case", "anatomy": str(tmp_path / "mri.nii"), "overlay": str(tmp_path / "ct.nii")}
    evaluate_methods([pair], {"method": tmp_path}, tmp_path / "out", metrics=FEW, progress=False)
    assert rows_of(tmp_path / "out")[0]["slices"] == "4"


def test_colours_are_measured_by_their_luminance_in_15_bits(tmp_path):
    (pair,) = make_pairs(tmp_path, 1)
    colours = picture(3, channels=(3,))
    save(tmp_path / "method" / "case0.png", colours)
    pair["overlay"] = save(tmp_path / "colour.png", picture(4, channels=(3,)))
    evaluate_methods([pair], {"method": tmp_path / "method"}, tmp_path / "out", metrics=FEW, progress=False)
    red, green, blue = np.moveaxis(colours.astype(int), -1, 0)
    fused = (9798 * red + 19235 * green + 3735 * blue + 2**14) >> 15
    red, green, blue = np.moveaxis(np.asarray(Image.open(pair["overlay"])).astype(int), -1, 0)
    overlay = (9798 * red + 19235 * green + 3735 * blue + 2**14) >> 15
    (row,) = rows_of(tmp_path / "out")
    for name, value in expected(fused, Image.open(pair["anatomy"]), overlay).items():
        assert float(row[name]) == pytest.approx(value, rel=1e-12)


def test_uptake_is_shown_in_colour_and_measured_in_grey(tmp_path):
    for name, seed in (("mri", 0), ("pet", 20), ("case", 40)):
        write_image(tmp_path / f"{name}.nii", MetaTensor(torch.from_numpy(volume(seed) / 255)[None], affine=AFFINE))
    pair = {"name": "case", "overlay_modality": "PT", **{k: str(tmp_path / f"{k}.nii") for k in ("anatomy", "overlay")}}
    (tmp_path / "mri.nii").rename(pair["anatomy"])
    (tmp_path / "pet.nii").rename(pair["overlay"])
    for name, entry in (("said", pair), ("unsaid", {k: v for k, v in pair.items() if k != "overlay_modality"})):
        windows = {"overlay": (0, 1)}
        evaluate_methods([entry], {"method": tmp_path}, tmp_path / name, windows, metrics=FEW, progress=False)
    assert rows_of(tmp_path / "said") == rows_of(tmp_path / "unsaid")
    said, unsaid = (
        np.asarray(Image.open(tmp_path / name / "montage.png").convert("RGB")).astype(int)
        for name in ("said", "unsaid")
    )
    third = slice(said.shape[1] // 3 + 40, 2 * said.shape[1] // 3 - 10)
    chroma = [np.ptp(image[:, third][100:200], axis=-1).mean() for image in (said, unsaid)]
    assert chroma[0] > 20 > 10 > chroma[1]  # the frames of what is magnified have some


@pytest.mark.parametrize(("highest", "white"), [(1.0, 1), (1.00005, 1), (200.0, 255), (40000.0, 65535)])
def test_white_of_a_grey_volume_is_the_least_that_fits(tmp_path, highest, white):
    values = np.linspace(0, highest, 4096, dtype=np.float32).reshape(16, 16, 16)
    import nibabel as nib

    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    image = read_fused(tmp_path / "a.nii")
    assert image.max().item() == pytest.approx(min(highest / white, 1), rel=1e-4)


def saved_volume(path, highest, dtype=np.uint16, cal_max=0):
    import nibabel as nib

    image = nib.Nifti1Image(np.linspace(0, highest, 4096).astype(dtype).reshape(16, 16, 16), np.eye(4))
    image.header["cal_max"] = cal_max
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("highest", "said", "asked", "white", "by", "warned"),
    [
        (4095, 0, None, 4095, "inferred", True),
        (3000, 0, None, 4095, "inferred", True),
        (3000, 65535, None, 65535, "file", False),
        (3000, 2048, None, 4095, "inferred", True),  # a display maximum that not all values keep to
        (3000, 0, 16383, 16383, "asked", False),
        (3000, 65535, 4095, 4095, "asked", False),
        (5000, 0, None, 65535, "inferred", True),
        (200, 0, None, 255, "inferred", False),
    ],
)
def test_white_of_volumes_of_12_and_16_bit(tmp_path, caplog, highest, said, asked, white, by, warned):
    image = read_fused(saved_volume(tmp_path / "a.nii", highest, cal_max=said), asked)
    assert image.max().item() == pytest.approx(highest / white, rel=1e-6)
    assert image.meta["white_by"] == by
    assert ("a.nii: does not say what means white" in caplog.text) == warned
    assert (f"{white} is taken" in caplog.text) == warned


@pytest.mark.parametrize(("highest", "white"), [(255, 255), (4095, 4095), (50000, 65535)])
def test_a_picture_of_16_bit_may_hold_12(tmp_path, caplog, highest, white):
    save(tmp_path / "a.png", np.linspace(0, highest, 2112).astype(np.uint16).reshape(48, 44))
    assert read_fused(tmp_path / "a.png").max().item() == pytest.approx(highest / white, rel=1e-6)
    assert ("does not say what means white" in caplog.text) == (white != 65535)
    save(tmp_path / "b.png", picture(0) // 4)  # of 8 bit it is sure, however dark
    assert read_fused(tmp_path / "b.png").meta["white_by"] == "file"


def test_values_above_the_white_asked_for_are_refused(tmp_path):
    with refused(Reason.VALUES, "a.nii", "3000", "0 to 1023"):
        read_fused(saved_volume(tmp_path / "a.nii", 3000), 1023)


def test_twelve_bit_is_measured_as_eight_bit_is(study, tmp_path, capsys):
    """Which was 16 times too dark; the report tells what was taken for white, and the option says it."""
    pairs, folders = study
    for pair in pairs:
        grey = np.asarray(Image.open(folders["half"] / f"{pair['name']}_fused.png")).astype(np.uint32)
        grey[0, 0] = 255
        save(folders["half"] / f"{pair['name']}_fused.png", grey.astype(np.uint8))
        save(tmp_path / "twelve" / f"{pair['name']}_fused.png", (grey * 4095 // 255).astype(np.uint16))
    methods = {"eight": folders["half"], "twelve": tmp_path / "twelve"}
    evaluate_methods(pairs, methods, tmp_path / "out", metrics=["SD", "MSE"], progress=False)
    rows = rows_of(tmp_path / "out")
    of = {name: [row for row in rows if row["method"] == name] for name in methods}
    for eight, twelve in zip(*of.values(), strict=True):
        for metric in ("SD", "MSE"):
            assert float(twelve[metric]) == pytest.approx(float(eight[metric]), rel=0.01)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "eight: 255 by their files (3); twelve: 4095 as the least that no value exceeds (3)" in page
    datalist = tmp_path / "pairs.json"
    datalist.write_text(json.dumps(pairs))
    told = ["evaluate", "--datalist", str(datalist), "--method", f"twelve={tmp_path / 'twelve'}", "--metrics", "SD"]
    assert main([*told, "--output_dir", str(tmp_path / "asked"), "--fused_white", "8190"]) == 0
    darker = rows_of(tmp_path / "asked")
    assert float(darker[0]["SD"]) == pytest.approx(float(of["twelve"][0]["SD"]) / 2, rel=0.02)
    capsys.readouterr()
    assert main([*told, "--output_dir", str(tmp_path / "wrong"), "--fused_white", "nan"]) == 2
    assert "fused_white is nan" in capsys.readouterr().err


def test_values_that_are_no_grey_levels_are_refused(tmp_path):
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.linspace(-1, 1, 4096).reshape(16, 16, 16), np.eye(4)), tmp_path / "a.nii")
    with refused(Reason.VALUES, "a.nii", "-1 to 1"):
        read_fused(tmp_path / "a.nii")


@pytest.fixture
def damaged(study, tmp_path):
    """Of nine images a missing one, one of another size, one that is cut short; and a pair without overlay."""
    pairs, folders = study
    (folders["half"] / "case0_fused.png").unlink()
    save(folders["third"] / "case0_fused.png", picture(1, (48, 45)))
    whole = (folders["third"] / "case1_fused.png").read_bytes()
    (folders["third"] / "case1_fused.png").write_bytes(whole[: len(whole) // 2])
    lost = {**pairs[0], "name": "lost", "overlay": str(tmp_path / "SECRET^NAME" / "of: SECRET.png")}
    (tmp_path / "pairs.json").write_text(json.dumps([*pairs, lost]))
    return folders


def test_the_command_passes_over_what_cannot_be_measured(damaged, tmp_path, capfd):
    methods = [part for name, folder in damaged.items() for part in ("--method", f"{name}={folder}")]
    out = tmp_path / "out"
    arguments = ["--datalist", str(tmp_path / "pairs.json"), "--output_dir", str(out), "--metrics", *FEW]
    assert main(["evaluate", *methods, *arguments]) == 2
    said = capfd.readouterr().err
    assert "4 images could not be measured" in said
    for words in ("case0, half", "no image of this pair", "case0, third", "size (48, 45)", "case1, third", "lost"):
        assert words in said
    assert [(row["case"], row["method"]) for row in rows_of(out)] == [
        ("case1", "half"), ("case2", "half"), ("case2", "third"),
    ]  # fmt: skip
    failures = json.loads((out / "summary.json").read_text())["failures"]
    assert [(failure["case"], failure["method"]) for failure in failures] == [
        ("case0", "half"), ("case0", "third"), ("case1", "third"), ("lost", ""),
    ]  # fmt: skip
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "4 images could not be measured" in page
    assert all(failure["reason"].startswith(("the fused image", "the overlay")) for failure in failures)
    for name in WRITTEN:
        content = (out / name).read_bytes()
        assert b"SECRET" not in content
        assert str(tmp_path).encode() not in content


def test_the_command_prints_what_it_wrote(study, tmp_path, capsys):
    pairs, folders = study
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    arguments = ["--datalist", str(tmp_path / "pairs.json"), "--output_dir", str(tmp_path / "out"), "--metrics", "MI"]
    assert main(["evaluate", "--method", f"a b={folders['half']}", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == [str(tmp_path / "out" / name) for name in WRITTEN]
    assert "3/3" in captured.err


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["a"], "NAME=FOLDER is accepted"),
        (["=a"], "NAME=FOLDER is accepted"),
        (["a=x", "a=y"], "given twice"),
        (["a=/nowhere"], "no such folder"),
    ],
)
def test_the_command_refuses_methods(study, tmp_path, capsys, methods, words):
    (tmp_path / "pairs.json").write_text(json.dumps(study[0]))
    given = [part for method in methods for part in ("--method", method)]
    assert main(["evaluate", *given, "--datalist", str(tmp_path / "pairs.json"), "--output_dir", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_unknown_metric_and_nothing_measured(study, tmp_path):
    pairs, folders = study
    with pytest.raises(ValueError, match=r"metrics \['PSNRR'\]"):
        evaluate_methods(pairs, folders, tmp_path / "out", metrics=["PSNRR"], progress=False)
    (tmp_path / "empty").mkdir()
    with refused(Reason.SEVERAL, "none of 3"):
        evaluate_methods(pairs, {"empty": tmp_path / "empty"}, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_scoreboard_comes_out_to_its_four_decimals(shared, tmp_path):
    board = json.loads((shared / "reference" / "metrics" / "scoreboard.json").read_text())["scores"]
    pairs = aanlib_pairs(shared / "data" / "aanlib", "published")
    methods = {
        "DM-FNet (published images)": shared / "data" / "published" / "dmfnet",
        "pointwise maximum": tmp_path / "maximum",
        "pointwise mean": tmp_path / "mean",
    }
    for pair in pairs:
        sources = []
        for key in ("anatomy", "overlay"):
            image = read_image(pair[key]).as_tensor().long()
            weights = torch.tensor([9798, 19235, 3735] if len(image) == 3 else [2**15])
            sources.append(((weights[:, None, None] * image).sum(0) + 2**14) >> 15)
        save(methods["pointwise maximum"] / f"{pair['name']}.png", torch.maximum(*sources).byte().numpy())
        save(methods["pointwise mean"] / f"{pair['name']}.png", (sum(sources) / 2).round().byte().numpy())
    metrics = list(board["CT-MRI"]["pointwise mean"])
    evaluate_methods(pairs, methods, tmp_path / "out", metrics=metrics, progress=False)
    groups = json.loads((tmp_path / "out" / "summary.json").read_text())["groups"]
    for group, rows in board.items():
        for method in methods:
            found = {metric: round(groups[group][method][metric]["mean"], 4) for metric in metrics}
            assert found == rows[method], (group, method)
