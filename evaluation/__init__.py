"""How good a fused image is: the field's metrics as functions, MONAI metrics and Ignite handlers."""

from typing import TYPE_CHECKING

from evaluation import functional, handlers, metrics
from evaluation.functional import *  # noqa: F403
from evaluation.handlers import *  # noqa: F403
from evaluation.metrics import *  # noqa: F403

__all__ = sorted([*functional.__all__, *handlers.__all__, *metrics.__all__])

if TYPE_CHECKING:
    from typing import Any

    # metrics and handlers follow from a table, see there
    def __getattr__(name: str) -> Any: ...
