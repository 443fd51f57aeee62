"""Reading and writing studies, and the sample study to try things on."""

from .montage import write_montage
from .sample import write_sample_study

__all__ = ["write_montage", "write_sample_study"]
