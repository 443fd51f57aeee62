"""The metrics once more, straight from their definitions in NumPy and SciPy: grey levels in, a float out."""

import numpy as np
from scipy.interpolate import BSpline
from scipy.ndimage import correlate, correlate1d, uniform_filter
from scipy.signal import convolve2d
from skimage.measure import block_reduce


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
    return vif_single(fused, anatomy) + vif_single(fused, overlay)


def vif_single(distorted, reference):
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


def normalised_mutual_information(fused, anatomy, overlay):
    parts = []
    for source in (anatomy, overlay):
        apart = _nats(fused) + _nats(source)
        parts.append(2 * _shared_information(fused, source) / apart if apart else 0.0)
    return sum(parts)


def entropy(fused):
    return _nats(fused) / np.log(2)


def _nats(x):
    p = np.unique(x, return_counts=True)[1] / x.size
    return -np.sum(p * np.log(p))


def parzen_mutual_information(fused, anatomy, overlay, bins=32):
    total = 0.0
    for source in (anatomy, overlay):
        joint = _splines(fused, bins).T @ _splines(source, bins) / fused.size
        independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        seen = joint > 0
        total += np.sum(joint[seen] * np.log(joint[seen] / independent[seen]))
    return total


def _splines(x, bins):
    """What each pixel gives to each bin, (pixels, bins): a cubic B-spline around the pixel's place."""
    window = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    distance = 1 + x.reshape(-1, 1) / 255 * (bins - 3) - np.arange(bins)
    return np.nan_to_num(window(distance))


def standard_deviation(fused):
    return np.std(fused)


def spatial_frequency(fused):
    steps = [np.diff(fused, axis=axis) for axis in (0, 1)]
    return np.sqrt(sum(np.mean(step**2) for step in steps if step.size))


def average_gradient(fused):
    down, across = _gradient(fused, 0), _gradient(fused, 1)
    return np.mean(np.sqrt((down**2 + across**2) / 2))


def _gradient(x, axis):
    return np.gradient(x, axis=axis) if x.shape[axis] > 1 else np.zeros_like(x)


def mean_squared_error(fused, anatomy, overlay):
    return (np.mean((fused - anatomy) ** 2) + np.mean((fused - overlay) ** 2)) / 2


def psnr(fused, anatomy, overlay):
    error = mean_squared_error(fused, anatomy, overlay)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(fused.max() ** 2 / error) if error else np.inf


def correlation(fused, anatomy, overlay):
    return (_correlation(fused, anatomy) + _correlation(fused, overlay)) / 2


def scd(fused, anatomy, overlay):
    return _correlation(anatomy, fused - overlay) + _correlation(overlay, fused - anatomy)


def _correlation(x, y):
    return np.corrcoef(x.ravel(), y.ravel())[0, 1] if np.ptp(x) and np.ptp(y) else 0.0


def ms_ssim(fused, anatomy, overlay):
    return _ms_ssim(fused, anatomy) + _ms_ssim(fused, overlay)


def _ms_ssim(x, y):
    offset = np.arange(11) - 5
    window = np.exp(-(offset**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(z):
        return correlate1d(correlate1d(z, window, axis=0), window, axis=1)[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mx, my = mean(x), mean(y)
        vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        value = (2 * vxy + c2) / (vx + vy + c2)
        if scale == 4:
            value = value * (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        product *= max(0.0, np.mean(value)) ** weight
        x, y = (block_reduce(z[: z.shape[0] // 2 * 2, : z.shape[1] // 2 * 2], (2, 2), np.mean) for z in (x, y))
    return product


def nabf(fused, anatomy, overlay):
    kernel = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    edges = []
    for x in (fused, anatomy, overlay):
        # scipy calls "mirror" what leaves the border's own pixels out
        across, down = correlate(x, kernel, mode="mirror"), correlate(x, kernel.T, mode="mirror")
        with np.errstate(divide="ignore", invalid="ignore"):
            edges.append((np.hypot(across, down), np.nan_to_num(np.arctan(across / down))))
    g_f, a_f = edges[0]
    lost = weights = 0.0
    for g_s, a_s in edges[1:]:
        both = (g_s > 0) & (g_f > 0)
        strength = np.where(both, np.minimum(g_s, g_f) / np.where(both, np.maximum(g_s, g_f), 1), 0)
        direction = np.abs(np.abs(a_s - a_f) - np.pi / 2) * 2 / np.pi
        kept_strength = 0.9999 / (1 + np.exp(-19 * (strength - 0.5)))
        kept_direction = 0.9995 / (1 + np.exp(-22 * (direction - 0.5)))
        weight = np.where(g_s >= 2, g_s**1.5, 0.001)
        lost = lost + (1 - np.sqrt(kept_strength * kept_direction)) * weight
        weights = weights + weight
    invented = (g_f > edges[1][0]) & (g_f > edges[2][0])
    return np.sum(lost[invented]) / np.sum(weights)


def fmi(fused, anatomy, overlay):
    features = [_gradient(x, 1) for x in (fused, anatomy, overlay)]
    values = []
    for row in range(fused.shape[0] - 2):
        for column in range(fused.shape[1] - 2):
            f, *sources = (z[row : row + 3, column : column + 3].ravel(order="F") for z in features)
            values += [1.0 if np.array_equal(f, s) else _shared_feature(f, s) for s in sources]
    return np.mean(values)


def _shared_feature(x, y):
    if not np.ptp(x) or not np.ptp(y):
        return 0.0
    p, q = ((z - z.min()) / np.sum(z - z.min()) for z in (x, y))
    correlation = np.corrcoef(p, q)[0, 1]
    place = np.arange(9)
    deviations = [np.sqrt(max(0, np.sum(place**2 * d) - np.sum(place * d) ** 2)) for d in (p, q)]
    end_p, end_q = np.cumsum(p), np.cumsum(q)
    # Frechet's bounds of the joint distribution function, and Hoeffding's covariance
    bound = np.minimum.outer(end_p, end_q) if correlation >= 0 else np.maximum(np.add.outer(end_p, end_q) - 1, 0)
    covariance = np.sum(bound - np.outer(end_p, end_q))
    if abs(covariance) < 1e-9 or abs(correlation) < 1e-12:
        return 0.0
    share = correlation * deviations[0] * deviations[1] / covariance
    extreme = np.diff(np.diff(np.pad(bound, ((1, 0), (1, 0))), axis=0), axis=1)
    joint = share * extreme + (1 - share) * np.outer(p, q)
    entropies = _bits(p) + _bits(q)
    return 2 * (entropies - _bits(joint)) / entropies


def _bits(p):
    p = p[p != 0]
    return -np.sum(p * np.log2(np.abs(p)))
