import csv

import pytest
import torch
from fusion_images import FUNCTIONS
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, MetricsSaver, from_engine
from monai.inferers import SimpleInferer

import evaluation
from evaluation import FusionSlices, FusionSSIM, functional

# the images are too small for MS-SSIM
HANDLERS = {name: getattr(evaluation, f"Fusion{name}") for name in FUNCTIONS if name != "MS-SSIM"}
OUTPUT = from_engine(["pred", "image"])


class Mean(torch.nn.Module):
    def forward(self, image):
        return image.mean(1, keepdim=True)


def pairs():
    images = torch.rand(5, 2, 48, 44, generator=torch.Generator().manual_seed(0))
    images[3] = 0.0  # a pair without content
    return [
        {"image": MetaTensor(image, meta={"filename_or_obj": f"case-{i}.png"}), "label": torch.zeros(1)}
        for i, image in enumerate(images)
    ]


def evaluator(decollate, metrics, handlers=()):
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(pairs()), batch_size=2),
        network=Mean(),
        inferer=SimpleInferer(),
        key_val_metric=metrics,
        val_handlers=list(handlers),
        decollate=decollate,
    )


@pytest.fixture(scope="module")
def expected():
    """What the functions say about each pair, as 8-bit images; the blank one has no value."""
    images = torch.stack([pair["image"].as_tensor() for pair in pairs()])
    pred = Mean()(images)
    levels = [functional.quantise(x) for x in (pred, images[:, :1], images[:, 1:])]
    values = functional.fusion_metrics(*levels, HANDLERS, 255)
    for value in values.values():
        value[3] = torch.nan
    return values


def headers(batch):
    """The headers of a batch, taken apart by the engine or not."""
    if isinstance(batch, list):
        return [item["image"].meta for item in batch]
    return [{"filename_or_obj": name} for name in batch["image"].meta["filename_or_obj"]]


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # MetricsSaver, on the blank pair
@pytest.mark.parametrize("decollate", [True, False], ids=["lists", "batches"])
def test_in_an_evaluator(decollate, expected, tmp_path):
    saver = MetricsSaver(str(tmp_path), metric_details="*", batch_transform=headers, summary_ops=["mean", "notnans"])
    metrics = {name: handler(output_transform=OUTPUT) for name, handler in HANDLERS.items()}
    engine = evaluator(decollate, metrics, [saver])
    engine.run()
    for name, values in expected.items():
        assert engine.state.metrics[name] == pytest.approx(values.nanmean().item())
        torch.testing.assert_close(engine.state.metric_details[name][:, 0], values, equal_nan=True)
        rows = list(csv.reader((tmp_path / f"{name}_raw.csv").open()))[1:]
        assert [row[0] for row in rows] == [f"case-{i}.png" for i in range(5)]
        assert [float(row[1]) for row in rows] == pytest.approx(values.tolist(), nan_ok=True, abs=1e-4)
        summary = next(csv.DictReader((tmp_path / f"{name}_summary.csv").open()))
        assert float(summary["notnans"]) == 4
    assert (tmp_path / "metrics.csv").is_file()


@pytest.mark.parametrize("name", HANDLERS)
def test_by_name_from_a_bundle(name, expected):
    handler = HANDLERS[name].__name__
    parser = ConfigParser(
        {
            "imports": ["$import monai"],
            "metric": {
                "_target_": f"evaluation.{handler}",
                "quantise": True,
                "reduction": "sum",
                "output_transform": "$monai.handlers.from_engine(['pred', 'image'])",
            },
        }
    )
    metric = parser.get_parsed_content("metric")
    assert isinstance(metric, IgniteMetricHandler)
    engine = evaluator(True, {name: metric})
    engine.run()
    assert engine.state.metrics[name] == pytest.approx(expected[name].nansum().item())


def test_options_reach_the_metric():
    plain = {
        name: handler(data_range=2.0, quantise=False, output_transform=OUTPUT, save_details=False)
        for name, handler in HANDLERS.items()
    }
    engine = evaluator(True, plain)
    engine.run()
    images = torch.stack([pair["image"].as_tensor() for pair in pairs() if pair["image"].any()])
    expected = functional.fusion_metrics(Mean()(images), images[:, :1], images[:, 1:], HANDLERS, 2.0)
    for name, values in expected.items():
        assert engine.state.metrics[name] == pytest.approx(values.mean().item())
    assert not hasattr(engine.state, "metric_details") or not engine.state.metric_details


def test_the_number_of_slices_is_saved_beside(tmp_path):
    saver = MetricsSaver(str(tmp_path), metric_details="*", batch_transform=headers)
    evaluator(True, {"Slices": FusionSlices(output_transform=OUTPUT)}, [saver]).run()
    rows = list(csv.DictReader((tmp_path / "Slices_raw.csv").open()))
    assert [float(row["mean"]) for row in rows] == [1, 1, 1, 0, 1]


def test_a_second_run_starts_afresh(expected):
    engine = evaluator(True, {"SSIM": FusionSSIM(output_transform=OUTPUT)})
    engine.run()
    first = engine.state.metrics["SSIM"]
    engine.run()
    assert engine.state.metrics["SSIM"] == first
    assert len(engine.state.metric_details["SSIM"]) == 5


def test_public_names():
    for module in (evaluation, evaluation.metrics, evaluation.handlers):
        assert sorted(module.__all__) == module.__all__
        assert all(hasattr(module, name) for name in module.__all__)
    names = {f"Fusion{name.replace('-', '')}" for name in (*FUNCTIONS, "Slices", "Flicker", "SSIM3D")}
    assert names == set(evaluation.handlers.__all__)
    assert {f"{name}Metric" for name in names} == set(evaluation.metrics.__all__)
