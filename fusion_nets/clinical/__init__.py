"""Reading and writing studies, and the sample study to try things on."""

from .sample import write_sample_study

__all__ = ["write_sample_study"]
