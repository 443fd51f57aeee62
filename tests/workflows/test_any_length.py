"""A volume in a file, gone through slab by slab, comes out as one in memory does, bit for bit."""

import gc
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom.dicom_phantoms import axial, head_on, instances, save
from monai.data import MetaTensor

from fusion_nets import slabs
from fusion_nets.clinical import read_image, write_image
from fusion_nets.files import RoomError
from fusion_nets.networks import DMFNet
from fusion_nets.registration import foreground, resample_onto
from fusion_nets.shortage import missing_memory
from fusion_nets.transforms import PairUp, ScaleToDisplayRange
from fusion_nets.workflows import fuse_pair

FORMATS = ["dicom", "nifti", ".nii", "nrrd", "mha", "png"]
CT, PET = axial((48, 52, 20), (2.5, 2.5, 4.0)), axial((34, 36, 20), (4.0, 4.0, 4.2), (0, 0, 3))


@pytest.fixture
def in_files(monkeypatch):
    """Volumes of any size are large, and no slab has more than a few slices."""
    made = []
    file = slabs._file
    monkeypatch.setattr(slabs, "_file", lambda size: made.append(size) or file(size))

    def begin(large=1000):
        monkeypatch.setattr(slabs, "LARGE", large)
        monkeypatch.setattr(slabs, "SLAB", 8000)
        return made

    return begin


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def smooth(shape, seed=0):
    """A blob with a hole, some specks and noise."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    values = 100 * ((radius < 0.8) & (radius > 0.2)) + generator.normal(0, 8, shape)
    values[1:3, 1:3, 1:3] = 100
    return torch.from_numpy(np.float32(values))[None]


@pytest.mark.slow
def test_a_pair_in_every_form(tmp_path, in_files):
    save(tmp_path / "ct", instances("CT", CT, (48, 52, 20)))
    moved = PET + np.outer([4, -5, 3, 0], [0, 0, 0, 1])
    save(tmp_path / "pet", instances("PT", moved, (34, 36, 20), 2, values=np.rint(head_on(PET, (34, 36, 20)))))
    torch.manual_seed(0)
    network = DMFNet(width=8, norm_groups=4, head_width=4, residual=True)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    options = {"network_def": network, "weights": str(tmp_path / "model.pt"), "overlay_palette": "hot"}

    def fuse():
        fuse_pair(
            tmp_path / "ct", tmp_path / "pet", tmp_path / "out", output_format=FORMATS, register="rigid", name="case",
            **options,
        )  # fmt: skip
        found = content(tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
        return found

    whole = fuse()
    made = in_files()
    in_slabs = fuse()
    assert len(made) > 10
    assert whole.keys() == in_slabs.keys()
    assert [name for name in whole if whole[name] != in_slabs[name]] == []


class Dying(DMFNet):
    """Counts its slices, and dies of one of them."""

    slices, last = 0, 99

    def forward(self, image, *given, **more):
        Dying.slices += len(image)
        if Dying.slices > Dying.last:
            raise KeyError("killed")
        return super().forward(image, *given, **more)


@pytest.mark.slow
def test_a_killed_run_goes_on_behind_its_last_slice(tmp_path, in_files):
    save(tmp_path / "ct", instances("CT", CT, (48, 52, 20)))
    torch.manual_seed(0)
    network = Dying(width=8, norm_groups=4, head_width=4, residual=True)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    options = {"network_def": network, "weights": str(tmp_path / "model.pt"), "overlay_palette": "hot", "name": "case"}
    options |= {"engine": "torch", "slices_at_once": 2}

    def fuse(out, last=99):
        Dying.slices, Dying.last = 0, last
        fuse_pair(tmp_path / "ct", tmp_path / "ct", tmp_path / out, output_format=["png", "nifti"], **options)
        return Dying.slices

    in_files()
    needed = fuse("whole")
    assert not (tmp_path / "whole/.cases").exists()
    with pytest.raises(RuntimeError, match="evaluator"):
        fuse("out", last=7)
    begun = tmp_path / "out/.cases/case.begun"
    done = [int(line.split()[0]) for line in (begun / "done").read_text().splitlines()]
    assert len(done) == 6
    early = content(begun / "slices")
    assert sorted(early) == [f"{k + 1:04d}.png" for k in sorted(done)]
    grown = np.asarray(nib.load(begun / "fused.nii").dataobj)
    assert fuse("out") == needed - 6
    whole, gone_on = content(tmp_path / "whole"), content(tmp_path / "out")
    assert gone_on == whole
    assert all(whole[f"case_fused_slices/{name}"] == picture for name, picture in early.items())
    assert grown.shape == (48, 52, 20)
    assert not (tmp_path / "out/.cases").exists()
    with pytest.raises(RuntimeError, match="evaluator"):
        fuse("out", last=7)
    options["overlay_window"] = (0, 60)  # with which nothing of it may be used
    assert fuse("out") == needed


class Brightest(torch.nn.Module):
    """Of any number of sources; dies after so many slices."""

    def __init__(self):
        super().__init__()
        self.weight, self.left = torch.nn.Parameter(torch.ones(1)), 99

    def forward(self, image):
        self.left -= len(image)
        if self.left < 0:
            raise KeyError("killed")
        return image.amax(1, keepdim=True) * self.weight


@pytest.mark.slow
def test_several_coloured_overlays(tmp_path, in_files):
    """In files as in memory, and in colour as they are made."""
    save(tmp_path / "ct", instances("CT", CT, (48, 52, 20)))
    for number, move in enumerate(((4, -5, 3, 0), (-4, 5, 2, 0))):
        moved = PET + np.outer(move, [0, 0, 0, 1])
        values = np.rint(head_on(PET, (34, 36, 20)))
        save(tmp_path / f"pet{number}", instances("PT", moved, (34, 36, 20), 2 + number, values=values))
    network = Brightest()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    options = {"network_def": network, "weights": str(tmp_path / "model.pt"), "name": "case", "slices_at_once": 2}

    def fuse(out, left=99):
        network.left = left
        overlays = [tmp_path / "pet0", tmp_path / "pet1"]
        fuse_pair(tmp_path / "ct", overlays, tmp_path / out, output_format=FORMATS, register="none", **options)

    fuse("whole")
    in_files()
    with pytest.raises(RuntimeError, match="evaluator"):
        fuse("out", left=7)
    early = content(tmp_path / "out/.cases/case.begun/slices")
    assert len(early) == 6
    fuse("out")
    whole, in_slabs = content(tmp_path / "whole"), content(tmp_path / "out")
    assert [name for name in whole if whole[name] != in_slabs[name]] == []
    assert all(whole[f"case_fused_slices/{name}"] == picture for name, picture in early.items())


def test_a_file_is_gone_with_its_volume(in_files, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    in_files()
    before = set(slabs._MAPPED)
    volume = slabs.zeros((3, 20, 21, 22))
    volume[..., 4] = 7
    slabs.release()
    assert volume.sum() == 7 * 3 * 20 * 21
    assert len(slabs._MAPPED) == len(before) + 1
    assert not list(tmp_path.iterdir())
    del volume
    gc.collect()
    assert set(slabs._MAPPED) <= before


def test_a_volume_for_which_there_is_no_room(in_files, monkeypatch):
    in_files()
    monkeypatch.setattr("os.posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RoomError, match=r"no room for a volume of .* GiB; .* TMPDIR is accepted") as caught:
        slabs.zeros((1, 20, 21, 22))
    assert missing_memory(RuntimeError("read")) is None
    assert missing_memory(caught.value) == str(caught.value)


@pytest.mark.parametrize("meta", [{"units": "HU"}, {"modality": "MR"}, {"units": "SUV"}, {}])
def test_foreground_and_display_range(meta, in_files):
    image = MetaTensor(smooth((40, 37, 31)), affine=torch.eye(4), meta=dict(meta))
    scale = ScaleToDisplayRange("percentiles" if meta.get("units") == "HU" else None)
    found, scaled = foreground(image), scale(image)
    assert found.any()
    in_files()
    assert np.array_equal(foreground(image), found)
    again = scale(image)
    assert torch.equal(again, scaled)
    assert again.meta["display"] == scaled.meta["display"]
    assert "display" not in image.meta


@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_resampling_to_a_finer_grid(turn, in_files):
    image = MetaTensor(smooth((30, 31, 32)), affine=torch.diag(torch.tensor([2.0, 2, 3, 1], dtype=torch.float64)))
    finer = MetaTensor(torch.zeros(1, 50, 51, 52), affine=torch.diag(torch.tensor([1.3, 1.2, 2, 1])).double())
    matrix = nib.affines.from_matvec(nib.eulerangles.euler2mat(turn), [3 * bool(turn), 0, 0])
    moved = resample_onto(image, finer, matrix)
    in_files()
    assert torch.equal(resample_onto(image, finer, matrix), moved)


@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_resampling_to_a_coarser_grid(turn, in_files):
    """Where it is smoothed first, what comes round from the other end is all that differs."""
    image = MetaTensor(smooth((30, 31, 60)), affine=torch.eye(4, dtype=torch.float64))
    coarser = MetaTensor(torch.zeros(1, 12, 13, 20), affine=torch.diag(torch.tensor([2.5, 2.4, 3, 1])).double())
    matrix = nib.affines.from_matvec(nib.eulerangles.euler2mat(turn), [0, 0, 0])
    moved = resample_onto(image, coarser, matrix)
    in_files()
    assert (resample_onto(image, coarser, matrix) - moved).abs().max() < 1e-4 * float(image.max() - image.min())


@pytest.mark.parametrize("form", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("channels", [1, 3])
def test_files(form, channels, tmp_path, in_files):
    image = MetaTensor(torch.cat([smooth((20, 21, 22), seed) for seed in range(channels)]) / 120, affine=torch.eye(4))
    first = write_image(tmp_path / form, image).read_bytes()
    read = read_image(tmp_path / form)
    in_files()
    assert write_image(tmp_path / form, image).read_bytes() == first
    again = read_image(tmp_path / form)
    assert torch.equal(again, read)
    assert again.meta["units"] == read.meta["units"]
    assert again.as_tensor().stride(-1) == channels * 20 * 21  # slice by slice


def test_a_pair_is_laid_on_each_other(in_files):
    anatomy, overlay = (MetaTensor(smooth((20, 21, 22), seed), meta={"seed": seed}) for seed in (1, 2))
    in_files()
    pair = PairUp()(anatomy, overlay)
    assert torch.equal(pair, torch.cat([anatomy, overlay]))
    assert pair.meta["seed"] == 1
