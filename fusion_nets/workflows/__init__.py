"""What MONAI's engines, inferers and handlers lack for fusion."""

from .checkpoints import BestCheckpoint, EpochSeed, RunningCheckpoint
from .described import CriticBatch, DescribedBatch
from .diffusion import NoisyBatch
from .fusion import FeatureReplay, PairBatch
from .inference import PairStream, SlicewiseInferer

__all__ = [
    "BestCheckpoint",
    "CriticBatch",
    "DescribedBatch",
    "EpochSeed",
    "FeatureReplay",
    "NoisyBatch",
    "PairBatch",
    "PairStream",
    "RunningCheckpoint",
    "SlicewiseInferer",
]
