"""Run the metrics on a device that is not there, and print as JSON what came of each.

Fake tensors have shapes and a device but no values, and refuse to be mixed with those of another. As torch asks CUDA's
driver even for a slice of a fake one, the device is one of torch's own making ("privateuse1"), which lasts as long as
the process: hence a process of its own.
"""

import json

import torch
from fusion_images import FUNCTIONS, SMALLEST, taken
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from evaluation import functional, observers

DEVICE = "pretended"
_setup_privateuseone_for_python_backend(DEVICE)
getattr(torch, DEVICE).get_amp_supported_dtype = lambda: [torch.float16]
# how many numbers this gives depends on their values, which fake ones do not have
torch.bincount = lambda cells, minlength: torch.zeros(minlength, dtype=torch.long, device=cells.device)


def images(side=48, dtype=torch.float32):
    return [torch.rand(2, 1, side, side, device=DEVICE, dtype=dtype) for _ in range(3)]


def told(work):
    try:
        value = work()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return [value.device.type, list(value.shape), str(value.dtype)]


def gradient(name, side):
    fused, *sources = images(side)
    FUNCTIONS[name](*taken(name, [fused.requires_grad_(), *sources])).sum().backward()
    return fused.grad


def constant(known):
    return known.fused.mean((1, 2, 3)) * torch.ones(2)


def of_observers():
    places = torch.zeros(2, 3, dtype=torch.long, device=DEVICE)
    colour = torch.rand(2, 3, 48, 48, device=DEVICE)
    patches, channels = images(9)[0], observers.dense_difference_of_gaussians(9, device=DEVICE)
    recovery = torch.rand(2, device=DEVICE)
    yield "contrast_recovery", lambda: observers.contrast_recovery(*images()[:2], *images()[:2], places)
    yield "lost", lambda: observers.lost(recovery, torch.zeros(2, dtype=torch.bool))
    yield "luminance", lambda: observers.luminance(colour).mean((1, 2, 3))
    yield "cielab", lambda: observers.cielab(colour).mean((1, 2, 3))
    yield "add_internal_noise", lambda: observers.add_internal_noise(recovery, torch.Generator())
    yield "channel_responses", lambda: observers.channel_responses(patches, channels).float().mean(1)
    yield "area_under_curve", lambda: observers.area_under_curve(recovery, recovery).float().expand(2)


def everything():
    yield "mixed", lambda: images()[0] + torch.ones(2, 1, 48, 48)
    yield (
        "constant",
        lambda: functional._helpers.measure(
            lambda i: i.fused.mean((1, 2, 3)) * torch.ones(2), *images(), data_range=1.0
        ),
    )
    for name, metric in FUNCTIONS.items():
        side = max(48, SMALLEST.get(name, 1))
        for dtype in (torch.float32, torch.float64):
            yield f"{name} {dtype}", lambda: metric(*taken(name, images(side, dtype)))  # noqa: B023
        if name not in ("MI", "NMI", "EN", "FMI"):
            yield f"{name} gradient", lambda: gradient(name, side)  # noqa: B023
    yield "together", lambda: torch.stack(list(functional.fusion_metrics(*images(176)).values()))
    yield "parzen", lambda: functional.parzen_mutual_information(*images())
    yield "quantise", lambda: functional.quantise(images()[0])
    yield "ssim_single", lambda: functional.ssim_single(*images()[:2])
    yield "vif_single", lambda: functional.vif_single(*images()[:2])
    volumes = [image[..., None].expand(-1, -1, -1, -1, 12) for image in images(16)]
    yield "ssim_3d", lambda: functional.ssim_3d(*volumes)
    yield "flicker", lambda: functional.flicker(*volumes)
    middles = torch.zeros(2, 4, dtype=torch.long, device=DEVICE)
    yield "recovery of volumes", lambda: observers.contrast_recovery(*volumes[:2], *volumes[:2], middles, (9, 9, 2))
    yield from of_observers()


if __name__ == "__main__":
    with FakeTensorMode():
        torch._C._set_only_lift_cpu_tensors(True)  # as this mode does by itself where CUDA is missing
        print(json.dumps({name: told(work) for name, work in everything()}))
