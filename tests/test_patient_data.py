"""No name, identifier, date of birth or UID leaves a study but inside DICOM objects; and of these, --deidentify."""

import gzip
import re
import shutil
import zlib

import pytest

from fusion_nets import cli

pytestmark = pytest.mark.slow

pydicom = pytest.importorskip("pydicom")

MARKS = {
    "PatientName": "Wanderfalke^Adelheid",
    "PatientID": "PID-73519",
    "PatientBirthDate": "19470811",
    "OtherPatientIDs": "OPI-60428",
    "PatientAddress": "Lindenallee 77",
    "AccessionNumber": "ACC-90817",
    "ReferringPhysicianName": "Siebenschlaefer^Otto",
    "InstitutionName": "Klinikum Rabenstein",
    "StudyID": "SID-5512",
}
SECRETS = [*MARKS.values(), "Wanderfalke", "Adelheid", "Siebenschlaefer", "Rabenstein"]
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


@pytest.fixture(scope="module")
def marked(dicom_study, tmp_path_factory):
    """The sample's MRI and PET with marked values, in files that are named by their UID as archives do it."""
    folder = tmp_path_factory.mktemp("marked")
    secrets = list(SECRETS)
    for name in ("mri", "pet"):
        (folder / name).mkdir()
        for path in dicom_study[name].iterdir():
            dataset = pydicom.dcmread(path)
            for keyword, value in MARKS.items():
                setattr(dataset, keyword, value)
            private = dataset.private_block(0x0029, "FUSION TEST", create=True)
            private.add_new(0x01, "LO", "Wanderfalke private")
            dataset.save_as(folder / name / f"{dataset.SOPInstanceUID}.dcm")
            secrets += [str(dataset[keyword].value) for keyword in UIDS]
    return folder, sorted(set(secrets))


@pytest.fixture
def run(monkeypatch, capfd):
    """Run a command in a folder; gives its exit code and all that it said."""

    def command(*arguments, cwd):
        monkeypatch.chdir(cwd)
        code = cli.main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return code, said.out + said.err

    return command


def readable(content: bytes) -> bytes:
    """A file's content with what is compressed in it laid open."""
    if content[:2] == b"\x1f\x8b":
        return gzip.decompress(content)
    for chunk in re.findall(rb"(?:zTXt|iTXt)(.*?)IEND", content, re.DOTALL):
        content += zlib.decompressobj().decompress(chunk[chunk.find(b"x") :], 2**20) if b"x" in chunk else b""
    return content


def leaks(secrets, said, folder, dicom=False):
    """Where a secret is found: in what was said, a file's name or content; DICOM's content only if asked for."""
    found = [f"output: {secret}" for secret in secrets if secret in said]
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        found += [f"name {name}: {secret}" for secret in secrets if secret in name]
        if path.is_file() and (dicom or path.suffix != ".dcm"):
            content = readable(path.read_bytes())
            found += [f"content of {name}: {secret}" for secret in secrets if secret.encode() in content]
    return found


def lesions(folder, path):
    """Labels of two blocks in the MRI's middle, as a segmentation would give them; the second is of no contrast."""
    import nibabel as nib
    import numpy as np

    from fusion_nets.clinical import read_image

    mri = read_image(folder / "mri")
    labels = np.zeros(mri.shape[1:], dtype=np.uint8)
    rows, columns, slices = (n // 2 for n in labels.shape)
    for label, row in ((1, rows - 6), (2, rows + 4)):
        labels[row : row + 3, columns : columns + 3, slices - 1 : slices + 2] = label
    nib.save(nib.Nifti1Image(labels, mri.affine.numpy()), path)
    return path


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_fuse(marked, tmp_path, run, method):
    folder, secrets = marked
    code, said = run(
        *("fuse", "--anatomy", "mri", "--overlay", "pet", "--output_dir", tmp_path / "out", "--method", method),
        *("--format", "dicom,nifti,nrrd,mha,png", "--evaluate", *(["--describe"] if method == "smfusion" else [])),
        *("--regions", lesions(folder, tmp_path / "lesions.nii.gz"), "--save", "overlay", "anatomy"),
        cwd=folder,
    )
    assert code == 0, said
    assert "pair1_fused.nii.gz" in said
    assert (tmp_path / "out" / "metrics.csv").is_file()
    assert (tmp_path / "out" / "pair1_regions.csv").read_text().startswith("region,")
    assert leaks(secrets, said, tmp_path / "out") == []
    series = pydicom.dcmread(tmp_path / "out" / "pair1_dicom" / "IM0001.dcm")
    assert series.PatientName == MARKS["PatientName"]  # so that the archive knows whose it is
    assert (0x0029, 0x0010) not in series  # nobody knows what is in a private element


def test_fuse_deidentified(marked, tmp_path, run):
    folder, secrets = marked
    code, said = run(
        *("fuse", "--anatomy", "mri", "--overlay", "pet", "--output_dir", tmp_path / "out", "--format", "dicom"),
        *("--deidentify", "--name", "case", "--method", "smfusion", "--save", "overlay", "anatomy"),
        cwd=folder,
    )
    assert code == 0, said
    assert leaks(secrets, said, tmp_path / "out", dicom=True) == []
    studies = {pydicom.dcmread(path).StudyInstanceUID for path in (tmp_path / "out").rglob("*.dcm")}
    assert len(studies) == 1


@pytest.mark.parametrize("out", ["mri.nii.gz", "mri.nrrd", "mri.mha", "slices.png", "dicom"])
def test_convert(marked, tmp_path, run, out):
    folder, secrets = marked
    options = ["--deidentify"] if out == "dicom" else []
    code, said = run("convert", "mri", tmp_path / "out" / out, *options, cwd=folder)
    assert code == 0, said
    assert leaks(secrets, said, tmp_path / "out", dicom=True) == []


def test_describe(marked, tmp_path, run):
    folder, secrets = marked
    (folder / "pairs.json").write_text('[{"anatomy": "mri", "overlay": "pet"}]')
    code, said = run("describe", "--datalist", "pairs.json", "--output", tmp_path / "out" / "texts.json", cwd=folder)
    assert code == 0, said
    assert leaks(secrets, said, tmp_path / "out") == []


def damage(kind, folder):
    files = sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).InstanceNumber)
    if kind == "missing slice":
        files[len(files) // 2].unlink()
    elif kind == "truncated":
        files[3].write_bytes(files[3].read_bytes()[:-900])
    elif kind == "mixed size":
        dataset = pydicom.dcmread(files[3])
        dataset.Rows -= 1
        dataset.PixelData = dataset.PixelData[: 2 * dataset.Rows * dataset.Columns]
        dataset.save_as(files[3])
    else:  # two series
        for path in files:
            dataset = pydicom.dcmread(path)
            dataset.SeriesInstanceUID += ".2"
            dataset.SOPInstanceUID += ".2"
            dataset.SeriesDescription = "T2 Adelheid"
            dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing slice", "missing"),
        ("truncated", "PixelData cannot be decoded"),
        ("mixed size", "Rows"),
        ("two series", "2 series"),
    ],
)
def test_errors(marked, tmp_path, run, kind, reason):
    folder, secrets = marked
    shutil.copytree(folder / "mri", tmp_path / "mri")
    damage(kind, tmp_path / "mri")
    code, said = run("convert", "mri", "out.nii.gz", cwd=tmp_path)
    assert code == 2
    assert reason.lower() in said.lower()
    assert [secret for secret in secrets if secret in said] == []
