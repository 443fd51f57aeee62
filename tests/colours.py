"""What tests of colour measure."""

import torch
from monai.data import MetaTensor

from fusion_nets.transforms import luminance

GREY = torch.linspace(0, 1, 256)[None, None]
OVERLAYS = ("overlay", "overlay2", "overlay3")


def tracer(*levels, modality="PT"):
    return MetaTensor(torch.tensor(levels, dtype=torch.float32)[None, None], meta={"modality": modality})


def angle(colours):
    """In degrees, of (3, 1, N)."""
    red, green, blue = colours.double()
    return torch.rad2deg(torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue)) % 360


def hue(colours):
    """Angle in the plane of Cb and Cr (ITU-T T.871, section 7), and distance from grey."""
    grey = luminance(colours)
    cb, cr = (colours[2:] - grey) / 1.772, (colours[:1] - grey) / 1.402
    return torch.atan2(cr, cb), torch.hypot(cr, cb)


def hue_error(colours, wanted):
    """Largest difference of hue in radian where both are coloured beyond doubt."""
    (angle, chroma), (wanted_angle, wanted_chroma) = hue(colours), hue(wanted)
    apart = (angle - wanted_angle)[(chroma > 0.02) & (wanted_chroma > 0.02)]
    assert len(apart) > 100
    return torch.remainder(apart + torch.pi, 2 * torch.pi).sub(torch.pi).abs().max().item()
