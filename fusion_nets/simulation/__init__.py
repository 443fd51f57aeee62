"""Heads, scanners and lesions whose truth is known: training pairs without end, and a study to try things on."""

from .pairs import MODALITIES, SimulatedPair, simulate_pair, simulate_sources
from .sample_study import write_sample_study
from .simulated_lesions import KINDS, Lesion
from .simulated_pairs import SimulatedPairs, SimulatedSources

__all__ = [
    "KINDS",
    "MODALITIES",
    "Lesion",
    "SimulatedPair",
    "SimulatedPairs",
    "SimulatedSources",
    "simulate_pair",
    "simulate_sources",
    "write_sample_study",
]
