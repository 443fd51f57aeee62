"""What MONAI's engines, inferers and handlers lack for fusion."""

from .checkpoints import BestCheckpoint, EpochSeed, RunningCheckpoint
from .diffusion import NoisyBatch
from .fusion import FeatureReplay, PairBatch
from .inference import PairStream, SlicewiseInferer
from .preservation import PairReport, ReportPreservation, ReportSaver

__all__ = [
    "BestCheckpoint",
    "EpochSeed",
    "FeatureReplay",
    "NoisyBatch",
    "PairBatch",
    "PairReport",
    "PairStream",
    "ReportPreservation",
    "ReportSaver",
    "RunningCheckpoint",
    "SlicewiseInferer",
]
