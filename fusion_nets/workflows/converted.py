"""A network outside of torch: exported once as ONNX for images of any size, kept, and run by an engine."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fusion_nets import networks
from fusion_nets.files import whole_file
from fusion_nets.networks import DMFNet, TextGuidedUNet

from .digests import digest

__all__ = ["STARTED", "EnginePart", "Run", "engine_cache"]

Run = Callable[..., torch.Tensor]

_DIGEST = hashlib.sha256().digest_size
"""Bytes at the end of a file in the cache, by which it is known to be whole."""


class EnginePart(nn.Module):
    """What engines take over of a network: a function of images alone; of DM-FNet also of the noise."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.fusion if isinstance(network, TextGuidedUNet) else network
        self.level: torch.Tensor | None = None
        if isinstance(network, DMFNet):
            self.level = network.drawn(next(network.parameters()).new_zeros([1, 2, 32, 32]))[1]

    def forward(self, image: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 2, H, W), and (steps, 2, 1, H, W) -> (B, 1, H, W)."""
        return self.network(image) if noise is None else self.network(image, noise, self.level)

    def example(self, height: int, width: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
        """What it takes, of a size: soft blobs, in one source other ones than in the other."""
        down, across = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 3, width)
        image = torch.stack([(torch.sin(k * down) * torch.cos(across * (k - 1))).abs() for k in (2, 3)])
        image = image.expand(batch, -1, -1, -1).contiguous()
        return (image,) if self.level is None else (image, self.network.drawn(image)[0])  # type: ignore[operator]


def engine_cache() -> Path:
    """The folder that keeps converted networks; FUSION_NETS_CACHE names another. It may be removed at any time."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusion-nets"
    return Path(os.environ.get("FUSION_NETS_CACHE") or default) / "engines"


def _onnx(part: EnginePart) -> bytes:
    """The part for images of any size, from the cache where it was converted before."""
    path: Path | None = None
    with suppress(OSError, RuntimeError):  # without a home or the right to write there, it is converted every time
        path = engine_cache() / f"{_identity(part)}.onnx"
        kept = path.read_bytes()
        content, told = kept[:-_DIGEST], kept[-_DIGEST:]
        if hashlib.sha256(content).digest() == told:
            return content  # else it was cut short or changed, and is converted anew
    converted = _exported(part)
    if path is not None:
        with suppress(OSError), whole_file(path) as partial:
            partial.write_bytes(converted + hashlib.sha256(converted).digest())
    return converted


def _identity(part: EnginePart) -> str:
    """A digest of all that a conversion depends on."""
    found = hashlib.sha256(f"{torch.__version__} {digest(part)}".encode())
    for source in (*sorted(Path(networks.__file__).parent.glob("*.py")), Path(__file__)):
        found.update(source.read_bytes())
    return found.hexdigest()[:32]


class _GroupNorm(nn.Module):
    """A group normalisation by operations that leave channels last, as an engine's convolutions have them.

    Torch exports one as an instance normalisation of reshaped groups, for which OpenVINO brings every feature map into
    another order and back: half of DM-FNet's time in float32.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight, self.bias = (value.detach()[:, None, None] for value in (norm.weight, norm.bias))
        size = norm.num_channels // norm.num_groups
        means = torch.block_diag(*[torch.full((size, size), 1 / size)] * norm.num_groups)
        self.group_means = means[:, :, None, None].to(norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - F.conv2d(x.mean(dim=(2, 3), keepdim=True), self.group_means)
        squares = torch.linalg.vector_norm(centred, dim=(2, 3), keepdim=True).square() / (x.shape[2] * x.shape[3])
        deviation = torch.sqrt(F.conv2d(squares, self.group_means) + self.eps)
        return centred * (self.weight / deviation) + self.bias


def _for_engines(module: nn.Module) -> None:
    """Put in what engines run faster, with the same result."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, _GroupNorm(child))
        else:
            _for_engines(child)


@torch.no_grad()
def _exported(part: EnginePart) -> bytes:
    part = copy.deepcopy(part)
    _for_engines(part)
    given = part.example(64, 96)
    names = ["image", "noise"][: len(given)]
    free = {0: "batch", 2: "height", 3: "width"}
    axes = {"image": free, "noise": {3: "height", 4: "width"}, "pred": free}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of conditions that hold for every size, and of a newer exporter
        torch.onnx.export(
            part,
            given,
            file,  # type: ignore[arg-type]  # a file is written to, too
            dynamo=False,
            input_names=names,
            output_names=["pred"],
            dynamic_axes={name: axes[name] for name in (*names, "pred")},
        )
    return file.getvalue()


def _openvino(part: EnginePart, precision: str) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # other processes have places, too
    }
    compiled = core.compile_model(core.read_model(_onnx(part)), "CPU", settings)
    request, lock = compiled.create_infer_request(), threading.Lock()

    def run(*given: torch.Tensor) -> torch.Tensor:
        with lock:
            # copied in and out: it computes in place, in what is shared with it
            return torch.from_numpy(request.infer(list(_arrays(given)))[0]).to(given[0].dtype)

    return run


def _onnxruntime(part: EnginePart, precision: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_onnx(part), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(*given: torch.Tensor) -> torch.Tensor:
        values = dict(zip(names, _arrays(given), strict=True))
        return torch.from_numpy(session.run(["pred"], values)[0]).to(given[0].dtype)

    return run


def _arrays(given: tuple[torch.Tensor, ...]) -> Iterator[Any]:
    return (value.detach().float().contiguous().numpy() for value in given)


STARTED: dict[str, Callable[[EnginePart, str], Run]] = {"openvino": _openvino, "onnxruntime": _onnxruntime}
"""What starts an engine in a precision."""
