"""The metrics once more, straight from their definitions in NumPy and SciPy: grey levels in, a float out."""

import numpy as np
from scipy.ndimage import correlate, uniform_filter
from scipy.signal import convolve2d


def mutual_information(fused, anatomy, overlay):
    return _shared_information(fused, anatomy) + _shared_information(fused, overlay)


def _shared_information(x, y):
    joint, _, _ = np.histogram2d(x.ravel(), y.ravel(), bins=256, range=[[-0.5, 255.5]] * 2)
    p = joint / joint.sum()
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    seen = p > 0
    return np.sum(p[seen] * np.log(p[seen] / independent[seen]))


def ssim(fused, anatomy, overlay):
    return _ssim(fused, anatomy) + _ssim(fused, overlay)


def _ssim(x, y):
    def mean(z):
        return uniform_filter(z, 7)[3:-3, 3:-3]

    n = 49
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx = (mean(x * x) - mx**2) * n / (n - 1)
    vy = (mean(y * y) - my**2) * n / (n - 1)
    vxy = (mean(x * y) - mx * my) * n / (n - 1)
    return np.mean((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


def qabf(fused, anatomy, overlay):
    g_f, a_f = _sobel(fused)
    numerator = denominator = 0.0
    for source in (anatomy, overlay):
        g_s, a_s = _sobel(source)
        same = g_s == g_f
        strength = np.where(same, g_f, np.minimum(g_s, g_f) / np.where(same, 1, np.maximum(g_s, g_f)))
        direction = 1 - np.abs(a_s - a_f) / (np.pi / 2)
        q = 0.9994 / (1 + np.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + np.exp(-22 * (direction - 0.8)))
        numerator += np.sum(q * g_s)
        denominator += np.sum(g_s)
    return numerator / denominator if denominator else 0.0


def _sobel(x):
    kernel = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    sx = correlate(x, kernel, mode="constant")
    sy = correlate(x, -kernel.T, mode="constant")
    angle = np.full_like(x, np.pi / 2)
    sloped = sx != 0
    angle[sloped] = np.arctan(sy[sloped] / sx[sloped])
    return np.sqrt(sx**2 + sy**2), angle


def vif(fused, anatomy, overlay):
    return vif_single(anatomy, fused) + vif_single(overlay, fused)


def vif_single(reference, distorted):
    x, y = reference, distorted
    kept = total = 0.0
    for scale, side in enumerate((17, 9, 5, 3)):
        offset = np.arange(side) - side // 2
        window = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * (side / 5) ** 2))
        window /= window.sum()

        def mean(z, window=window):
            return convolve2d(z, window, mode="valid")

        if scale:
            x, y = mean(x)[::2, ::2], mean(y)[::2, ::2]
        vx, vy = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2
        vxy = mean(x * y) - mean(x) * mean(y)
        seen = vx >= 1e-10
        total += np.sum(np.log10(1 + vx[seen] / 2))
        seen &= (vy >= 1e-10) & (vxy > 0)
        gain = vxy[seen] / vx[seen]
        residual = np.maximum(vy[seen] - gain * vxy[seen], 0)
        kept += np.sum(np.log10(1 + gain**2 * vx[seen] / (residual + 2)))
    return kept / total if total else 1.0
