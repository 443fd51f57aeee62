"""What the tests ask of the app's server, and small images to ask it with."""

import json
import re

import nibabel as nib
import numpy as np
import requests
from requests_toolbelt import MultipartDecoder

SLICES = {"head": slice(20, 22), "other": slice(24, 26)}


def infer(server, image, params=None, model="dmfnet", output="json", timeout=300, **query):
    """The answer to a request for inference."""
    return requests.post(
        f"{server.url}/infer/{model}",
        params={"image": image, **({"output": output} if output else {}), **query},
        data={} if params is None else {"params": params if isinstance(params, str) else json.dumps(params)},
        timeout=timeout,
    )


def fused(server, image, params=None, model="dmfnet"):
    """What the app makes of a request that is good: JSON, file name and content of the image."""
    answer = infer(server, image, params, model, output=None)
    assert answer.status_code == 200, answer.text
    parts = {}
    for part in MultipartDecoder.from_response(answer).parts:
        head = part.headers[b"Content-Disposition"].decode()
        parts[re.search(r'name="(\w+)"', head)[1]] = head, part.content
    name = re.search(r'filename="([^"]+)"', parts["image"][0])[1]
    return json.loads(parts["params"][1]), name, parts["image"][1]


def few_slices(source, destination, slices):
    """A part of a volume, which is fused in a second or two; as by others, without a note of what it is."""
    image = nib.load(source)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine).slicer[:, :, slices], destination)


def left_behind(server):
    """What stands among the server's temporary files, but MONAI Label's own logging configuration."""
    return [path.name for path in server.tmp.iterdir() if not re.fullmatch(r"tmp\w+\.json", path.name)]
