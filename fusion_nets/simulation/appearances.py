"""How scenes look: MRI, CT, PET and SPECT, each as an image to be and the display that it is read on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .colour_maps import luminance_map
from .fields import blur, noise, sigmoid, smooth_field
from .scenes import Scene

__all__ = ["Appearance", "ct", "emission", "mri"]


@dataclass(frozen=True)
class Appearance:
    """One source before it is displayed.

    Args:
        linear: (H, W), in parts of the display range, without noise; not bounded.
        display: what makes an image in [0, 1] of it, with noise, the same at every call, pixel by pixel or nearly so.
        sigma: of the blur that lesions undergo, in pixels.
        sequence: what it is called, such as "T2" or "FDG".
    """

    linear: np.ndarray
    display: Callable[[np.ndarray], np.ndarray]
    sigma: float
    sequence: str


# Signal of grey, white, csf, bone, diploe, muscle, fat and striatum, ranges; the rest is air. Orders of tissue as in
# ordinary weighted images at 1.5 and 3 T.
_SIGNALS = {
    "T1": ((0.42, 0.65), (0.65, 0.92), (0.08, 0.28), (0.02, 0.1), (0.2, 0.8), (0.3, 0.6), (0.8, 1.6), (0.45, 0.7)),
    "T2": ((0.38, 0.6), (0.25, 0.42), (0.65, 1.1), (0.02, 0.1), (0.08, 0.4), (0.1, 0.3), (0.3, 0.9), (0.3, 0.5)),
    "FLAIR": ((0.5, 0.7), (0.36, 0.55), (0.04, 0.2), (0.02, 0.1), (0.1, 0.4), (0.15, 0.4), (0.3, 0.9), (0.45, 0.6)),
    "PD": ((0.6, 0.8), (0.48, 0.62), (0.5, 0.85), (0.02, 0.1), (0.2, 0.5), (0.3, 0.6), (0.5, 1.0), (0.55, 0.7)),
    "SWI": ((0.5, 0.65), (0.42, 0.58), (0.5, 0.75), (0.0, 0.05), (0.02, 0.2), (0.2, 0.45), (0.2, 0.6), (0.3, 0.5)),
}
_SEQUENCES = ("T1", "T2", "FLAIR", "PD", "SWI", "random")
_SEQUENCE_SHARES = (0.28, 0.34, 0.13, 0.09, 0.06, 0.10)


def mri(rng: np.random.Generator, scene: Scene) -> Appearance:
    """Magnetic resonance: a sequence, bias field, partial volume, Gibbs ringing and ghosts of motion, Rician noise."""
    u, size, spacing = rng.uniform, scene.brain.shape, scene.spacing
    sequence = str(rng.choice(_SEQUENCES, p=_SEQUENCE_SHARES))
    if scene.is_head and sequence in _SIGNALS:
        levels = np.array([u(*limits) for limits in _SIGNALS[sequence]])
    else:
        sequence, levels = "random", rng.random(len(scene.fractions))
        if scene.is_head:
            levels[3] = u(0, 0.15)
        elif rng.random() < 0.3:
            levels[rng.integers(len(levels))] = 0
    image = scene.mixed(levels)
    image = image * (1 + u(0, 0.1) * (noise(rng, size, u(0.6, 2)) if rng.random() < 0.5 else 0))
    if scene.is_head:
        image = image * (1 + u(0, 0.08) * smooth_field(rng, size, u(2, 4)))
        if rng.random() < 0.5:  # vessels, thin
            waves = smooth_field(rng, size, u(4, 9) / spacing)
            where = sigmoid((smooth_field(rng, size, 8 / spacing) - 0.4) * 5) * scene.brain
            sign = -1 if sequence in ("SWI", "T2") else rng.choice([-1, 1])
            image = image + sign * u(0.1, 0.4) * np.exp(-((waves / u(0.03, 0.08)) ** 2)) * where
    if rng.random() < 0.6:
        image = image * (1 + u(0, 0.3) * np.clip(smooth_field(rng, size, 35 / spacing), -2, 2) * 0.5)
    sigma = u(0.25, 0.9) if rng.random() < 0.6 else 0.2
    image = blur(image, sigma)
    if rng.random() < 0.25:
        image = _band_limited(rng, image)
    if rng.random() < 0.4:  # the scanner's own filter
        image = image + u(0.3, 1.2) * (image - blur(image, u(0.7, 1.3)))
    image = np.maximum(image, 0)
    foreground = image > 0.03
    top = np.quantile(image[foreground], 0.985) if foreground.any() else 1.0
    scale = (u(0.6, 1.15) if rng.random() < 0.75 else u(1.15, 1.7)) / (top + 1e-3)
    amount = (u(0.003, 0.015) if rng.random() < 0.5 else u(0.015, 0.05)) / scale
    first = noise(rng, size, u(0.2, 0.7)) * amount
    second = noise(rng, size, u(0.2, 0.7)) * amount
    rician = rng.random() < 0.6
    gamma = u(0.8, 1.3)
    floor = u(0.01, 0.07) if rng.random() < 0.8 else 0.0

    def display(linear: np.ndarray) -> np.ndarray:
        signal = linear / scale
        noisy = np.hypot(signal + first, second) if rician else np.maximum(signal + first * foreground, 0)
        shown = np.clip(noisy * scale, 0, None) ** gamma
        return np.clip(np.where(shown < floor, 0, shown), 0, 1)

    return Appearance(image * scale, display, sigma, sequence)


def _band_limited(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What a scan that stops early in k-space, or a head that moves during it, leaves of an image."""
    k = np.fft.rfft2(image)
    rows = np.abs(np.fft.fftfreq(image.shape[0]))[:, None]
    if rng.random() < 0.6:
        columns = np.fft.rfftfreq(image.shape[1])[None]
        k = k * (rows <= rng.uniform(0.28, 0.48)) * (columns <= rng.uniform(0.28, 0.5))
    else:
        moved = rng.random((image.shape[0], 1)) < 0.1
        shift = rng.uniform(-1.5, 1.5)
        k = k * np.where(moved & (rows > 0.04), np.exp(2j * np.pi * np.fft.fftfreq(image.shape[0])[:, None] * shift), 1)
    return np.fft.irfft2(k, image.shape).astype(np.float32)


