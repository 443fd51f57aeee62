"""Heads, scanners and lesions whose truth is known: training pairs without end, and a study to try things on."""

from .pairs import MODALITIES, SimulatedPair, simulate_pair
from .sample_study import write_sample_study
from .simulated_lesions import KINDS, Lesion
from .simulated_pairs import SimulatedPairs

__all__ = [
    "KINDS",
    "MODALITIES",
    "Lesion",
    "SimulatedPair",
    "SimulatedPairs",
    "simulate_pair",
    "write_sample_study",
]
