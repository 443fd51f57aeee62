import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import head_pair, unequal
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.metrics import CumulativeIterationMetric

from evaluation import observers
from evaluation.observers import (
    ContrastRecoveryMetric,
    LostLesionsMetric,
    ObserverAreaMetric,
    add_internal_noise,
    contrast_recovery,
    lesion_cases,
    lesions_from_engine,
    lost,
    luminance,
    observer_area,
    patches_at,
)

SUBJECTS = 8
METRICS = [ContrastRecoveryMetric, LostLesionsMetric, ObserverAreaMetric]


@pytest.fixture(scope="module")
def study():
    """`y_pred` (B, 2, H, W) and `y` (B, 5, H, W) of eight subjects, one of them without a place for a lesion."""
    pred, given = [], []
    for number in range(SUBJECTS):
        none, case, *_ = lesion_cases(*head_pair(number, ct=True), np.random.default_rng(number), ct=True, most=3)
        middles = np.zeros((1, *none.images.shape[1:]))
        for lesion in none.lesions if number != 3 else ():
            middles[0, lesion.row, lesion.column] = number + 1
        pred.append([unequal(case.images), unequal(none.images)])
        given.append(np.concatenate([case.images, none.images, middles]))
    return torch.tensor(np.array(pred)).float(), torch.tensor(np.array(given)).float()


def by_hand(study):
    pred, y = study
    places = y[:, 4].nonzero()
    return pred, y, places, contrast_recovery(pred[:, :1], pred[:, 1:], y[:, 1:2], y[:, 3:4], places)


def test_recovery_of_each_lesion_and_its_median(study):
    pred, y, places, expected = by_hand(study)
    metric = ContrastRecoveryMetric()
    assert isinstance(metric, CumulativeIterationMetric)
    torch.testing.assert_close(metric(y_pred=pred, y=y)[:, 0], expected)
    assert len(expected) == len(places) > 12
    assert metric.aggregate().item() == pytest.approx(np.median(expected))
    assert metric.aggregate("mean").item() == pytest.approx(expected.mean().item())
    of_anatomy = ContrastRecoveryMetric(source="anatomy", get_not_nans=True)
    # the anatomy has no lesion in these
    assert of_anatomy(y_pred=pred, y=y).isnan().all()
    median, count = of_anatomy.aggregate()
    assert median.isnan()
    assert count == 0


def test_lost_share(study):
    pred, y, _, recovery = by_hand(study)
    for threshold in (0.25, 0.5):
        metric = LostLesionsMetric(threshold=threshold)
        torch.testing.assert_close(metric(y_pred=pred, y=y)[:, 0], lost(recovery, threshold=threshold))
        assert metric.aggregate().item() == pytest.approx((recovery < threshold).float().mean().item())
    inverted = LostLesionsMetric(opposite=True)
    assert (inverted(y_pred=pred.flip(1), y=y)[:, 0] == lost(-recovery, opposite=True)).all()


@pytest.mark.parametrize("sees", ["fused", "sources"])
def test_observer_of_all_patches(study, sees):
    pred, y = study
    metric = ObserverAreaMetric(sees=sees, seed=5)
    rows = metric(y_pred=pred, y=y)
    places = y[:, 4].nonzero()
    assert rows.shape == (len(places), metric.width)
    seen = (pred[:, :1], pred[:, 1:]) if sees == "fused" else (y[:, :2], y[:, 2:4])
    patches = torch.stack([patches_at(images.double(), places, 24) for images in seen], dim=1)
    generator = torch.Generator().manual_seed(5)
    noisy = torch.stack([add_internal_noise(both, generator) for both in patches])
    subjects = [int(subject) for subject in y[:, 4][y[:, 4] > 0]]
    expected = observer_area(noisy[:, 0], noisy[:, 1], subjects)
    assert metric.aggregate().item() == pytest.approx(expected.item(), abs=1e-12)


def test_observer_in_colour(study):
    pred, y = study
    coloured = torch.cat([pred[:, :1].expand(-1, 3, -1, -1), pred[:, 1:].expand(-1, 3, -1, -1)], 1).clone()
    coloured[:, 2] -= 0.2 * y[:, 1]
    coloured[:, 5] -= 0.2 * y[:, 3]
    metric = ObserverAreaMetric(colour=True)
    assert metric(y_pred=coloured, y=y).shape[1] == 1 + 2 * 3 * 10
    assert 0 <= metric.aggregate() <= 1
    grey = ContrastRecoveryMetric()(y_pred=coloured, y=y)
    before_after = [luminance(images) for images in coloured.chunk(2, dim=1)]
    expected = contrast_recovery(*before_after, y[:, 1:2], y[:, 3:4], y[:, 4].nonzero())
    torch.testing.assert_close(grey[:, 0], expected)
    with pytest.raises(ValueError, match="colour=False cannot see"):
        ObserverAreaMetric()(y_pred=coloured, y=y)


