"""Linear texts are read without ITK, as ITK reads them, and all else by ITK."""

import subprocess
import sys

import itk
import numpy as np
import pytest

from fusion_nets.registration import read_transform
from fusion_nets.registration.transform_files import _matrix_in, _read_by_itk

HEAD = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
NUMBERS = "Parameters: 0.9 -.1 0.2 .1 1.1 -3e-2 0 2.5E-1 1 -5 7.25 1e1\n"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("centre", ["0 0 0", "10 -20.5 30", "1e2 0 -1"])
def test_a_linear_text_is_read_as_itk_reads_it(tmp_path, centre, ending):
    path = tmp_path / "given.tfm"
    path.write_bytes((HEAD + NUMBERS + f"FixedParameters: {centre}\n").replace("\n", ending).encode())
    assert np.allclose(_matrix_in(path), _read_by_itk(path)[0], rtol=0, atol=1e-12)


def test_what_itk_writes_is_read_so(tmp_path):
    transform = itk.AffineTransform[itk.D, 3].New()
    transform.SetCenter([3.0, -4.0, 5.0])
    transform.Rotate3D([0.0, 0.0, 1.0], 0.3)
    transform.Translate([1 / 3, -2e-7, 1e5])
    path = str(tmp_path / "given.tfm")
    itk.transformwrite([transform], path)
    assert np.allclose(_matrix_in(tmp_path / "given.tfm"), _read_by_itk(path)[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + NUMBERS,
        HEAD + NUMBERS + "FixedParameters: 0 0\n",
        HEAD + NUMBERS.replace("1e1", "") + "FixedParameters: 0 0 0\n",
        HEAD + NUMBERS.replace("1e1", "1_0") + "FixedParameters: 0 0 0\n",
        HEAD + NUMBERS.replace("1e1", "nan") + "FixedParameters: 0 0 0\n",
        HEAD.replace("Affine", "Euler3D") + "Parameters: 0 0 0 1 2 3\nFixedParameters: 0 0 0\n",
        HEAD + NUMBERS + "FixedParameters: 0 0 0\n#Transform 1\nTransform: AffineTransform_double_3_3\n" + NUMBERS,
        " " * 5000 + HEAD + NUMBERS + "FixedParameters: 0 0 0\n",
        HEAD + NUMBERS + "FixedParameters: 0 0 1e999\n",
        "",
    ],
)
def test_any_other_is_itks(tmp_path, text):
    (tmp_path / "given.tfm").write_text(text)
    assert _matrix_in(tmp_path / "given.tfm") is None


SPACES = " " * (4096 - len(HEAD + NUMBERS + "FixedParameters: 0 0 1"))


@pytest.mark.parametrize("after", ["23", "\n#Transform 1\nTransform: AffineTransform_double_3_3\n" + NUMBERS, "\n"])
def test_what_stands_behind_as_much_as_is_looked_at_is_not_left_out(tmp_path, after):
    """A number is not cut in two, and a second transform is not passed over."""
    path = tmp_path / "given.tfm"
    path.write_text(HEAD + NUMBERS + f"FixedParameters: 0 0{SPACES} 1{after}")
    assert _matrix_in(path) is None


@pytest.mark.slow
def test_it_takes_no_itk(tmp_path):
    path = tmp_path / "given.tfm"
    path.write_text(HEAD + NUMBERS + "FixedParameters: 0 0 0\n")
    program = "import sys; from fusion_nets.registration import read_transform as read; read(sys.argv[1])"
    program += "; print('itk.ITKCommonPython' in sys.modules)"
    told = subprocess.check_output([sys.executable, "-c", program, str(path)], text=True)
    assert told.split() == ["False"]
    assert read_transform(path)[:3, 3] == pytest.approx([5, -7.25, 10])


@pytest.mark.parametrize(
    "numbers", [". 0 0 0 0 0 0 0 0 0 0 0", "1e999 0 0 0 1 0 0 0 1 0 0 0", "0 0 0 0 0 0 0 0 0 0 0 0"]
)
def test_numbers_that_are_none_are_refused(tmp_path, numbers):
    (tmp_path / "given.tfm").write_text(f"{HEAD}Parameters: {numbers}\nFixedParameters: 0 0 0\n")
    with pytest.raises(ValueError, match=r"given\.tfm"):
        read_transform(tmp_path / "given.tfm")
