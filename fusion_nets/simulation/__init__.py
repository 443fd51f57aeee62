"""Heads, scanners and lesions whose truth is known: pairs to train on, and the sample study."""

from .pairs import SimulatedPair, simulate_pair
from .sample_study import write_sample_study
from .simulated_pairs import SimulatedPairs

__all__ = ["SimulatedPair", "SimulatedPairs", "simulate_pair", "write_sample_study"]
