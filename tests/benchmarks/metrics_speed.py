"""How fast the eleven metrics are, against the field's usual program: one pair at a time, one thread, whole windows.

    python tests/benchmarks/metrics_speed.py [--pairs 64] [--size 256] [--threads 2] [--rounds 8] [--memory_pairs 256]

The usual program and ours take turns, round by round, so that whatever else the machine does slows down both. Fails
below 25 times its speed, where values differ (1e-4 relative, float32), or if memory grows by more than 1.5 GB. Where
there is a CUDA device, its speed too.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity
from sklearn.metrics import mutual_info_score
from threadpoolctl import threadpool_limits

from evaluation import fusion_metrics

ELEVEN = ("MI", "SSIM", "Qabf", "VIF", "EN", "SD", "SF", "AG", "PSNR", "CC", "SCD")
SOBEL = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def usual_program(fused: np.ndarray, anatomy: np.ndarray, overlay: np.ndarray) -> dict[str, float]:
    """The metrics of one pair in grey levels, the way published scripts compute them."""
    sources = (anatomy, overlay)
    whole = [image.astype(np.int64).ravel() for image in (fused, *sources)]
    share = np.bincount(whole[0], minlength=256) / fused.size
    down, across = np.gradient(fused)
    error = sum(np.mean((fused - source) ** 2) for source in sources) / 2
    return {
        "MI": sum(mutual_info_score(whole[0], source) for source in whole[1:]),
        "SSIM": sum(structural_similarity(fused, source, data_range=255) for source in sources),
        "Qabf": edges_kept(fused, anatomy, overlay),
        "VIF": sum(fidelity(source, fused) for source in sources),
        "EN": -np.sum(share[share > 0] * np.log2(share[share > 0])),
        "SD": np.std(fused),
        "SF": np.sqrt(np.mean(np.diff(fused, axis=0) ** 2) + np.mean(np.diff(fused, axis=1) ** 2)),
        "AG": np.mean(np.sqrt((down**2 + across**2) / 2)),
        "PSNR": 10 * np.log10(fused.max() ** 2 / error),
        "CC": sum(np.corrcoef(fused.ravel(), source.ravel())[0, 1] for source in sources) / 2,
        "SCD": sum(np.corrcoef(x.ravel(), (fused - y).ravel())[0, 1] for x, y in (sources, sources[::-1])),
    }


def fidelity(reference: np.ndarray, distorted: np.ndarray) -> float:
    """VIF of one source."""
    kept = held = 0.0
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        offset = np.arange(side) - side // 2
        window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * (side / 5) ** 2))
        window /= window.sum()

        def mean(image: np.ndarray, window: np.ndarray = window) -> np.ndarray:
            return convolve2d(image, window, mode="valid")

        if scale:
            reference, distorted = mean(reference)[::2, ::2], mean(distorted)[::2, ::2]
        mean_r, mean_d = mean(reference), mean(distorted)
        var_r, var_d = mean(reference**2) - mean_r**2, mean(distorted**2) - mean_d**2
        cov = mean(reference * distorted) - mean_r * mean_d
        var_r[var_r < 1e-10] = 0
        lost = (var_r == 0) | (var_d < 1e-10) | (cov <= 0)
        gain = np.where(lost, 0, cov / (var_r + 1e-10))
        residual = np.maximum(var_d - gain * cov, 1e-10)
        kept += np.sum(np.log10(1 + gain**2 * var_r / (residual + 2)))
        held += np.sum(np.log10(1 + var_r / 2))
    return kept / held


def edges_kept(fused: np.ndarray, anatomy: np.ndarray, overlay: np.ndarray) -> float:
    """Qabf."""
    edges = []
    for image in (fused, anatomy, overlay):
        across, down = convolve2d(image, SOBEL, mode="same"), convolve2d(image, -SOBEL.T, mode="same")
        upright = across == 0
        angle = np.where(upright, np.pi / 2, np.arctan(down / np.where(upright, 1, across)))
        edges.append((np.sqrt(across**2 + down**2), angle))
    strength_f, angle_f = edges[0]
    kept = total = 0.0
    for strength, angle in edges[1:]:
        stronger = np.maximum(strength, strength_f)
        ratio = np.where(strength == strength_f, strength_f, np.minimum(strength, strength_f) / (stronger + 1e-30))
        turned = 1 - np.abs(angle - angle_f) / (np.pi / 2)
        quality = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (turned - 0.8)))
        kept, total = kept + np.sum(quality * strength), total + np.sum(strength)
    return kept / total


def heads(pairs: int, size: int) -> torch.Tensor:
    """Fused images and sources in grey levels, (3, pairs, 1, size, size): smooth structure on black."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    head = (x / 0.7) ** 2 + (y / 0.85) ** 2 < 1
    textures = gaussian_filter(generator.standard_normal((2, pairs, size, size)), (0, 0, 3, 3))
    sources = np.clip(110 + 900 * textures, 0, 255) * head
    sources[0] = np.clip(sources[0] + 8 * generator.standard_normal((pairs, size, size)) * head, 0, 255)
    images = np.rint(np.stack([sources.max(0) * 0.7 + sources.mean(0) * 0.3, *sources]))
    return torch.tensor(images, dtype=torch.float32)[:, :, None]


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def growth(images: torch.Tensor) -> float:
    """By how many MB the process grew beyond its peak so far while measuring."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fusion_metrics(*images, ELEVEN, 255)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def on_cuda(images: torch.Tensor, per_pair: float) -> None:
    """Print the speed of a CUDA device, and how many times that of the CPU it is."""
    images = images.cuda()

    def measure() -> None:
        fusion_metrics(*images, ELEVEN, 255)
        torch.cuda.synchronize()

    measure()
    fastest = min(seconds(measure) for _ in range(10)) / images.shape[1]
    peak = torch.cuda.max_memory_allocated() / 2**20
    print(
        f"{torch.cuda.get_device_name()}: {fastest * 1e3:8.3f} ms a pair   {1 / fastest:8.0f} pairs a second   "
        f"{per_pair / fastest:6.1f} times the CPU   {peak:.0f} MiB on the device"
    )


@torch.no_grad()
def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--memory_pairs", type=int, default=256, help="pairs to watch the memory with")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = heads(arguments.pairs, arguments.size)
    singles = images[:, :, 0].double().numpy().swapaxes(0, 1)

    more = images.repeat(1, -(-arguments.memory_pairs // arguments.pairs), 1, 1, 1)
    memory = {images.shape[1]: growth(images), more.shape[1]: growth(more)}
    peak = sum(memory.values())
    del more

    expected: list[dict[str, float]] = []
    slow, fast = [], []
    for part in np.array_split(singles, arguments.rounds):
        with threadpool_limits(1):
            taken = seconds(lambda part=part: expected.extend(usual_program(*three) for three in part))
        slow.append(taken / len(part))
        fast.append(seconds(lambda: fusion_metrics(*images, ELEVEN, 255)) / arguments.pairs)
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    ratio = statistics.median(ratios)

    got = {name: values.tolist() for name, values in fusion_metrics(*images, ELEVEN, 255).items()}
    apart = max(abs(got[name][i] / pair[name] - 1) for i, pair in enumerate(expected) for name in ELEVEN)
    size, rounds, threads = arguments.size, arguments.rounds, arguments.threads
    print(f"{arguments.pairs} pairs of {size} x {size}, eleven metrics, median of {rounds} rounds")
    print(f"usual program, 1 thread:    {statistics.median(slow) * 1e3:7.1f} ms a pair")
    print(f"fusion_metrics, {threads} threads:  {statistics.median(fast) * 1e3:7.1f} ms a pair")
    print(f"{ratio:.1f} times as fast (rounds {min(ratios):.1f} to {max(ratios):.1f}), largest difference {apart:.1e}")
    print("memory beyond the images: " + ", ".join(f"{mb:.0f} MB more for {n} pairs" for n, mb in memory.items()))
    if torch.cuda.is_available():
        on_cuda(images, statistics.median(fast))
    else:
        print("CUDA: not measured, there is no device")
    return 0 if ratio >= 25 and apart <= 1e-4 and peak <= 1500 else 1


if __name__ == "__main__":
    sys.exit(main())
