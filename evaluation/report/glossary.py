"""What the metrics are called in full, and what they tell."""

from __future__ import annotations

__all__ = ["MEANINGS"]

MEANINGS = {
    "MI": ("Mutual information", "grey-level information shared with both sources, in nats"),
    "NMI": ("Normalised mutual information", "the same, held against what each image contains (Hossny 2008)"),
    "FMI": ("Feature mutual information", "information shared between gradients, locally (Haghighat 2011)"),
    "SSIM": ("Structural similarity", "to both sources, summed; 2 is perfect (Wang 2004)"),
    "MS-SSIM": ("Multi-scale structural similarity", "over five scales, summed over both sources (Wang 2003)"),
    "Qabf": ("Edge preservation", "share of the sources' edges that is kept, 0 to 1 (Xydeas and Petrović 2000)"),
    "Nabf": ("Fusion artefacts", "edges that neither source has; none is 0 (Shreyamsha Kumar 2013)"),
    "VIF": ("Visual information fidelity", "information of both sources that stays visible (Sheikh and Bovik 2006)"),
    "EN": ("Entropy", "of the fused image alone, in bits; noise raises it"),
    "SD": ("Standard deviation", "contrast of the fused image alone, in grey levels; noise raises it"),
    "SF": ("Spatial frequency", "sharpness of the fused image alone; noise raises it"),
    "AG": ("Average gradient", "sharpness of the fused image alone; noise raises it"),
    "PSNR": ("Peak signal-to-noise ratio", "to both sources, in dB; a mean of the sources does best"),
    "MSE": ("Mean squared error", "to both sources, in squared grey levels; a mean of the sources does best"),
    "CC": ("Correlation coefficient", "mean of the correlations with both sources"),
    "SCD": ("Sum of correlations of differences", "whether each source adds what the other lacks (Aslantas 2015)"),
}
"""Title and meaning by the name that papers print."""
