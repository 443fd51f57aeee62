"""Engines that run a network fast: torch, OpenVINO and ONNX Runtime behind the network's own signature."""

from __future__ import annotations

import logging
import os
import threading
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import nn

from fusion_nets.networks import DMFNet, FusionUNet, TextGuidedUNet
from fusion_nets.resources import total_memory

from .converted import STARTED, EnginePart, Run
from .recorded import RecordedRun
from .shown import Box, tiles

__all__ = ["ENGINES", "PRECISIONS", "EngineChoice", "EngineNetwork", "engine_choices"]

ENGINES = ("auto", "torch", "openvino", "onnxruntime")

PRECISIONS = ("auto", "float32", "bfloat16")

_NEEDS = {"torch": ("torch",), "openvino": ("openvino", "onnx"), "onnxruntime": ("onnxruntime", "onnx")}
"""Packages; both others read what torch exports as ONNX."""

_EXTRA = {"openvino": "fast", "onnxruntime": "export"}

_BYTES = 4500
"""Of memory that a pixel takes in a network: DM-FNet's in torch, the hungriest, by tests/benchmarks/large_study.py."""

_ROOM = 7 * 2**28
"""Bytes that a slice may take on a processor: less than 2.5 GB with all that is imported."""

_MEAN, _MOST = 0.3, 6.0
"""8-bit levels by which an engine may depart from torch in float32."""


class EngineChoice(NamedTuple):
    """What runs a network.

    Attributes:
        engine: "torch", "openvino" or "onnxruntime".
        precision: "float32" or "bfloat16".
    """

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} in {self.precision}"


_FASTEST_FIRST = (
    EngineChoice("openvino", "bfloat16"),
    EngineChoice("torch", "bfloat16"),
    EngineChoice("openvino", "float32"),
    EngineChoice("onnxruntime", "float32"),
    EngineChoice("torch", "float32"),
)
"""What each keeps and takes is measured by tests/benchmarks/engines.py."""


def engine_choices(
    engine: str = "auto", precision: str = "auto", device: str | torch.device = "cpu"
) -> list[EngineChoice]:
    """What may run a network here, in the order in which it is tried.

    "auto" is what the environment says (FUSION_NETS_ENGINE, FUSION_NETS_PRECISION), and otherwise what is fastest of
    all that is installed and that this processor computes in hardware. On a GPU it is torch in float32.

    Args:
        engine: one of :data:`ENGINES`.
        precision: one of :data:`PRECISIONS`.
        device: where torch computes.

    Raises:
        ValueError: for another name, or where the two do not go together.
        ModuleNotFoundError: for an engine that is named and not installed; the message says how to install it.
    """
    engine, precision = (
        _said(name, value, accepted)
        for name, value, accepted in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS))
    )
    on_processor = torch.device(device).type == "cpu"
    if engine not in ("auto", "torch"):
        missing = _missing(engine)
        if missing:
            raise ModuleNotFoundError(
                f"engine is {engine!r}, and {' and '.join(missing)} is not installed; "
                f'pip install "fusion-nets[{_EXTRA[engine]}]" installs it, or engine torch is accepted'
            )
        if not on_processor:
            raise ValueError(f"engine is {engine!r}, which computes on the processor alone; device cpu is accepted")
        if engine == "onnxruntime" and precision == "bfloat16":
            raise ValueError("precision is 'bfloat16', and onnxruntime computes in float32; float32 is accepted")
    if engine != "torch" and precision == "bfloat16" and on_processor and not _has_bfloat16():
        raise ValueError("precision is 'bfloat16', which this processor does not compute; float32 is accepted")
    if not on_processor:
        if precision == "bfloat16" and torch.device(device).type == "cuda":
            logging.getLogger(__name__).warning(
                "precision is 'bfloat16', which on CUDA changes up to 4 of 255 grey levels and saves little time; "
                "float32 is accepted"
            )
        return [EngineChoice("torch", "float32" if precision == "auto" else precision)]
    if engine == "torch" and precision != "auto":
        return [EngineChoice(engine, precision)]
    return [
        choice
        for choice in _FASTEST_FIRST
        if engine in ("auto", choice.engine)
        and precision in ("auto", choice.precision)
        and not _missing(choice.engine)
        and (choice.precision == "float32" or _has_bfloat16())
    ] or [EngineChoice("torch", precision)]


def _said(name: str, value: object, accepted: tuple[str, ...]) -> str:
    """One of the names that are accepted, of an option or, where that is "auto", of the environment."""
    variable = f"FUSION_NETS_{name.upper()}"
    where, said = (variable, os.environ[variable]) if value == "auto" and os.environ.get(variable) else (name, value)
    if not isinstance(said, str) or said not in accepted:
        raise ValueError(f"{where} is {' '.join(repr(said).split())[:200]}; accepted are {', '.join(accepted)}")
    return said


def _missing(engine: str) -> list[str]:
    missing = []
    for name in _NEEDS[engine]:
        try:
            there = find_spec(name) is not None
        except ValueError:  # a module without a specification, as where an import was forbidden
            there = False
        if not there:
            missing.append(name)
    return missing


