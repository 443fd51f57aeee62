"""Read mutated files and say how it went; run by test_fuzz.py as a process of its own, with a limit on its memory."""

import faulthandler
import gzip
import io
import json
import os
import resource
import struct
import sys
import traceback
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from PIL import Image

from fusion_nets.clinical import ImageError, read_image
from fusion_nets.clinical.dicom import new_series, new_study
from fusion_nets.clinical.dicom.new_series import write_file

MEMORY = 2 * 10**9
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 1000, (12, 10, 3)).astype(np.int16)
PICTURE = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)


def slices(modality="CT"):
    image = MetaTensor(torch.from_numpy(np.float32(VOLUME[None])), affine=torch.diag(torch.tensor([-1.0, -1, 2, 1])))
    image.meta["units"] = {"CT": "HU", "PT": "Bq/ml"}.get(modality, "stored")
    return new_series(image, modality, new_study("fuzz"))


def as_bytes(dataset):
    buffer = io.BytesIO()
    write_file(buffer, dataset)
    return buffer.getvalue()


def enhanced():
    instances = slices("MR")
    whole = instances[0]
    pixels = b"".join(one.PixelData for one in instances)
    groups = []
    for one in instances:
        group, place, size, plane = (pydicom.Dataset() for _ in range(4))
        place.ImagePositionPatient, plane.ImageOrientationPatient = (
            one.ImagePositionPatient,
            one.ImageOrientationPatient,
        )
        size.PixelSpacing = one.PixelSpacing
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [plane]
        group.PixelMeasuresSequence = [size]
        groups.append(group)
    whole.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    whole.PerFrameFunctionalGroupsSequence, whole.NumberOfFrames, whole.PixelData = groups, 3, pixels
    return whole


def colour(photometric):
    instance = slices("CT")[0]
    instance.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    instance.PhotometricInterpretation, instance.Rows, instance.Columns = photometric, 12, 10
    instance.BitsAllocated, instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 8, 8, 7, 0
    if photometric == "RGB":
        instance.SamplesPerPixel, instance.PlanarConfiguration, instance.PixelData = 3, 0, PICTURE.tobytes()
        return instance
    instance.PixelData = PICTURE[..., 0].tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(instance, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(instance, f"{name}PaletteColorLookupTableData", RNG.bytes(256))
    return instance


def compressed(syntax):
    import gdcm

    source, target = Path("source.tmp"), Path("target.tmp")
    source.write_bytes(as_bytes(slices("MR")[0]))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    content = target.read_bytes()
    source.unlink()
    target.unlink()
    return content


def deflated():
    instance = slices()[0]
    instance.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    return as_bytes(instance)


def nrrd(sizes, kind, voxels, encoding="raw"):
    header = f"NRRD0004\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
    header += "space directions: (1,0,0) (0,1,0) (0,0,2)\nkinds: domain domain domain\nendian: little\n"
    return f"{header}encoding: {encoding}\nspace origin: (1,2,3)\n\n".encode() + voxels


def metaimage(sizes, kind, voxels, compressed=False):
    header = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = {compressed}\n"
    header += (
        "BinaryDataByteOrderMSB = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 1 1 2\n"
    )
    return f"{header}DimSize = {sizes}\nElementType = MET_{kind}\nElementDataFile = LOCAL\n".encode() + voxels


def by_pillow(mode, kind):
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def templates():
    """(how many times as often as others, ending, bytes) of whole files of all forms."""
    nifti = nib.Nifti1Image(VOLUME, np.diag([1, 1, 2, 1])).to_bytes()
    voxels = VOLUME.tobytes(order="F")
    return [
        *((2, ".dcm", as_bytes(slices(modality)[0])) for modality in ("CT", "PT", "MR")),
        (2, ".dcm", as_bytes(enhanced())),
        *((1, ".dcm", as_bytes(colour(photometric))) for photometric in ("RGB", "PALETTE COLOR")),
        *((2, "", compressed(f"JPEG{kind}")) for kind in ("LosslessProcess14_1", "LSLossless", "2000Lossless")),
        (1, "", compressed("RLELossless")),
        (1, "", deflated()),
        (4, ".nii", nifti),
        (3, ".nii.gz", gzip.compress(nifti, mtime=0)),
        (3, ".nrrd", nrrd("12 10 3", "short", voxels)),
        (2, ".nrrd", nrrd("12 10 3", "short", gzip.compress(voxels), "gzip")),
        (3, ".mha", metaimage("12 10 3", "SHORT", voxels)),
        (2, ".mha", metaimage("12 10 3", "SHORT", zlib.compress(voxels), compressed=True)),
        *((1, ".png", by_pillow(mode, "PNG")) for mode in ("RGB", "L", "P", "RGBA", "1")),
        (1, ".tif", by_pillow("RGB", "TIFF")),
        (1, ".jpg", by_pillow("RGB", "JPEG")),
        (1, ".bmp", by_pillow("L", "BMP")),
    ]


def flip(content, rng):
    for position in rng.integers(0, len(content), rng.integers(1, 9)):
        content[position] ^= 1 << rng.integers(8)


def overwrite(content, rng):
    start = rng.integers(len(content))
    content[start : start + rng.integers(1, 17)] = rng.bytes(int(rng.integers(1, 17)))


def cut(content, rng):
    del content[rng.integers(len(content)) :]


def remove(content, rng):
    start = rng.integers(len(content))
    del content[start : start + rng.integers(1, 65)]


def repeat(content, rng):
    start = rng.integers(len(content))
    content[start:start] = content[start : start + rng.integers(1, 65)]


def swap(content, rng):
    one, other = sorted(rng.integers(0, max(len(content) - 16, 1), 2))
    content[one : one + 16], content[other : other + 16] = content[other : other + 16], content[one : one + 16]


def absurd_number(content, rng):
    number = struct.pack("<I", rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65535, 10**9]))
    start = rng.integers(len(content)) & ~1
    content[start : start + 4] = number[: rng.choice([2, 4])]


