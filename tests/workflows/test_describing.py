import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image
from refusals import refused

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.datalists import load_pairs
from fusion_nets.workflows import describe_pairs


class Telling:
    """Tells modality, shape and mean; stops the program after so many images."""

    def __init__(self, words="seen", stop_after=None):
        self.words = words
        self.stop_after = stop_after
        self.seen = []

    @property
    def configuration(self):
        return {"kind": "telling", "words": self.words}

    def __call__(self, images):
        texts = []
        for image in images:
            name = Path(image.meta["filename_or_obj"]).name
            if self.stop_after is not None and len(self.seen) >= self.stop_after:
                raise KeyboardInterrupt
            if name.startswith("mute"):
                raise ImageError(Reason.TEXT, f"{name}: cannot be described; an image with words is accepted")
            self.seen.append(name)
            told = f"{self.words} {image.meta.get('modality')} {image.meta.get('text')} {tuple(image.shape)}"
            texts.append(f"{told} {image.min():.3f} {image.mean():.5f} {image.max():.3f}")
        return texts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """data/pairs.json: three pairs, one of volumes, one with a text of its own. The current folder is its parent."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    (data / "mri").mkdir(parents=True)
    for name in ("mri/1.png", "1.png", "mri/2.png", "2.png"):
        Image.fromarray(rng.integers(0, 200, (12, 10), dtype=np.uint8)).save(data / name)
    for name in ("3a.nii.gz", "3b.nii"):
        volume = rng.normal(30, 9, (12, 10, 3)).astype(np.float32)
        nib.save(nib.Nifti1Image(volume, np.diag([2, 2, 3, 1])), data / name)
    write(data, PAIRS)
    monkeypatch.chdir(tmp_path)
    return data


PAIRS = [
    {"anatomy": "mri/1.png", "overlay": "1.png", "name": "one", "anatomy_modality": "MR", "overlay_modality": "PT"},
    {"anatomy": "mri/2.png", "overlay": "2.png", "anatomy_text": "T1.", "pair": "PET-MRI"},
    {"anatomy": "3a.nii.gz", "overlay": "3b.nii"},
]


def write(folder, pairs):
    (folder / "pairs.json").write_text(json.dumps(pairs))


def described(output="data/texts.json", describer=None, pairs=None, **how):
    how = {"progress": False, **how}
    return describe_pairs(pairs or load_pairs("data/pairs.json"), describer or Telling(), output, **how)


def texts(path="data/texts.json"):
    return {pair["name"]: (pair["anatomy_text"], pair["overlay_text"]) for pair in load_pairs(path)}


def test_every_image_gets_its_text(folder):
    assert described() == Path("data/texts.json")
    told = texts()
    assert told["one"][0].startswith("seen MR None (1, 12, 10) 0.")
    assert told["one"][1].startswith("seen PT None (1, 12, 10) 0.")
    assert told["2"][0] == "T1."
    assert told["3a"][1].startswith("seen None None (1, 12, 10, 3) 0.000")
    assert told["3a"][1].endswith("1.000")  # in display range
    assert sorted(path.name for path in folder.iterdir()) == [
        "1.png", "2.png", "3a.nii.gz", "3b.nii", "mri", "pairs.json", "texts.json",
    ]  # fmt: skip


def test_what_stands_in_the_datalist(folder):
    described()
    content = json.loads((folder / "texts.json").read_text())
    assert list(content) == ["description", "pairs"]
    assert content["description"]["describer"] == Telling().configuration
    assert (content["description"]["described"], content["description"]["given"]) == (5, 1)
    assert content["description"]["library"].startswith("fusion-nets ")
    kept = [{key: pair[key] for key in wanted} for pair, wanted in zip(content["pairs"], PAIRS, strict=True)]
    assert kept == PAIRS
    assert set(content["pairs"][1]) == {*PAIRS[1], "name", "overlay_text"}


def test_monai_reads_it(folder):
    described()
    pairs = load_decathlon_datalist(str(folder / "texts.json"), data_list_key="pairs")
    assert [pair["anatomy"] for pair in pairs] == [str(folder / pair["anatomy"]) for pair in PAIRS]
    assert {pair["name"]: (pair["anatomy_text"], pair["overlay_text"]) for pair in pairs} == texts()


@pytest.mark.parametrize("output", ["out/deep/texts.json", "texts.json", "data/mri/texts.json", "link/deep/texts.json"])
def test_relative_paths_start_from_the_new_folder(folder, output):
    Path("elsewhere/far").mkdir(parents=True)
    Path("link").symlink_to("elsewhere/far")
    described(output)
    for pair, source in zip(load_pairs(output), PAIRS, strict=True):
        assert Path(pair["anatomy"]).resolve() == folder / source["anatomy"]
    assert not any(Path(pair["anatomy"]).is_absolute() for pair in json.loads(Path(output).read_text())["pairs"])


def test_absolute_paths_stay(folder):
    described("out/texts.json", pairs=load_pairs(folder / "pairs.json"))
    pairs = json.loads(Path("out/texts.json").read_text())["pairs"]
    assert [pair["overlay"] for pair in pairs] == [str(folder / pair["overlay"]) for pair in PAIRS]


def test_a_text_per_slice(folder):
    described(per="slice")
    told = texts()
    assert isinstance(told["one"][0], str)
    assert [text.startswith("seen None None (1, 12, 10) ") for text in told["3a"][0]] == [True] * 3
    assert len(set(told["3a"][0])) == 3


def test_display_range(folder):
    described(windows={"overlay": [30, 31]})
    told = texts()
    assert told["3a"][1].split()[-3::2] == ["0.000", "1.000"]
    described("data/other.json")
    other = texts("data/other.json")
    assert told["3a"][0] == other["3a"][0]
    assert told["3a"][1] != other["3a"][1]


def test_overwrite_describes_what_has_a_text(folder):
    describer = Telling()
    described(describer=describer, overwrite=True)
    assert len(describer.seen) == 6
    assert texts()["2"][0].startswith("seen None T1. ")


def test_batches_change_nothing(folder):
    first = described().read_bytes()
    for batch_size in (2, 4, 64):
        assert described(batch_size=batch_size).read_bytes() == first
    with pytest.raises(ValueError, match="batch_size is 0"):
        described(batch_size=0)


# stopped and started again

JOURNAL = Path("data/texts.json.journal.jsonl")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_stopped_run_goes_on(folder, batch_size):
    whole = described("data/whole.json").read_text()
    with pytest.raises(KeyboardInterrupt):
        described(describer=Telling(stop_after=2), batch_size=batch_size)
    assert not (folder / "texts.json").exists()
    assert [json.loads(line)["image"] for line in JOURNAL.read_text().splitlines()] == ["mri/1.png", "1.png"]
    describer = Telling()
    described(describer=describer, batch_size=batch_size)
    assert describer.seen == ["2.png", "3a.nii.gz", "3b.nii"]
    assert (folder / "texts.json").read_text() == whole
    assert not JOURNAL.exists()


def test_a_torn_line_is_described_anew(folder):
    with pytest.raises(KeyboardInterrupt):
        described(describer=Telling(stop_after=3))
    JOURNAL.write_bytes(JOURNAL.read_bytes()[:-20])
    with pytest.raises(KeyboardInterrupt):
        described(describer=Telling(stop_after=1))
    describer = Telling()
    described(describer=describer)
    assert describer.seen == ["3a.nii.gz", "3b.nii"]


@pytest.mark.parametrize(
    "change",
    [
        {"describer": Telling("noticed")},
        {"per": "slice"},
        {"windows": {"anatomy": [0, 100], "overlay": [0, 100]}},
        {"pairs": [{**pair, "anatomy_modality": "CT", "overlay_modality": "CT"} for pair in PAIRS]},
    ],
)
def test_what_other_settings_gave_is_not_taken(folder, change):
    with pytest.raises(KeyboardInterrupt):
        described(describer=Telling(stop_after=2))
    if "pairs" in change:
        write(folder, change.pop("pairs"))
    describer = change.setdefault("describer", Telling())
    described(**change)
    assert describer.seen[:2] == ["1.png", "1.png"]


def test_what_another_file_gave_is_not_taken(folder):
    with pytest.raises(KeyboardInterrupt):
        described(describer=Telling(stop_after=2))
    Image.fromarray(np.eye(12, 10, dtype=np.uint8) * 200).save(folder / "1.png")
    describer = Telling()
    described(describer=describer)
    assert describer.seen == ["1.png", "2.png", "3a.nii.gz", "3b.nii"]
    assert texts() == (described("data/anew.json") and texts("data/anew.json"))


def test_a_journal_of_another_place(folder):
    with pytest.raises(KeyboardInterrupt):
        described(describer=Telling(stop_after=2), journal="notes/a.jsonl")
    assert not JOURNAL.exists()
    describer = Telling()
    described(describer=describer, journal="notes/a.jsonl")
    assert len(describer.seen) == 3
    assert list(Path("notes").iterdir()) == []


# what cannot be described


@pytest.mark.parametrize("batch_size", [1, 6])
def test_bad_images_are_named_and_the_others_go_on(folder, caplog, batch_size):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    (folder / "3b.nii").unlink()
    (folder / "mri" / "2.png").rename(folder / "mute.png")
    write(folder, [PAIRS[0], {"anatomy": "mute.png", "overlay": "2.png"}, PAIRS[2]])
    describer = Telling()
    with caplog.at_level(logging.ERROR), refused(Reason.SEVERAL, "3 of 3", "texts.json"):
        described(describer=describer, batch_size=batch_size)
    reasons = [record.getMessage() for record in caplog.records]
    assert [reason.split(":")[0] for reason in reasons] == ["one", "mute", "3a"]
    for reason, words in zip(reasons, ["not a readable picture", "cannot be described", "no such file"], strict=True):
        assert words in reason
    assert not (folder / "texts.json").exists()

    write(folder, [{**PAIRS[0], "overlay": "2.png"}, {"anatomy": "2.png", "overlay": "2.png"}])
    again = Telling()
    described(describer=again)
    assert "1.png" not in again.seen


def test_what_was_there_stays_when_a_run_fails(folder):
    before = described().read_bytes()
    (folder / "1.png").unlink()
    with pytest.raises(ImageError):
        described()
    assert (folder / "texts.json").read_bytes() == before


def test_other_errors_of_a_describer_end_the_run(folder):
    def broken(images):
        raise RuntimeError("out of order")

    broken.configuration = {}
    with pytest.raises(RuntimeError, match="out of order"):
        described(describer=broken)


def test_pairs_that_a_datalist_cannot_have(folder):
    with pytest.raises(ValueError, match="'1'"):
        described(pairs=[{"anatomy": "data/1.png", "overlay": "data/2.png"}] * 2)


def test_progress_bar(folder, capsys):
    described(progress=True)
    assert "5/5" in capsys.readouterr().err
    described()
    assert capsys.readouterr().err == ""