def _has_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class EngineNetwork(nn.Module):
    """Run a network of this library by the fastest engine that keeps its result.

    It is called as the network is. What an engine cannot take over stays in torch in float32: the noise that DM-FNet
    draws, and SMFusion's search for what a text names. For other networks than the bundles', of which nothing is
    measured, "auto" is torch in float32.

    An image for which a quarter of the memory would not be enough, or 1.75 GiB on a processor, goes through the network
    in tiles with its ``reach`` around them. Results are those of the whole image, within one 8-bit level (DM-FNet's
    features know the whole image; SMFusion's differ by rounding alone), and depend on the machine's memory, not on what
    of it is free. A network without a ``reach`` gets the whole image.

    On CUDA torch's own engine launches small images' work at once, as a CUDA graph, from the second of a size on; see
    :class:`~fusion_nets.workflows.recorded.RecordedRun`. Their results are the same.

    The network is converted when it is first used, so that weights may be loaded until then, and again where they have
    changed since. Before an engine is trusted it fuses a small image as torch does, to 6 of 255 levels and .3 in the
    mean; one that does not, or cannot, is passed over with a warning, unless it was named. The other engines have the
    network for two sources: images of more go through torch.

    Args:
        network: what is run, in evaluation mode; moved to the device.
        device: where torch computes.
        engine: one of :data:`ENGINES`.
        precision: one of :data:`PRECISIONS`.

    Raises:
        ValueError: see :func:`engine_choices`.
        ModuleNotFoundError: likewise.

    Examples:
        >>> network = EngineNetwork(TextGuidedUNet(8).eval(), engine="torch", precision="float32")
        >>> network(torch.rand(1, 2, 40, 50)).shape, network.told()["name"]
        (torch.Size([1, 1, 40, 50]), 'torch')
    """

    def __init__(
        self, network: nn.Module, device: str | torch.device = "cpu", engine: str = "auto", precision: str = "auto"
    ) -> None:
        super().__init__()
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.is_named = engine != "auto"
        self.choices = engine_choices(engine, precision, device)
        if self.is_named and engine != "torch" and not isinstance(network, (DMFNet, FusionUNet, TextGuidedUNet)):
            raise ValueError(
                f"engine is {engine!r}, and the network is a {type(network).__name__}; engine torch is accepted"
            )
        if not self.is_named and not _is_measured(network):
            self.choices = [EngineChoice("torch", "float32" if precision == "auto" else precision)]
        self._parts = list(network.modules())  # looked at for every image, and a state_dict takes milliseconds
        self._run: Run | None = None
        self._chosen = self.choices[0]
        self._weights: tuple[int, ...] = ()
        self._noise: tuple[torch.Size, torch.Tensor, torch.Tensor] | None = None
        self._lock = threading.Lock()
        self.eval()

    def extra_repr(self) -> str:
        """What it runs by, as a record of a case compares it."""
        return str(self.choices[0])

    @property
    def reach(self) -> int | None:
        """Pixels around what shows that a result depends on; None for all."""
        return getattr(self.network, "reach", None)

    @property
    def stride(self) -> int:
        """Of which a box begins and ends at multiples."""
        return getattr(self.network, "stride", 1)

    def told(self, sources: int = 2) -> dict[str, str]:
        """What runs it on images of so many sources, with its version: "name", "version" and "precision"."""
        if sources == 2:
            self._prepare()
        chosen = self._chosen if sources == 2 else self._of_several()
        version = torch.__version__ if chosen.engine == "torch" else metadata.version(chosen.engine)
        return {"name": chosen.engine, "version": version, "precision": chosen.precision}

    def _of_several(self) -> EngineChoice:
        """What runs images of more than two sources, which the other engines do not have the network for.

        Raises:
            ValueError: if one of these was named.
        """
        if self.is_named and self.choices[0].engine != "torch":
            raise ValueError(
                f"engine is {self.choices[0].engine!r}, which runs an anatomy and one overlay; for several engine "
                "torch is accepted"
            )
        is_asked = all(choice.precision == "bfloat16" for choice in self.choices)
        return EngineChoice("torch", "bfloat16" if is_asked else "float32")

    def forward(self, image: torch.Tensor, *args: Any, box: Box | None = None, **kwargs: Any) -> torch.Tensor:
        """Fuse as the network does.

        Args:
            image: (B, S, H, W), the anatomy and one to three overlays.
            args: what else the network takes.
            box: rows and columns outside of which all of the image is black, with the network's reach around what is
                not; there the result is black.
            kwargs: what else the network takes.
        """
        network = self.network
        if network.training or not isinstance(network, (DMFNet, FusionUNet, TextGuidedUNet)):
            return self._torch(network)(image, *args, **kwargs)
        image = image.as_subclass(torch.Tensor)
        noise: tuple[torch.Tensor, ...] = ()
        if isinstance(network, TextGuidedUNet):
            image = self._emphasised(image, *args, **kwargs)
        elif args or kwargs:
            return network(image, *args, **kwargs)
        elif isinstance(network, DMFNet):
            noise = self._drawn(image)
        run = self._prepare() if image.shape[1] == 2 else self._several()
        whole = (slice(0, image.shape[2]), slice(0, image.shape[3]))
        parts = [(whole, whole)] if box is None else [(box, box)]
        if self.reach is not None:
            margin = max(self.reach, 4 * self.stride)  # which the features at DM-FNet's coarsest level want
            parts = tiles(parts[0][0], margin, self.stride, self._pixels(image.device) * 2 // image.shape[1])
        if parts == [(whole, whole)]:
            return run(image, *noise)
        fused = image.new_zeros([len(image), 1, *image.shape[2:]])
        for (rows, columns), (down, across) in parts:
            seen = run(image[..., down, across], *(one[..., down, across] for one in noise))
            fused[..., rows, columns] = seen[
                ...,
                rows.start - down.start : rows.stop - down.start,
                columns.start - across.start : columns.stop - across.start,
            ]
        return fused

    @staticmethod
    def _pixels(device: torch.device) -> int:
        """Of an image that goes through the network as a whole."""
        if device.type == "cuda":
            return torch.cuda.get_device_properties(device).total_memory // 4 // _BYTES
        return min(_ROOM, total_memory() // 4) // _BYTES

    def _emphasised(
        self, image: torch.Tensor, text: torch.Tensor | None = None, text_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Of the sources of which a text names something; by the whole image, in torch: places need more digits."""
        assert isinstance(self.network, TextGuidedUNet)
        if text is None or text_mask is None or (text.shape[:3], text.shape[:2]) != (text_mask.shape, image.shape[:2]):
            return self.network.emphasise(image, text, text_mask)
        named = (text_mask > 0).flatten(2).any(dim=2).flatten()
        if not named.any():
            return image
        sources = image.flatten(0, 1)[:, None].clone()
        said = (each.flatten(0, 1)[named][:, None] for each in (text, text_mask))
        sources[named] = self.network.emphasise(sources[named], *said)
        return sources.reshape(image.shape)

    def _drawn(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The noise of an image of this size, which is the same every time."""
        size = image.shape[1:]
        kept = self._noise
        if kept is None or kept[0] != size or kept[1].device != image.device:
            assert isinstance(self.network, DMFNet)
            kept = self._noise = (size, *self.network.drawn(image))
        return kept[1:2]

    def _several(self) -> Run:
        """What runs an image of several overlays."""
        part = EnginePart(self.network).eval()
        if self._noise is not None:
            part.level = self._noise[2]
        return self._torch(part, self._of_several())

    def _torch(self, part: nn.Module, choice: EngineChoice | None = None) -> Run:
        half = (choice or self._chosen).precision == "bfloat16"

        def run(image: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            with torch.autocast(image.device.type, torch.bfloat16):
                return part(image, *args, **kwargs).to(image.dtype)

        return run if half else part

    def _prepare(self) -> Run:
        """What runs the part that engines take over."""
        held = (kept for part in self._parts for kept in (part._parameters, part._buffers))
        weights = tuple(value._version for kept in held for value in kept.values() if value is not None)
        with self._lock:
            if self._run is None or weights != self._weights:
                self._weights = weights
                self._run = self._first_that_runs()
            return self._run

    def _first_that_runs(self) -> Run:
        part = EnginePart(self.network).eval()
        for choice in self.choices:
            self._chosen = choice
            if choice.engine == "torch":
                return RecordedRun(self._torch(part), part)
            try:
                run = STARTED[choice.engine](part, choice.precision)
                _check(run, part, choice)
            except Exception as error:
                reason = " ".join(str(error).split())[:300]
                if self.is_named:
                    raise ValueError(
                        f"engine is {choice.engine!r}, which cannot run this network here ({reason}); engine torch is "
                        "accepted"
                    ) from error
                logging.getLogger(__name__).warning("%s is not used, the next engine is: %s", choice, reason)
            else:
                return run
        self._chosen = EngineChoice("torch", "float32")
        return part


def _is_measured(network: nn.Module) -> bool:
    """Whether it is of a kind of which the model cards tell what each engine keeps."""
    return isinstance(network, (FusionUNet, TextGuidedUNet)) or (
        isinstance(network, DMFNet) and network.detail is not None
    )


@torch.no_grad()
def _check(run: Run, part: EnginePart, choice: EngineChoice) -> None:
    """See whether an engine fuses as torch does.

    Raises:
        ValueError: if not.
    """
    given = part.example(72, 104, batch=1)
    apart = 255 * (run(*given) - part(*given)).abs()
    if not (apart.mean() <= _MEAN and apart.max() <= _MOST):
        raise ValueError(
            f"its result departs from torch's by {apart.mean():.2g} levels, {apart.max():.2g} at most; "
            f"{_MEAN} and {_MOST:g} are accepted"
        )