def absurd_digits(content, rng):
    digits = [k for k, byte in enumerate(content[:2000]) if 48 <= byte < 58]
    if digits:
        start = rng.choice(digits)
        content[start : start + 1] = rng.choice([b"99999999", b"-1", b"0", b"1e300", b"nan", b"9" * 400])


MUTATIONS = (flip, flip, overwrite, cut, remove, repeat, swap, absurd_number, absurd_digits)


def mutated(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if content:
            MUTATIONS[rng.integers(len(MUTATIONS))](content, rng)
    return bytes(content)


def png(width, height, kind, channels, rows):
    """A small file that promises a large picture and unpacks to so many black rows of it."""
    row = bytes(1 + width * channels)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros_packed():
    """64 MiB of zeros as one member of a gzip file."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(bytes(2**20)) for _ in range(64)] + [packer.flush()])


def nifti_bomb(shape, kind, members):
    """A header for a volume of zeros, and 64 MiB of them in every further member of the gzip file."""
    header = nib.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    return gzip.compress(header.binaryblock + bytes(4)) + zeros_packed() * members


def dicom_claiming(frames, rows, columns, syntax=None):
    whole = enhanced()
    whole.Rows, whole.Columns, whole.NumberOfFrames = rows, columns, frames
    group = whole.PerFrameFunctionalGroupsSequence[0]
    whole.PerFrameFunctionalGroupsSequence = [group] * frames
    if syntax:
        whole.file_meta.TransferSyntaxUID = syntax
        whole.PixelData = pydicom.encaps.encapsulate([bytes(100)] * frames)
        whole["PixelData"].is_undefined_length = True
    return as_bytes(whole)


def deflate_bomb():
    plain = slices()[0]
    plain.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    content = as_bytes(plain)
    meta = 144 + pydicom.dcmread(io.BytesIO(content)).file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(2**20)
    element = b"\x28\x00\x00\x30OB\x00\x00" + struct.pack("<I", 2**29)
    return content[:meta] + b"".join(
        [packer.compress(element), *(packer.compress(zeros) for _ in range(512)), packer.flush()]
    )


JUST_ACCEPTED = "1024 1024 110"


def bombs():
    """(what, ending, bytes) of files that promise or unpack to more than there is memory for, one after the other."""
    yield "gzip of 20 GB, promised", ".nii.gz", nifti_bomb((10000, 10000, 100), np.int16, 320)
    yield "gzip of 20 GB, not promised", ".nii.gz", nifti_bomb((64, 64, 64), np.int16, 320)
    yield "as large as accepted", ".nii.gz", nifti_bomb((1024, 1024, 240), np.uint8, 4)
    yield "10 GB promised", ".nii", nifti_bomb((2000, 2000, 1250), np.int16, 0)
    for kind, sizes in (("short", "2000 2000 1250"), ("double", "1024 1024 256"), ("short", JUST_ACCEPTED)):
        yield f"{sizes} promised", ".nrrd", nrrd(sizes, kind, bytes(99))
        yield f"{sizes} promised", ".mha", metaimage(sizes, kind.upper(), bytes(99))
    yield "gzip of 20 GB", ".nrrd", nrrd("64 64 64", "short", zeros_packed() * 320, "gzip")
    yield "10 GB promised", ".dcm", dicom_claiming(100, 10000, 5000)
    yield "one large frame promised", ".dcm", dicom_claiming(1, 16000, 16000)
    yield "one large frame promised", ".dcm", dicom_claiming(1, 16000, 16000, pydicom.uid.RLELossless)
    yield "two large frames promised", ".dcm", dicom_claiming(2, 8000, 8000, pydicom.uid.JPEG2000Lossless)
    yield "deflated 0.5 GB", ".dcm", deflate_bomb()
    yield "large picture promised", ".png", png(60000, 60000, 2, 3, 40)
    yield "large picture promised", ".png", png(12000, 12000, 0, 1, 40)
    yield "as large as accepted", ".png", png(8192, 8192, 0, 1, 8192)


def outcome(path):
    try:
        image = read_image(path)
    except ImageError:
        return "refused"
    except BaseException:
        return traceback.format_exc()
    assert image.isfinite().all()
    return "read"


def main(folder, seed, count):
    """Read so many mutated files, and the bombs; print what came of them as JSON.

    What is at hand lies beside the folder as `progress`, to be found when a library has ended the process.
    """
    faulthandler.enable()
    os.chdir(folder)
    rng = np.random.default_rng(seed)
    whole = templates()
    weights = np.array([often for often, _, _ in whole], dtype=float)
    base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY, base + MEMORY))
    before, idle = sorted(os.listdir()), peak()
    results = {"whole": [came_of(content, ending) for _, ending, content in whole], "bombs": []}
    results |= {"read": 0, "refused": 0, "failed": []}
    for what, ending, content in bombs():
        results["bombs"].append([what, ending, came_of(content, ending), peak()])
    for number in range(count):
        _, ending, content = whole[rng.choice(len(whole), p=weights / weights.sum())]
        content = mutated(content, rng)
        Path("..", f"progress{ending}").write_bytes(content)
        result = came_of(content, ending)
        if result in ("read", "refused"):
            results[result] += 1
        else:
            results["failed"].append([number, ending, result])
    print(json.dumps({**results, "peak": peak() - idle, "written": sorted(set(os.listdir()) - set(before))}))


def came_of(content, ending):
    path = Path(f"case{ending}")
    path.write_bytes(content)
    try:
        return outcome(path)
    finally:
        assert path.read_bytes() == content
        path.unlink()


def peak():
    """Bytes that this process had in memory at most; what getrusage tells includes the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