# Windows in HU, centre and width, ranges, and how often: brain, subdural, soft tissue, bone.
_WINDOWS = (
    ("brain", (30, 45), (70, 130), 0.62),
    ("subdural", (50, 90), (140, 280), 0.16),
    ("soft tissue", (30, 60), (300, 450), 0.1),
    ("bone", (300, 600), (1500, 2500), 0.12),
)


def ct(rng: np.random.Generator, scene: Scene) -> Appearance:
    """Computed tomography: Hounsfield units by tissue, a window, beam hardening, quantum noise, the table."""
    u, size, spacing = rng.uniform, scene.brain.shape, scene.spacing
    name, centres, widths, _ = _WINDOWS[rng.choice(len(_WINDOWS), p=[window[-1] for window in _WINDOWS])]
    centre, width = u(*centres), u(*widths)
    inside = np.clip(scene.fractions.sum(0), 0, 1)
    if scene.is_head:
        grey = u(34, 42)
        levels = np.array(
            [grey, grey - u(4, 11), u(2, 14), u(900, 1800), u(350, 900), u(45, 65), u(-110, -70), grey + u(-1, 3)]
        )
        soft = np.clip(scene.fractions[[0, 1, 2, 7]].sum(0), 0, 1)
        bone = scene.fractions[3] + 0.5 * scene.fractions[4]
    else:
        levels = u(centre - width / 2, centre + width / 2) + 0.12 * width * rng.standard_normal(len(scene.fractions))
        levels[rng.integers(len(levels))] = centre + width * u(0.6, 3)
        if rng.random() < 0.4:
            levels[rng.integers(len(levels))] = -1000
        soft, bone = inside, scene.fractions[int(np.argmax(levels))]
    image = scene.mixed(np.array(levels)) - 1000 * (1 - inside)
    if rng.random() < 0.5:  # beam hardening: brighter near bone, and dark or bright bands
        image = image + u(0, 0.12) * width * blur(bone, u(3, 8) / spacing) * soft
        image = image + u(0, 0.03) * width * smooth_field(rng, size, 8 / spacing) * soft
    if rng.random() < 0.25:
        angle, pitch = u(0, np.pi), u(2, 6)
        rows, columns = np.ogrid[: size[0], : size[1]]
        wave = np.sin((np.cos(angle) * rows + np.sin(angle) * columns + u(0, 20)) / pitch).astype(np.float32)
        image = image + u(0.01, 0.05) * width * wave * soft * sigmoid(3 * smooth_field(rng, size, 15 / spacing))
    if rng.random() < 0.5:  # texture of tissue
        image = image + u(0, 0.02) * width * smooth_field(rng, size, u(2, 4)) * soft
    sigma = u(0.35, 0.8)
    image = blur(image, sigma)
    if scene.is_head and scene.body is not None and rng.random() < 0.35:
        image = np.maximum(image, _table(rng, scene) * u(1000, 1600) - 1000)
    grain = noise(rng, size, u(0.4, 1.0)) * (u(0.003, 0.02) if rng.random() < 0.7 else u(0.02, 0.045))
    black = (centre - width / 2, width)
    floor = u(0.01, 0.08) if rng.random() < 0.4 else 0.0
    there = image > -700

    def display(linear: np.ndarray) -> np.ndarray:
        shown = linear + grain * there
        return np.clip(np.where(shown < floor, 0, shown), 0, 1)

    return Appearance(((image - black[0]) / black[1]).astype(np.float32), display, sigma, name)


