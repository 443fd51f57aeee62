"""Images of a head whose truth is known: the sample study to try things on."""

from .sample_study import write_sample_study

__all__ = ["write_sample_study"]
