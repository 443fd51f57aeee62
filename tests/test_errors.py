"""What errors say, in one place; other tests ask for the reason, and for what is named."""

import ast
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from refusals import refused

from fusion_nets.clinical import ImageError, Reason, check_same_grid, read_image
from fusion_nets.registration import RegistrationError, register
from fusion_nets.transforms import CheckLuminancesd, Described, LoadStudyImaged, ScaleToDisplayRange

ROOT = Path(__file__).resolve().parents[1]

SAYS = re.compile(r"accepted|_way_out|ACCEPTED")
# by check_name, or by the cases when all are known; see tests/test_names.py and tests/workflows/test_cases.py; by what
# was short, see tests/workflows/test_shortage.py; by each of the forms that failed, see tests/test_full_disk.py
TOLD_BEFORE = ("str(error)", "self.refused[name]", "lack", "str(full)", "f'{name}: {reasons}; {written}'")
TELLS_SEVERAL = re.compile(r"reasons are given above|^message$")  # put together before, in describe_pairs


def raised(names):
    """(place, call) of every error of these names that the house makes."""
    for file in sorted((ROOT / "fusion_nets").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node


ERRORS = list(raised({"ImageError", "RegistrationError"}))


@pytest.mark.parametrize(("place", "call"), ERRORS, ids=[place for place, _ in ERRORS])
def test_an_image_error_names_the_image_and_what_is_accepted(place, call):
    reason, message = call.args
    assert isinstance(reason, ast.Attribute), "Reason.X comes first"
    assert reason.attr in Reason.__members__
    told = ast.unparse(message)
    if reason.attr == "SEVERAL":
        assert TELLS_SEVERAL.search(told)
    elif reason.attr not in ("OUTPUT", "MEMORY") or told not in TOLD_BEFORE:
        assert isinstance(message, ast.JoinedStr)
        assert isinstance(message.values[0], ast.FormattedValue), f"{told} does not begin with the image"
        assert SAYS.search(told), f"{told} does not say what is accepted"


def test_every_reason_is_given_somewhere():
    assert {call.args[0].attr for _, call in ERRORS} == set(Reason.__members__)


def test_an_error_travels_between_processes():
    for error in (ImageError(Reason.GRID, "a.nii: b"), RegistrationError(Reason.REGISTRATION, "a.nii: c")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.reason, str(again)) == (type(error), error.reason, str(error))


def image(shape=(1, 40, 40, 8), value=None, **meta):
    values = torch.full(shape, value) if value is not None else torch.rand(shape, generator=torch.Generator())
    return MetaTensor(values, meta={"filename_or_obj": "a.nii", **meta})


def written(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def picture(folder, values, name="a.png"):
    Image.fromarray(values).save(folder / name)
    return folder / name


def a_volume(folder, values, affine=None):
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.asarray(values, "f4"), np.eye(4) if affine is None else affine), folder / "a.nii")
    return folder / "a.nii"


RAMP = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
CASES = {
    Reason.MISSING: (lambda folder: read_image(folder / "a.nii"), "a.nii: no such file; "),
    Reason.KIND: (lambda folder: read_image(written(folder, "a.gif", b"GIF89a")), "a.gif: unknown kind of file; "),
    Reason.DAMAGED: (lambda folder: read_image(written(folder, "a.nii", b"x")), "a.nii: not a readable NIfTI image ("),
    Reason.SHAPE: (lambda folder: read_image(a_volume(folder, np.ones(4))), "a.nii: shape (4,); "),
    Reason.AMBIGUOUS: (
        lambda folder: read_image(a_volume(folder, np.ones((4, 4, 4, 2)))),
        "a.nii: holds 2 volumes: 1, 2; a single one is ",
    ),
    Reason.TOO_SMALL: (
        lambda folder: LoadStudyImaged("a")({"a": str(picture(folder, np.eye(9, dtype=np.uint8)))}),
        "a.png: size (9, 9); slices of 32 x 32 or more are accepted",
    ),
    Reason.NOT_FINITE: (
        lambda folder: read_image(a_volume(folder, np.full((4, 4, 4), np.nan))),
        "a.nii: holds infinity or nothing but NaN; ",
    ),
    Reason.EMPTY: (lambda folder: read_image(a_volume(folder, RAMP * 0)), "a.nii: every pixel has the value 0; "),
    Reason.VALUES: (
        lambda _: CheckLuminancesd()({"image": image((2, 40, 40), 1.5)}),
        "a.nii: values from 1.5 to 1.5; ",
    ),
    Reason.GRID: (lambda _: check_same_grid(image(), image((1, 40, 40, 9))), "a.nii: size (40, 40, 8) differs from "),
    Reason.UNITS: (lambda _: ScaleToDisplayRange("bone")(image(modality="MR")), "a.nii: is MR, and window 'bone' is "),
    Reason.INCOMPLETE: (lambda _: ScaleToDisplayRange("header")(image()), "a.nii: its header has no window; "),
    Reason.TEXT: (
        lambda _: Described("a", None)({"a": image(), "a_text": ["x", "y"]}),
        "a.nii: a_text has 2 texts; one, or as many as a volume has slices, is accepted",
    ),
}


@pytest.mark.parametrize("reason", CASES, ids=lambda reason: reason.name)
def test_the_words(tmp_path, reason):
    fail, words = CASES[reason]
    with refused(reason, words, "accepted") as caught:
        try:
            fail(tmp_path)
        except RuntimeError as error:  # what Compose wraps around it
            raise error.__cause__ from None
    assert "\n" not in str(caught.value)


def test_the_words_of_a_registration():
    with refused(Reason.TOO_SMALL, "a.nii: size (40, 40, 1) is too flat to register; ", error=RegistrationError):
        register(image((1, 40, 40, 1)), image((1, 40, 40, 1)), "rigid")