def _table(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """The arc of a head holder, 0 to 1, outside of the head."""
    assert scene.body is not None
    size, spacing = scene.brain.shape, scene.spacing
    rows, columns = ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * spacing for n in size)
    r, turn = rng.uniform(90, 170), rng.uniform(0, 2 * np.pi)
    away = r - rng.uniform(80, 115)
    y, x = rows[:, None] - np.cos(turn) * away, columns[None] - np.sin(turn) * away
    arc = np.exp(-(((np.hypot(y, x) - r) / rng.uniform(0.7, 1.8)) ** 2))
    facing = np.cos(np.arctan2(y, x) - np.arctan2(np.cos(turn), np.sin(turn))) > -rng.uniform(0.3, 0.9) + 1
    return arc * facing * (scene.body < -3)


# Uptake of grey, white, csf, bone, diploe, muscle, fat, striatum.
_TRACERS = {
    "FDG": (
        (0.85, 1.0),
        (0.22, 0.45),
        (0.03, 0.12),
        (0.03, 0.1),
        (0.05, 0.15),
        (0.05, 0.25),
        (0.02, 0.1),
        (0.95, 1.15),
    ),
    "amyloid": ((0.4, 1.1), (0.7, 1.0), (0.05, 0.2), (0.05, 0.25), (0.1, 0.3), (0.05, 0.2), (0.02, 0.1), (0.5, 1.0)),
    "amino acid": ((0.2, 0.5), (0.12, 0.3), (0.1, 0.2), (0.1, 0.3), (0.15, 0.35), (0.2, 0.5), (0.1, 0.2), (0.3, 0.6)),
    "FDOPA": ((0.2, 0.4), (0.12, 0.3), (0.05, 0.15), (0.05, 0.2), (0.05, 0.2), (0.1, 0.4), (0.05, 0.1), (0.9, 1.2)),
    "perfusion": (
        (0.8, 1.0),
        (0.25, 0.55),
        (0.03, 0.15),
        (0.05, 0.15),
        (0.05, 0.2),
        (0.1, 0.4),
        (0.05, 0.2),
        (0.8, 1.0),
    ),
    "DAT": ((0.15, 0.35), (0.1, 0.25), (0.05, 0.15), (0.03, 0.12), (0.05, 0.15), (0.08, 0.3), (0.03, 0.1), (0.9, 1.1)),
}
_PET = (("FDG", "amyloid", "amino acid", "FDOPA", "random"), (0.58, 0.14, 0.06, 0.07, 0.15))
_SPECT = (("perfusion", "DAT", "random"), (0.72, 0.1, 0.18))


def emission(rng: np.random.Generator, scene: Scene, modality: str) -> Appearance:
    """PET and SPECT: a tracer, the scanner's blur, Poisson noise, scatter, and a grey scale or colour map."""
    u, size, spacing = rng.uniform, scene.brain.shape, scene.spacing
    is_pet = modality == "PT"
    tracer = str(rng.choice(_PET[0], p=_PET[1]) if is_pet else rng.choice(_SPECT[0], p=_SPECT[1]))
    if scene.is_head and tracer in _TRACERS:
        levels = np.array([u(*limits) for limits in _TRACERS[tracer]])
    else:
        tracer, levels = "random", rng.random(len(scene.fractions))
    image = scene.mixed(levels)
    patchy = u(0, 0.25) if is_pet else u(0.1, 0.4)
    image = image * np.clip(1 + patchy * smooth_field(rng, size, u(8, 20) / spacing), 0.1, 2)
    if not is_pet:
        image = image * np.clip(1 + u(0, 0.3) * smooth_field(rng, size, u(3, 7) / spacing), 0.1, 2)
    fwhm = u(4, 8) if is_pet else u(7, 14)
    sigma = max(fwhm / 2.3548 / spacing, 0.6)
    image = blur(image, sigma)
    if rng.random() < 0.5:  # scatter that is left
        image = image + u(0, 0.06) * blur(image, 4 * sigma)
    top = np.quantile(image, 0.995) + 1e-3
    image = image / top * u(0.75, 1.1)
    level = u(0, 0.06) if rng.random() < 0.7 else u(0.06, 0.12)
    grain = noise(rng, size, sigma * u(0.6, 0.9)) * np.sqrt(np.clip(image, 0.01, None)) * level
    subtract = u(0, 0.08)
    gamma = u(0.7, 1.5) if rng.random() < 0.3 else 1.0
    levels_map = luminance_map(rng)
    grit = noise(rng, size) * u(0.002, 0.01) * (image > 0.05) if rng.random() < 0.25 else 0.0

    step = u(1.4, 2.6) if rng.random() < 0.4 else 1.0  # pixels of the scanner's own grid, repeated

    def display(linear: np.ndarray) -> np.ndarray:
        shown = np.clip(linear + grain - subtract, 0, 1) ** gamma
        shown = np.interp(shown * 255, np.arange(256), levels_map).astype(np.float32) + grit
        if step > 1:
            rows, columns = ((np.arange(n) / step).astype(int) * step + step / 2 for n in size)
            nearest = (axis.astype(int).clip(max=n - 1) for axis, n in zip((rows, columns), size, strict=True))
            shown = shown[np.ix_(*nearest)]
        return np.clip(shown, 0, 1)

    return Appearance(image, display, sigma, tracer)
