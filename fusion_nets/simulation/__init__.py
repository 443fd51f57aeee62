"""Simulated images whose truth is known."""

from .pairs import SimulatedPair, simulate_pair
from .simulated_pairs import SimulatedPairs

__all__ = ["SimulatedPair", "SimulatedPairs", "simulate_pair"]
