"""What lies on a GPU is never given to NumPy, ITK or PIL as it is: no GPU is needed to see that.

A pretended one computes on the CPU, with values, and refuses what CUDA refuses: NumPy, until `cpu()` was called.
"""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from evaluation.observers import region_rings
from fusion_nets.clinical import read_image, write_image
from fusion_nets.drawing import write_checkerboard, write_montage
from fusion_nets.registration import foreground, register, resample_labels, resample_onto, shared_content, similarity
from fusion_nets.text import GivenText, MeasuredText
from fusion_nets.transforms import (
    CheckLuminancesd,
    CommonGridd,
    Described,
    JudgeRegionsd,
    MeasureRegionsd,
    MergeChromad,
    PaletteChromad,
    RecordChoicesd,
    SaveFusedd,
    ScaleToDisplayRanged,
    SplitLuminanced,
)
from fusion_nets.workflows import InsertLesions
from fusion_nets.workflows.study_images import study_rows

HERE, THERE = torch.device("cpu"), torch.device("cuda:0")


class PretendedGPU(TorchFunctionMode):
    """Remembers by their memory which tensors lie there: those that were put there, and what is computed of them."""

    def __init__(self):
        super().__init__()
        self.memory = {}  # kept, so that no other tensor gets it

    def put(self, value):
        """A copy that lies there, of a tensor or of those in a dictionary."""
        if isinstance(value, dict):
            return {key: self.put(one) for key, one in value.items()}
        return self._remember(value.clone()) if isinstance(value, torch.Tensor) else value

    def holds(self, value):
        with torch._C.DisableTorchFunctionSubclass():
            return isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in self.memory

    def _remember(self, value):
        with torch._C.DisableTorchFunctionSubclass():
            if value.numel():
                self.memory[value.untyped_storage().data_ptr()] = value.untyped_storage()
        return value

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        parts = tree_leaves((args, kwargs))
        from_there = any(map(self.holds, parts))
        if from_there and function == torch.Tensor.device.__get__:
            return THERE
        if from_there and name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        named = [
            torch.device(one).type
            for one in parts
            if isinstance(one, torch.device) or (isinstance(one, str) and one == "cpu")
        ]
        args, kwargs = tree_map(lambda one: HERE if isinstance(one, torch.device) else one, (args, kwargs))
        result = function(*args, **kwargs)
        if name == "cpu" or (name == "to" and "cpu" in named):
            return result.clone() if from_there else result
        if (from_there and name not in ("copy_", "__setitem__")) or "cuda" in named:
            for one in tree_leaves(result):
                if isinstance(one, torch.Tensor):
                    self._remember(one)
        return result


@pytest.fixture
def gpu():
    with PretendedGPU() as mode:
        yield mode


def heads():
    """A ball with a spot; and the same, inverted, on a coarser grid, 3 mm off."""
    places = np.stack(np.meshgrid(*(np.arange(n) * 3.0 for n in (36, 34, 30)), indexing="ij"))
    ball, spot = (
        1 / (1 + np.exp((np.linalg.norm(places - np.reshape(middle, (3, 1, 1, 1)), axis=0) - radius) / 2))
        for middle, radius in (((52, 48, 44), 36), ((40, 50, 40), 8))
    )
    values = torch.from_numpy(ball + spot).float()[None]
    affine = torch.diag(torch.tensor([3.0, 3, 3, 1], dtype=torch.float64))
    moved = affine.clone()
    moved[:3, 3] = torch.tensor([3.0, 0, 0])
    meta = {"units": "stored", "filename_or_obj": "a.nii"}
    return MetaTensor(100 * values, affine=affine, meta=dict(meta)), MetaTensor(
        100 * (2 * (values > 0.2) - values)[..., :-1], affine=moved, meta={**meta, "modality": "PT"}
    )


def labels(image):
    return MetaTensor((image > 150).int().as_tensor(), affine=image.affine)


def regions(image):
    """As LoadRegions gives them."""
    one = labels(image)[0].as_tensor()
    return MetaTensor(torch.stack([one, region_rings(one, (3.0, 3.0, 3.0))]), affine=image.affine)


def pair():
    """As the bundles have it before the network, with a prediction as behind it."""
    anatomy, overlay = heads()
    data = {"anatomy": anatomy, "overlay": overlay, "name": "a", "regions": regions(anatomy)}
    for step in (CommonGridd(), MeasureRegionsd(), ScaleToDisplayRanged(["anatomy", "overlay"])):
        data = step(data)
    data = PaletteChromad("overlay", "hot")(SplitLuminanced("overlay")(data))
    data = RecordChoicesd(["anatomy", "overlay"], details={"method": "DM-FNet"})(data)
    data["image"] = torch.cat([data["anatomy"], data["overlay"]])
    return {**data, "pred": data["image"].mean(0, keepdim=True)}


