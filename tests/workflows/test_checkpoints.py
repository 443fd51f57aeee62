import logging

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose, RandGaussianNoised

from fusion_nets.workflows import (
    AverageWeights,
    BestCheckpoint,
    EarlyStop,
    EpochSeed,
    RunningCheckpoint,
    stopping_score,
)


def make_run(folder, epochs, stop_after=None):
    """A small real training: random data order, random transform, momentum, schedule."""
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    generator = torch.Generator().manual_seed(7)
    data = [
        {"image": torch.randn(4, generator=generator), "label": torch.randn(1, generator=generator)} for _ in range(12)
    ]
    transform = Compose([RandGaussianNoised("image", prob=1.0, std=0.5)])
    loader = DataLoader(CacheDataset(data, transform, progress=False), batch_size=4, shuffle=True)
    average = AverageWeights(network)
    checkpoint = RunningCheckpoint(
        folder / "last.pt", {"network": network, "average": average, "optimizer": optimizer, "lr_scheduler": schedule}
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        decollate=False,
        train_handlers=[EpochSeed(3, transform), LrScheduleHandler(schedule, print_lr=False), average, checkpoint],
    )
    if stop_after is not None:

        @trainer.on(Events.ITERATION_COMPLETED)
        def killed(engine):
            if engine.state.iteration == stop_after:
                raise KeyboardInterrupt

    return trainer, torch.nn.ModuleDict({"network": network, "average": average})


@pytest.mark.parametrize("stop_after", [4, 8, 9])
def test_a_run_that_went_on_equals_one_that_was_never_stopped(tmp_path, stop_after, caplog):
    trainer, whole = make_run(tmp_path / "whole", 6)
    trainer.run()

    stopped, _ = make_run(tmp_path / "parts", 6, stop_after)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again, network = make_run(tmp_path / "parts", 6)
    with caplog.at_level(logging.INFO):
        again.run()
    assert f"Going on from {tmp_path / 'parts' / 'last.pt'}: epoch" in caplog.text
    assert again.state.epoch == 6
    for name, value in whole.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_a_finished_run_stays_finished(tmp_path):
    trainer, _ = make_run(tmp_path, 3)
    trainer.run()
    again, _ = make_run(tmp_path, 3, stop_after=1)
    again.run()
    assert again.state.epoch == 3


def test_a_new_run_says_so(tmp_path, caplog):
    trainer, _ = make_run(tmp_path, 1)
    with caplog.at_level(logging.INFO):
        trainer.run()
    assert "Starting anew" in caplog.text


