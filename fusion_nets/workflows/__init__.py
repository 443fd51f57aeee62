"""What MONAI's engines and handlers lack for fusion."""

from .checkpoints import BestCheckpoint, EpochSeed, RunningCheckpoint, save_atomically
from .diffusion import NoisyBatch

__all__ = ["BestCheckpoint", "EpochSeed", "NoisyBatch", "RunningCheckpoint", "save_atomically"]
