"""One volume of several, in the forms that hold more than one; those of DICOM are in dicom/test_dicom_volumes.py."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from refusals import refused

from fusion_nets import cli
from fusion_nets.clinical import Reason, convert_image, read_image
from fusion_nets.clinical.choosing import choose_volumes
from fusion_nets.datalists import load_pairs
from fusion_nets.transforms import LoadStudyImaged, RecordChoices

FUSE = ["fuse", "--anatomy", "a", "--overlay", "b", "--output_dir", "c"]
FUSE += ["--anatomy_volume", "echo=30", "--overlay_volume", "mean"]
RNG = np.random.default_rng(0)
SERIES = RNG.integers(-500, 500, (4, 5, 6, 3)).astype(np.int16)
ECHOES = [{"EchoTime": 4.92}, {"EchoTime": 7.38}, {"EchoTime": 30.0, "ImageType": "ORIGINAL\\PRIMARY\\M"}]


def nifti(path, values=SERIES, time=("mm", "unknown"), **header):
    image = nib.Nifti1Image(values, np.diag([-1.0, -1, 2, 1]))
    image.header.set_xyzt_units(*time)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def nrrd(path, values=SERIES, kinds="domain domain domain list", encoding="raw", more="", detached=False):
    last = kinds.split()[0] != "domain"
    sizes = values.shape if not last else (values.shape[-1], *values.shape[:-1])
    directions = ["(-1,0,0)", "(0,-1,0)", "(0,0,2)"]
    directions.insert(0 if last else 3, "none")
    data = np.moveaxis(values, -1, 0) if last else values
    header = (
        f"NRRD0005\ntype: short\ndimension: 4\nspace: RAS\nsizes: {' '.join(map(str, sizes))}\n"
        f"space directions: {' '.join(directions)}\nspace origin: (0,0,0)\nendian: little\nencoding: {encoding}\n{more}"
    )
    header += "" if kinds.endswith("absent") else f"kinds: {kinds}\n"
    content = data.tobytes(order="F")
    content = gzip.compress(content) if encoding == "gzip" else content
    if detached:
        (path.parent / "a.raw").write_bytes(b"a line\n" + content)
        path = path.with_suffix(".nhdr")
        path.write_bytes((header + "line skip: 1\ndata file: a.raw\n").encode())
    else:
        path.write_bytes(header.encode() + b"\n" + content)
    return path


def metaimage(path, values=SERIES, channels=False):
    sizes = values.shape[:3] if channels else values.shape
    lines = [f"NDims = {len(sizes)}", "BinaryData = True", f"DimSize = {' '.join(map(str, sizes))}"]
    matrix = np.diag([1.0, 1, 1] if channels else [1, 1, 1, 1]).ravel()
    lines += [f"TransformMatrix = {' '.join(map(str, matrix))}", f"Offset = {'0 ' * len(sizes)}"]
    lines += [f"ElementSpacing = {' '.join(['1', '1', '2', '2'][: len(sizes)])}"]
    lines += ["ElementNumberOfChannels = 3"] if channels else []
    kind = {"int16": "MET_SHORT", "uint8": "MET_UCHAR", "float32": "MET_FLOAT"}[values.dtype.name]
    data = np.moveaxis(values, -1, 0) if channels else values
    header = "\n".join([*lines, f"ElementType = {kind}", "ElementDataFile = LOCAL\n"])
    path.write_bytes(header.encode() + data.tobytes(order="F"))
    return path


FORMS = {
    "nifti": lambda folder: nifti(folder / "a.nii"),
    "packed nifti": lambda folder: nifti(folder / "a.nii.gz"),
    "vectors of nifti": lambda folder: nifti(folder / "a.nii", SERIES[..., None, :]),
    "list of nrrd": lambda folder: nrrd(folder / "a.nrrd", kinds="list domain domain domain"),
    "last list of nrrd": lambda folder: nrrd(folder / "a.nrrd"),
    "time of nrrd": lambda folder: nrrd(folder / "a.nrrd", kinds="domain domain domain time"),
    "packed time of nrrd": lambda folder: nrrd(folder / "a.nrrd", kinds="space space space ???", encoding="gzip"),
    "nrrd of no kinds": lambda folder: nrrd(folder / "a.nrrd", kinds="domain domain domain absent"),
    "nrrd in two files": lambda folder: nrrd(folder / "a.nrrd", kinds="domain domain domain time", detached=True),
    "metaimage": lambda folder: metaimage(folder / "a.mha"),
    "channels of metaimage": lambda folder: metaimage(folder / "a.mha", channels=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_its_volumes(tmp_path, form):
    path = FORMS[form](tmp_path)
    with refused(Reason.AMBIGUOUS, str(path), "3 volumes", "1, 2, 3"):
        read_image(path)
    for n in range(3):
        image = read_image(path, volume=n + 1)
        np.testing.assert_array_equal(image[0], SERIES[..., n])
        np.testing.assert_allclose(np.abs(image.affine), np.diag([1, 1, 2, 1]), atol=1e-6)
        assert image.meta["units"] == "stored"
    np.testing.assert_allclose(read_image(path, volume="mean")[0], SERIES.mean(-1), atol=1e-3)
    for wanted in (0, 4, -1, "b=1000", "second"):
        with refused(Reason.MISSING, str(path), "1, 2, 3"):
            read_image(path, volume=wanted)


@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_three_of_a_list_are_no_colours(tmp_path, kind):
    values = (np.abs(SERIES) // 2).astype(np.uint8)
    for path in (nifti(tmp_path / "a.nii", values.astype(kind)), metaimage(tmp_path / "a.mha", values)):
        with refused(Reason.AMBIGUOUS, "3 volumes"):
            read_image(path)
    with refused(Reason.AMBIGUOUS, "3 volumes"):
        read_image(metaimage(tmp_path / "b.mha", values.astype(np.float32), channels=True))
    header = nrrd(tmp_path / "a.nrrd", values, kinds="list domain domain domain").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(header.replace(b"type: short", b"type: uint8"))
    with refused(Reason.AMBIGUOUS, "3 volumes"):
        read_image(tmp_path / "a.nrrd")
    (tmp_path / "a.nrrd").write_bytes(header.replace(b"type: short", b"type: uint8").replace(b"list", b"RGB-color"))
    assert read_image(tmp_path / "a.nrrd").shape[0] == 3
    assert read_image(metaimage(tmp_path / "c.mha", values, channels=True)).shape[0] == 3


def test_diffusion_weightings(tmp_path):
    path = nifti(tmp_path / "a.nii.gz")
    (tmp_path / "a.bval").write_text("0 1000 2000\n")
    with refused(Reason.AMBIGUOUS, "DiffusionBValue 1000", "DiffusionBValue 2000"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, volume="b=1000")[0], SERIES[..., 1])
    more = "DWMRI_b-value:=2000\nDWMRI_gradient_0000:=0 0 0\nDWMRI_gradient_0001:=0 0.70710678 0\n"
    path = nrrd(tmp_path / "a.nrrd", kinds="list domain domain domain", more=f"{more}DWMRI_gradient_0002:=1 0 0\n")
    np.testing.assert_array_equal(read_image(path, volume="b=1000")[0], SERIES[..., 1])


@pytest.mark.parametrize(("unit", "step"), [("sec", 2.5), ("msec", 2500), ("usec", 2.5e6)])
def test_moments(tmp_path, unit, step):
    path = nifti(tmp_path / "a.nii", time=("mm", unit), pixdim=[1, 1, 1, 2, step, 0, 0, 0])
    with refused(Reason.AMBIGUOUS, "seconds 2.5", "seconds 5"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, volume="time=5")[0], SERIES[..., 2])


def test_through_convert(tmp_path):
    convert_image(nifti(tmp_path / "a.nii"), tmp_path / "b.nii", volume="2")
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").dataobj, SERIES[..., 1])


def test_through_the_command_line(tmp_path):
    assert cli.main(["convert", str(nifti(tmp_path / "a.nii")), str(tmp_path / "b.nii"), "--volume", "2"]) == 0
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").dataobj, SERIES[..., 1])
    (options,) = [vars(cli.build_parser().parse_args(FUSE))]
    assert (options["anatomy_volume"], options["overlay_volume"]) == ("echo=30", ["mean"])


@pytest.mark.parametrize("wanted", [2, "2"])
def test_through_a_datalist(tmp_path, wanted):
    path = str(nifti(tmp_path / "a.nii"))
    (pair,) = load_pairs([{"anatomy": path, "overlay": path, "anatomy_volume": wanted, "overlay_volume": "mean"}])
    loaded = LoadStudyImaged(smallest=2)(pair)
    np.testing.assert_array_equal(loaded["anatomy"][0], SERIES[..., 1])
    np.testing.assert_allclose(loaded["overlay"][0], SERIES.mean(-1), atol=1e-3)
    record = json.loads(RecordChoices()({"anatomy": loaded["anatomy"]}))
    assert record["record"]["anatomy"]["volume"] == "2"
    with pytest.raises(ValueError, match="anatomy_volume"):
        load_pairs([{"anatomy": path, "overlay": path, "anatomy_volume": 1.5}])


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (1, [0]),
        ("2", [1]),
        ("echo=7.38", [1]),
        ("EchoTime = 30", [2]),
        ("echotime=4.92", [0]),
        ("type=m", [2]),
        ("mean", [0, 1, 2]),
        ("echo=30,mean", [2]),
    ],
)
def test_ways_to_choose(wanted, chosen):
    assert choose_volumes("a", ECHOES, wanted) == chosen


@pytest.mark.parametrize("wanted", ["4", "0", "echo=5", "b=0", "EchoTime=", "=", "EchoTime=30,1", "median"])
def test_what_there_is_not(wanted):
    with refused(Reason.MISSING, "a: ", "EchoTime 4.92", "EchoTime 7.38", "EchoTime 30"):
        choose_volumes("a", ECHOES, wanted)


def test_many_are_listed_in_short():
    volumes = [{"DiffusionBValue": b, "seconds": n} for n in range(60) for b in (0, 1000)]
    with refused(Reason.AMBIGUOUS, "120 volumes", "1 to 120", "DiffusionBValue 0, 1000") as caught:
        choose_volumes("a", volumes, None)
    assert len(str(caught.value)) < 300
    with refused(Reason.AMBIGUOUS, "60 volumes"):
        choose_volumes("a", volumes, "b=0")
    assert choose_volumes("a", volumes, "b=0,time=2") == [4]
    assert len(choose_volumes("a", volumes, "b=0,mean")) == 60


def test_a_single_one_may_be_named():
    assert choose_volumes("a", [{}], 1) == choose_volumes("a", [{}], "mean") == choose_volumes("a", [{}], None) == [0]
    with refused(Reason.MISSING, "2"):
        choose_volumes("a", [{}], 2)