@pytest.mark.parametrize("metric", METRICS)
def test_lists_batches_and_accumulation_agree(metric, study):
    pred, y = study
    whole, listed, apart = metric(), metric(), metric()
    expected = whole(y_pred=pred, y=y)
    assert torch.equal(listed(y_pred=[MetaTensor(p) for p in pred], y=[MetaTensor(i) for i in y]), expected)
    for part in (slice(0, 3), slice(3, 4), slice(4, None)):  # the second has no lesion
        apart(y_pred=pred[part], y=y[part])
    assert torch.equal(apart.get_buffer(), expected)
    assert whole.aggregate() == listed.aggregate() == apart.aggregate()
    whole.reset()
    with pytest.raises(ValueError, match=f"{metric.__name__} has nothing to aggregate"):
        whole.aggregate()
    assert torch.equal(whole(y_pred=pred, y=y), expected)  # noise begins anew


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_input_is_refused(metric, study):
    pred, y = study
    for given in (None, y[:, :4], y[:, :, 0]):
        with pytest.raises(ValueError, match=rf"{metric.__name__} expects y as \(B, 5, H, W\)"):
            metric()(y_pred=pred, y=given)
    for fused in (pred[:, :1], pred[:2], pred[..., 1:]):
        with pytest.raises(ValueError, match=f"{metric.__name__} expects y_pred"):
            metric()(y_pred=fused, y=y)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="anatomy and overlay are accepted"):
        ContrastRecoveryMetric(source="ct")
    with pytest.raises(ValueError, match="fused and sources are accepted"):
        ObserverAreaMetric(sees="overlay")


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_and_handlers_travel_to_other_processes(metric, study):
    pred, y = study
    copy = pickle.loads(pickle.dumps(metric()))
    assert torch.equal(copy(y_pred=pred, y=y), metric()(y_pred=pred, y=y))
    handler = getattr(observers, metric.__name__.removesuffix("Metric"))
    pickle.loads(pickle.dumps(handler(output_transform=lesions_from_engine(), half=12)))


@pytest.mark.slow
def test_a_process_without_lesions_takes_part(study, tmp_path):
    """The first of two processes has all lesions, the second none: both know the same area."""
    pred, y = study
    torch.save((pred, y), tmp_path / "study.pt")
    program = tmp_path / "rank.py"
    program.write_text("""
import sys

import torch
import torch.distributed as dist

from evaluation.observers import LostLesionsMetric, ObserverAreaMetric

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
pred, y = torch.load(f"{folder}/study.pt")
metrics = LostLesionsMetric(), ObserverAreaMetric()
if rank == 0:
    for metric in metrics:
        metric(y_pred=pred, y=y)
torch.save([metric.aggregate().item() for metric in metrics], f"{folder}/{rank}.pt")
dist.destroy_process_group()
""")
    root = Path(observers.__file__).parents[2]
    ranks = [
        subprocess.Popen([sys.executable, program, str(rank), tmp_path], cwd=root, env={"PYTHONPATH": str(root)})
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    alone = LostLesionsMetric(), ObserverAreaMetric()
    for metric in alone:
        metric(y_pred=pred, y=y)
    expected = [metric.aggregate().item() for metric in alone]
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(expected, abs=1e-3)


class Fuse(torch.nn.Module):
    """Fuses two pairs that come as four channels."""

    def forward(self, image):
        return (0.3 * image[:, ::2] + 0.7 * image[:, 1::2]).clamp(0, 1)


@pytest.mark.parametrize("decollate", [True, False], ids=["lists", "batches"])
def test_in_an_evaluator(study, decollate):
    _, y = study
    targets = {
        "recovery": {"_target_": "evaluation.observers.ContrastRecovery"},
        "lost": {"_target_": "evaluation.observers.LostLesions", "threshold": 0.71},
        "area": {"_target_": "evaluation.observers.ObserverArea", "save_details": False},
    }
    for target in targets.values():
        target["output_transform"] = {"_target_": "evaluation.observers.lesions_from_engine"}
    parser = ConfigParser(targets)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": i[:4], "middles": i[4:]} for i in y]), batch_size=3),
        network=Fuse(),
        inferer=SimpleInferer(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], batch["middles"]),
        key_val_metric={"recovery": parser.get_parsed_content("recovery")},
        additional_metrics={name: parser.get_parsed_content(name) for name in ("lost", "area")},
        decollate=decollate,
    )
    engine.run()
    assert engine.state.metrics["recovery"] == pytest.approx(0.7, abs=1e-4)
    assert engine.state.metrics["lost"] == 1
    assert 0.5 < engine.state.metrics["area"] <= 1
    assert len(engine.state.metric_details["recovery"]) == int((y[:, 4] > 0).sum())
    assert "area" not in engine.state.metric_details
