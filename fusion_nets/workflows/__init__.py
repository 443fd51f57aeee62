"""What MONAI's engines, inferers and handlers lack for fusion, and the making of image-text datalists."""

from .checkpoints import BestCheckpoint, EpochSeed, RunningCheckpoint
from .described import CriticBatch, DescribedBatch
from .describing import describe_pairs
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
    "describe_pairs",
]
