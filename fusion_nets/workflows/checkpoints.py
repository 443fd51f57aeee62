"""Checkpoints of runs that may be killed at any moment and go on when they are started again."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from monai.transforms import Randomizable
from torch.optim.swa_utils import AveragedModel

from fusion_nets.files import whole_file

from .processes import end_in_one_line, is_first_process

__all__ = ["AverageWeights", "BestCheckpoint", "EpochSeed", "RunningCheckpoint", "load_weights", "stopping_score"]


class RunningCheckpoint:
    """Save a run at the end of every epoch, and go on from there when the run is started again.

    MONAI's ``CheckpointSaver`` writes in place and leaves it to the user to find the file to go on from; this handler
    keeps one file, always whole. Put it last in the trainer's handlers, so that it sees what the others did. In a
    distributed run every process loads and the first one saves.

    Args:
        path: the checkpoint.
        objects: what to save, by name, the trainer aside, which is always saved. Each has ``state_dict`` and
            ``load_state_dict``.
    """

    def __init__(self, path: str | os.PathLike[str], objects: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.objects = dict(objects)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.EXCEPTION_RAISED, end_in_one_line)

    def load(self, engine: Engine) -> None:
        """Restore the last epoch's state, where there is one, and say so."""
        if not self.path.is_file():
            engine.logger.info(f"Starting anew: no checkpoint at {self.path}")
            return
        CheckpointLoader(
            str(self.path),
            {**self.objects, "trainer": engine},
            name=engine.logger.name,
            map_location="cpu",  # type: ignore[arg-type]
        )(engine)
        engine.logger.info(
            f"Going on from {self.path}: epoch {engine.state.epoch} of {engine.state.max_epochs} is done"
        )

    def save(self, engine: Engine) -> None:
        """Save the state after an epoch."""
        if is_first_process():
            objects = {**self.objects, "trainer": engine}
            with whole_file(self.path) as partial:
                torch.save({name: obj.state_dict() for name, obj in objects.items()}, partial)


class BestCheckpoint:
    """Save a network's weights whenever a validation metric is better than ever before, also across restarts.

    A value that is not finite is named in a warning, and is never the best.

    Attach it to the evaluator, and name it among the objects of the trainer's :class:`RunningCheckpoint`.

    Args:
        path: the file that always holds the best weights.
        network: whose weights to save.
        metric: its name in the evaluator's metrics.
        lower_is_better: for an error.
    """

    def __init__(
        self, path: str | os.PathLike[str], network: torch.nn.Module, metric: str, lower_is_better: bool = False
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.metric = metric
        self.sign = -1 if lower_is_better else 1
        self.best: float | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare, and save if better."""
        value = float(engine.state.metrics[self.metric])
        if not math.isfinite(value):
            others = [name for name, of in engine.state.metrics.items() if name != self.metric and _is_strange(of)]
            which = f" ({', '.join(others)} too)" if others else ""
            best = "unknown" if self.best is None else f"{self.best:.4f}"
            engine.logger.warning(f"{self.metric} is {value}{which}: no weights are saved of it; the best stays {best}")
            return
        if self.best is not None and not self.sign * value > self.sign * self.best:
            return
        self.best = value
        if is_first_process():
            self.write()
            engine.logger.info(f"Best {self.metric} so far, {value:.4f}: saved {self.path}")

    def write(self) -> None:
        """Save the network's weights."""
        with whole_file(self.path) as partial:
            torch.save(self.network.state_dict(), partial)

    def state_dict(self) -> dict[str, float | None]:
        """The best value."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Restore the best value; one that is not finite, as earlier versions kept it, counts as none."""
        best = state["best"]
        self.best = best if best is not None and math.isfinite(best) else None


def stopping_score(metric: str) -> Callable[[Engine], float]:
    """By what MONAI's ``EarlyStopHandler`` stops: a metric that counts as no improvement where it is not finite.

    As it is, NaN would be better than any value, and any value better than NaN: training would never stop.

    Args:
        metric: its name in the evaluator's metrics; higher is better.
    """

    def score(engine: Engine) -> float:
        value = float(engine.state.metrics[metric])
        return value if math.isfinite(value) else -math.inf

    return score


def _is_strange(value: object) -> bool:
    """Whether it is a single number that is not finite."""
    try:
        return not math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # no number, or several
        return False


class AverageWeights(AveragedModel):
    """Average a network's weights over the iterations of its training, exponentially; it fuses as the network does.

    What is averaged is steadier than the last iteration's, and better. At first few iterations are averaged, later
    those of about ``1 / (1 - decay)`` iterations. Weights that are not trained stay as they are.

    Args:
        network: whose weights; its average is ``module``.
        decay: of the average, when many iterations are done.
    """

    def __init__(self, network: torch.nn.Module, decay: float = 0.999) -> None:
        def average(averaged: Any, current: Any, count: torch.Tensor | int) -> None:
            share = 1 - min(decay, (1 + int(count)) / (20 + int(count)))
            torch._foreach_lerp_(averaged, current, share)

        super().__init__(network, multi_avg_fn=average)
        self.network = [network]  # in a list, so that it is no part of this module

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.update_parameters(self.network[0]))


class EpochSeed:
    """Seed everything random at the start of every epoch, so that a run that went on equals one never stopped.

    Args:
        seed: of the run; epoch and process rank are mixed in.
        transforms: random transforms that run in the main process.
    """

    def __init__(self, seed: int, transforms: Randomizable | None = None) -> None:
        self.seed = seed
        self.transforms = transforms

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch, rank]).generate_state(1)[0])
        torch.manual_seed(seed)
        np.random.seed(seed)
        if self.transforms is not None:
            self.transforms.set_random_state(seed)


def load_weights(network: torch.nn.Module, path: str | os.PathLike[str], made_by: str) -> None:
    """Load the weights of a part that is trained before the rest.

    Args:
        network: takes them.
        path: a state dict.
        made_by: the configuration that makes them, for those who have not run it yet.

    Raises:
        FileNotFoundError: if they are not there.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such weights; {made_by} makes them")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
