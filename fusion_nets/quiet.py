"""Words of MONAI that tell a user nothing, left out as soon as this library is imported."""

import logging
import warnings

__all__: list[str] = []

# LoadImage makes every reader that MONAI has, whichever is asked for, and one of them complains twice of not having
# a decoder on the GPU, which nothing here asks for.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", "NvImgCodecPydicomReader: ", UserWarning)