def test_the_running_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    trainer, _ = make_run(tmp_path, 1)
    trainer.run()
    before = (tmp_path / "last.pt").read_bytes()

    def half(obj, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    again, _ = make_run(tmp_path, 2)
    with pytest.raises(OSError, match="disk full"):
        again.run()
    assert (tmp_path / "last.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(("lower_is_better", "kept"), [(False, 3.0), (True, 1.0)])
def test_best_checkpoint_keeps_the_best_also_across_restarts(tmp_path, lower_is_better, kept):
    network = torch.nn.Linear(1, 1, bias=False)

    def validate(best, values):
        engine = Engine(lambda engine, batch: None)
        best.attach(engine)
        for value in values:
            network.weight.data.fill_(value)
            engine.state.metrics["score"] = value
            engine.fire_event(Events.EPOCH_COMPLETED)

    first = BestCheckpoint(tmp_path / "model.pt", network, "score", lower_is_better)
    validate(first, [2.0, 3.0, 1.0])
    second = BestCheckpoint(tmp_path / "model.pt", network, "score", lower_is_better)
    second.load_state_dict(first.state_dict())
    validate(second, [2.0, 2.5])
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == kept


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named_and_ends_nothing(tmp_path, strange, caplog):
    """Neither as the first value nor later; what an earlier version restores as the best does not, either."""
    network = torch.nn.Linear(1, 1, bias=False)
    best = BestCheckpoint(tmp_path / "model.pt", network, "score")
    best.load_state_dict({"best": strange})
    engine = Engine(lambda engine, batch: None)
    best.attach(engine)
    for value, kept in ((strange, None), (1.0, 1.0), (strange, 1.0), (0.5, 1.0), (2.0, 2.0)):
        caplog.clear()
        network.weight.data.fill_(value)
        engine.state.metrics |= {"score": torch.tensor(value), "VIF": value, "Qabf": 0.5, "several": torch.ones(2)}
        engine.fire_event(Events.EPOCH_COMPLETED)
        assert ("score is" in caplog.text) == (value == strange or value != value)
        assert ("VIF too" in caplog.text) == (value == strange or value != value)
        assert "Qabf" not in caplog.text
        assert best.best == kept
        if kept is None:
            assert not (tmp_path / "model.pt").exists()
        else:
            assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == kept


def test_training_stops_early_after_values_that_are_not_finite():
    trainer, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    EarlyStop(3, stopping_score("score"), trainer).attach(evaluator)
    for value, stopped in ((float("nan"), False), (1.0, False), (float("nan"), False), (0.5, False), (0.9, True)):
        evaluator.state.metrics["score"] = value
        evaluator.fire_event(Events.EPOCH_COMPLETED)
        assert trainer.should_terminate == stopped


@pytest.mark.parametrize(("decay", "kept"), [(0.999, (2 / 21, 3 / 22)), (0.05, (0.05, 0.05))])
def test_weights_are_averaged_over_iterations(decay, kept):
    """By hand: the first iteration's are taken as they are; the later ones weigh less the more there were before."""
    network = torch.nn.Linear(1, 1, bias=False)
    averaged = AverageWeights(network, decay)
    seen = []

    def step(engine, value):
        network.weight.data.fill_(value)

    trainer = Engine(step)
    averaged.attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(averaged.module.weight.item()))
    trainer.run([1.0, 3.0, -1.0])
    second = 1 * kept[0] + 3 * (1 - kept[0])
    third = second * kept[1] - 1 * (1 - kept[1])
    assert seen == pytest.approx([1.0, second, third])
    assert network.weight.item() == -1.0, "the network itself is trained on as it is"
    assert averaged(torch.ones(1, 1)).item() == pytest.approx(third)


def test_average_of_frozen_weights_is_what_they_are():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 1))
    network[0].requires_grad_(False)
    averaged = AverageWeights(network)
    optimizer = torch.optim.SGD(network[1].parameters(), lr=0.1)

    def step(engine, batch):
        optimizer.zero_grad()
        network(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()

    trainer = Engine(step)
    averaged.attach(trainer)
    trainer.run(range(30))
    for name, value in network[0].state_dict().items():
        assert torch.equal(averaged.module[0].state_dict()[name], value), name
    assert not torch.equal(averaged.module[1].weight, network[1].weight)
    assert {name.partition(".")[0] for name in averaged.state_dict()} == {"n_averaged", "module"}, "no second network"


def test_epoch_seed_differs_from_epoch_to_epoch_and_repeats():
    def numbers(epochs):
        drawn = []
        engine = Engine(lambda engine, batch: drawn.append(torch.rand(1).item()))
        EpochSeed(5).attach(engine)
        engine.run([0], max_epochs=epochs)
        return drawn

    assert numbers(3) == numbers(3)
    assert len(set(numbers(3))) == 3


def stopped_early(path, scores, stop_after=None):
    """The epochs that a training went through, whose validations score so."""
    epochs = []
    trainer, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    early = EarlyStop(2, stopping_score("score"))
    early.set_trainer(trainer)
    early.attach(evaluator)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate():
        if trainer.state.epoch == stop_after:
            raise KeyboardInterrupt
        epochs.append(trainer.state.epoch)
        evaluator.state.metrics["score"] = scores[trainer.state.epoch - 1]
        evaluator.fire_event(Events.EPOCH_COMPLETED)

    RunningCheckpoint(path, {"early_stop": early}).attach(trainer)
    trainer.run([0], max_epochs=len(scores))
    return epochs


@pytest.mark.parametrize("stop_after", [2, 3, 4])
def test_a_run_that_went_on_stops_as_early(tmp_path, stop_after):
    scores = [0.1, 0.5, 0.4, 0.3, 0.2, 0.6]
    assert stopped_early(tmp_path / "whole.pt", scores) == [1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        stopped_early(tmp_path / "last.pt", scores, stop_after)
    assert stopped_early(tmp_path / "last.pt", scores) == list(range(stop_after, 5))
    assert stopped_early(tmp_path / "last.pt", scores) == [], "what stopped early stays so"


def test_a_checkpoint_of_an_earlier_version_lacks_something(tmp_path, caplog):
    trainer, _ = make_run(tmp_path, 1)
    trainer.run()
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    del saved["average"]
    torch.save(saved, tmp_path / "last.pt")
    again, _ = make_run(tmp_path, 2)
    again.run()
    assert f"{tmp_path / 'last.pt'}: has no average, as those of earlier versions; it begins anew" in caplog.text
    assert again.state.epoch == 2


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_checkpoint_that_is_cut_short_is_named(tmp_path, kept):
    trainer, _ = make_run(tmp_path, 1)
    trainer.run()
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:kept])
    again, _ = make_run(tmp_path, 2)
    with pytest.raises(ValueError, match=r"last\.pt: cannot be read .*remove it to start anew"):
        again.run()