def tensors(value):
    return [one.cpu().as_subclass(torch.Tensor) for one in tree_leaves(value) if isinstance(one, torch.Tensor)]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


PICTURES = {
    "checkerboard": lambda folder, a, o: write_checkerboard(folder / "a.png", a, o),
    "montage": lambda folder, a, o: write_montage(folder / "a.png", a, o, a, windows=[None, (0, 90), None]),
}
IMAGES = {
    "registration": lambda a, o: register(a, o, "rigid").matrix,
    "similarity": lambda a, o: similarity(a, o, foreground(a)),
    "foreground": lambda a, o: foreground(a),
    "shared content": lambda a, o: shared_content(a, o),
    "resampling": lambda a, o: resample_onto(o, a),
    "resampling coarser": lambda a, o: resample_onto(a, o),
    "labels": lambda a, o: resample_labels(labels(o), a),
    "rows": lambda a, o: study_rows(a, 9)[0],
    "measured text": lambda a, o: MeasuredText()([a / 200]),
    "given text": lambda a, o: GivenText(MeasuredText())([a / 200]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(gpu, name):
    there = [gpu.put(image) for image in heads()]
    with pytest.raises(TypeError, match="cuda"):
        there[0].as_tensor().numpy()
    result, wanted = IMAGES[name](*there), IMAGES[name](*heads())
    if isinstance(wanted, torch.Tensor):
        assert gpu.holds(result)
        result, wanted = result.cpu().numpy(), wanted.numpy()
    if isinstance(wanted, list):
        assert result == wanted
    else:
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("form", ["nii.gz", "nrrd", "mha", "png", "tif"])
def test_writing(gpu, tmp_path, form):
    image, _ = heads()
    image = (image / 200).clamp(0, 1)
    image = image[..., 9] if form in ("png", "tif") else image
    for where, one in (("here", image), ("there", gpu.put(image))):
        write_image(tmp_path / where / f"a.{form}", one)
    np.testing.assert_array_equal(*(read_image(tmp_path / where / f"a.{form}") for where in ("here", "there")))


@pytest.mark.parametrize("name", ["checkerboard", "montage"])
def test_pictures(gpu, tmp_path, name):
    anatomy, overlay = heads()
    overlay = resample_onto(overlay, anatomy)
    for where, images in (("here", (anatomy, overlay)), ("there", (gpu.put(anatomy), gpu.put(overlay)))):
        PICTURES[name](tmp_path / where, *images)
    assert files(tmp_path / "here") == files(tmp_path / "there")


BEFORE = {
    "grid": lambda folder: CommonGridd(register="rigid", output_dir=folder),
    "regions": lambda folder: MeasureRegionsd(),
    "range": lambda folder: ScaleToDisplayRanged("anatomy", "percentiles"),
}
AFTER = {
    "check": lambda folder: CheckLuminancesd("image"),
    "described": lambda folder: Described(["anatomy", "overlay"], MeasuredText()),
    "judged": lambda folder: JudgeRegionsd("pred", output_dir=folder),
    "saved": lambda folder: SaveFusedd("pred", folder, ["nifti", "nrrd", "mha", "png"]),
    "coloured": lambda folder: (
        lambda data: SaveFusedd("fused", folder, ["nifti", "png"])(
            MergeChromad("pred", "overlay_chroma", output_key="fused")(data)
        )
    ),
    "lesions": lambda folder: (
        lambda data: InsertLesions()({"name": "a", "overlay_modality": "PT", "image": data["image"][..., 12]})
    ),
}


@pytest.mark.parametrize("name", [*BEFORE, *AFTER])
def test_transforms(gpu, tmp_path, name):
    if name in BEFORE:
        anatomy, overlay = heads()
        data = {"anatomy": anatomy, "overlay": overlay, "name": "a", "regions": regions(anatomy)}
        if name != "grid":
            data["overlay"] = resample_onto(overlay, anatomy)
    else:
        data = pair()
    step = {**BEFORE, **AFTER}[name]
    here = step(tmp_path / "here")(dict(data))
    there = step(tmp_path / "there")(gpu.put(data))
    for result, wanted in zip(tensors(there), tensors(here), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)
    assert {key for key, value in here.items() if isinstance(value, str)} == {
        key for key, value in there.items() if isinstance(value, str)
    }
    written = [files(tmp_path / where) for where in ("here", "there")]
    assert [list(one) for one in written] == [list(written[0])] * 2
    assert not [name for name in written[0] if name.endswith(".png") and written[0][name] != written[1][name]]
