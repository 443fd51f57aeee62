import csv
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, ConcatItemsd, CopyItemsd
from PIL import Image

from evaluation import FusionSlicesMetric, FusionSSIMMetric
from fusion_nets.datalists import load_pairs
from fusion_nets.transforms import LoadStudyImaged, SaveFusedd, ScaleToDisplayRanged
from fusion_nets.workflows import CaseMetrics, CaseRecords, PairBatch, PairStream, SlicewiseInferer, cases

NAMES = ["one", "two", "three"]
TABLES = {"metrics.csv", *(f"{name}_{kind}.csv" for name in ("SSIM", "slices") for kind in ("raw", "summary"))}


class Mean(torch.nn.Module):
    """Stands for a fusion network, and knows how many images it fused."""

    def __init__(self, padding=0):
        super().__init__()
        self.mix = torch.nn.Conv2d(2, 1, 1 + 2 * padding, padding=padding, bias=False)
        torch.nn.init.constant_(self.mix.weight, 0.5 / (1 + 2 * padding) ** 2)
        self.fused = 0

    def forward(self, image):
        self.fused += len(image)
        return self.mix(image)


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    for name in NAMES:
        for key in ("anatomy", "overlay"):
            Image.fromarray(rng.integers(0, 256, (40, 36), dtype=np.uint8)).save(tmp_path / f"{name}_{key}.png")
    files = [{key: str(tmp_path / f"{name}_{key}.png") for key in ("anatomy", "overlay")} for name in NAMES]
    return load_pairs([{**pair, "name": name} for pair, name in zip(files, NAMES, strict=True)])


def run(pairs, folder, window=(0, 255), network=None, resume=True, handlers=(), batch_size=1):
    """Fuse and measure; how many were fused."""
    network = network or Mean()
    keys = ("anatomy", "overlay")
    prepare = [LoadStudyImaged(keys), ScaleToDisplayRanged(keys, list(window)), ConcatItemsd(keys, "image")]
    after = [CopyItemsd("pred", names="fused"), SaveFusedd(output_dir=folder)]
    metrics = {"SSIM": FusionSSIMMetric(), "slices": FusionSlicesMetric()}
    settings = [Compose(prepare), network, SlicewiseInferer(), Compose(after), metrics]
    records = CaseRecords(folder, pairs, settings, resume)
    stream = PairStream(pairs, Compose(prepare), records)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(stream, batch_size=batch_size),
        network=network,
        inferer=SlicewiseInferer(),
        prepare_batch=PairBatch(),
        postprocessing=Compose(after),
        val_handlers=[records, CaseMetrics(folder, records, metrics), *handlers],
    )
    engine.run()
    stream.finish()
    return network.fused


def tables(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def order(folder):
    with (folder / "SSIM_raw.csv").open() as file:
        return [row["filename"] for row in csv.DictReader(file)]


def test_other_labels_are_another_case(pairs, tmp_path):
    records = CaseRecords(tmp_path, pairs)
    plain = records._made_by("one")
    mask = tmp_path / "mask.nrrd"
    mask.write_bytes(b"1")
    records.pairs["one"]["regions"] = str(mask)
    marked = records._made_by("one")
    assert marked == records._made_by("one") != plain
    mask.write_bytes(b"11")
    assert records._made_by("one") not in (plain, marked)


def test_what_is_done_is_not_done_again(pairs, tmp_path, caplog):
    out = tmp_path / "out"
    assert run(pairs, out) == 3
    first = tables(out)
    assert set(first) == TABLES
    for table in TABLES:
        (out / table).unlink()
    with caplog.at_level("INFO"):
        assert run(pairs, out) == 0
    assert "3 of 3 pairs were done before" in caplog.text
    assert tables(out) == first
    shutil.move(out, tmp_path / "elsewhere")
    assert run(pairs, tmp_path / "elsewhere") == 0


@pytest.mark.parametrize("batch_size", [1, 2])
def test_broken_off_and_started_again_equals_a_run_in_one_go(pairs, tmp_path, batch_size):
    class Breaks:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), self.breaks)

        def breaks(self):
            raise InterruptedError("the power is gone")

    once, twice = tmp_path / "once", tmp_path / "twice"
    run(pairs, once, batch_size=batch_size)
    with pytest.raises(InterruptedError):
        run(pairs, twice, handlers=[Breaks()], batch_size=batch_size)
    assert len(list((twice / ".cases").iterdir())) == batch_size
    assert not tables(twice)
    assert run(pairs, twice, batch_size=batch_size) == 3 - batch_size
    assert tables(once) == tables(twice)


def touch(pairs, out):
    os.utime(pairs[1]["overlay"], ns=(0, 0))


def grow(pairs, out):
    with open(pairs[1]["anatomy"], "ab") as file:
        file.write(b" ")
    os.utime(pairs[1]["anatomy"])


def lose(pairs, out):
    (out / "two_fused.png").unlink()


def damage(pairs, out):
    path = out / ".cases" / "two.json"
    path.write_bytes(path.read_bytes()[:-20])


def empty(pairs, out):
    (out / "two_fused.png").write_bytes(b"")


def shorten(pairs, out):
    path = out / "two_fused.png"
    path.write_bytes(path.read_bytes()[:-1])


def be_of_version_0_2(pairs, out):
    path = out / ".cases" / "two.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "files": list(record["files"])}))


def describe(pairs, out):
    pairs[1]["anatomy_text"] = "a head"


@pytest.mark.parametrize("change", [touch, grow, lose, damage, empty, shorten, be_of_version_0_2, describe])
def test_a_case_that_changed_is_done_again(pairs, tmp_path, change):
    out = tmp_path / "out"
    run(pairs, out)
    first = tables(out)
    change(pairs, out)
    assert run(pairs, out) == 1
    assert (out / "two_fused.png").is_file()
    assert tables(out) == first


@pytest.mark.parametrize("option", [{"window": (0, 200)}, {"network": Mean(1)}])
def test_another_setting_does_all_again(pairs, tmp_path, option):
    out = tmp_path / "out"
    run(pairs, out)
    assert run(pairs, out, **option) == 3
    assert run(pairs, out) == 3


def weights(value):
    network = Mean()
    torch.nn.init.constant_(network.mix.weight, value)
    return network


def test_other_weights_do_all_again(pairs, tmp_path):
    """As they are when the run begins, whoever loaded them."""

    class Loads:
        def attach(self, engine):
            engine.add_event_handler(Events.STARTED, lambda: network.load_state_dict(weights(0.25).state_dict()))

    out, network = tmp_path / "out", weights(0.1)
    assert run(pairs, out, network=network, handlers=[Loads()]) == 3
    assert run(pairs, out, network=weights(0.25)) == 0
    assert run(pairs, out, network=weights(0.1)) == 3


def test_the_same_run_once_more_and_after_more_training(pairs, tmp_path):
    network, fused, out = torch.nn.Conv2d(2, 1, 1, bias=False), [], tmp_path / "out"
    network.register_forward_hook(lambda *_: fused.append(1))
    keys = ("anatomy", "overlay")
    prepare = Compose([LoadStudyImaged(keys), ScaleToDisplayRanged(keys, [0, 255]), ConcatItemsd(keys, "image")])
    after, metric = Compose([CopyItemsd("pred", names="fused"), SaveFusedd(output_dir=out)]), FusionSSIMMetric()
    records = CaseRecords(out, pairs, [prepare, network, after, metric])
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(PairStream(pairs, prepare, records), batch_size=1),
        network=network,
        prepare_batch=PairBatch(),
        postprocessing=after,
        val_handlers=[records, CaseMetrics(out, records, {"SSIM": metric})],
    )
    for value, count in ((0.5, 3), (0.5, 3), (0.25, 6)):
        torch.nn.init.constant_(network.weight, value)
        engine.run()
        assert len(fused) == count


def test_another_library_does_all_again(pairs, tmp_path, monkeypatch):
    run(pairs, tmp_path / "out")
    monkeypatch.setattr(cases, "library_digest", lambda: "another")
    assert run(pairs, tmp_path / "out") == 3


def test_a_file_that_changes_while_it_is_fused(pairs, tmp_path):
    class Changes:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: touch(pairs, None))

    run(pairs, tmp_path / "out", handlers=[Changes()])
    assert run(pairs, tmp_path / "out") == 1


def test_a_longer_datalist_in_another_order(pairs, tmp_path):
    out, alone = tmp_path / "out", tmp_path / "alone"
    assert run(pairs[1:], out) == 2
    assert order(out) == ["two", "three"]
    reordered = [pairs[2], pairs[0], pairs[1]]
    assert run(reordered, out) == 1
    assert order(out) == ["three", "one", "two"]
    run(reordered, alone)
    assert tables(out) == tables(alone)


def test_a_case_that_fails_now_is_in_no_table(pairs, tmp_path):
    out = tmp_path / "out"
    run(pairs, out)
    Path(pairs[1]["overlay"]).write_text("no picture")
    for _ in range(2):
        with pytest.raises(SystemExit, match="1 of 3"):
            run(pairs, out)
        assert order(out) == ["one", "three"]


def test_nothing_is_done_and_nothing_is_measured(pairs, tmp_path):
    for pair in pairs:
        Path(pair["overlay"]).unlink()
    with pytest.raises(SystemExit, match="3 of 3"):
        run(pairs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_is_done_again_on_demand_and_no_record_is_left(pairs, tmp_path):
    out = tmp_path / "out"
    run(pairs, out)
    first = tables(out)
    assert run(pairs, out, resume=False) == 3
    assert tables(out) == first
    assert list((out / ".cases").iterdir()) == []
    run(pairs[:1], out)
    run(pairs[1:], out, resume=False)
    assert [path.name for path in (out / ".cases").iterdir()] == ["one.json"]
    run(pairs, tmp_path / "other", resume=False)
    assert tables(tmp_path / "other") == first
    assert not (tmp_path / "other" / ".cases").exists()


def test_a_record_tells_no_path(pairs, tmp_path):
    run(pairs, tmp_path / "out")
    text = (tmp_path / "out" / ".cases" / "one.json").read_text()
    assert str(tmp_path) not in text
    record = json.loads(text)
    assert set(record) == {"made_by", "files", "metrics"}
    assert record["files"] == {"one_fused.png": (tmp_path / "out" / "one_fused.png").stat().st_size}
    assert set(record["metrics"]) == {"SSIM", "slices"}


def test_no_value_is_kept_as_such(pairs, tmp_path):
    class Notes:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)

        def note(self, engine):
            (item,) = engine.state.batch
            self.records.note(item["name"], "description", {"similarity": math.nan})

    notes = Notes()
    notes.records = CaseRecords(tmp_path, pairs)
    stream = PairStream(
        pairs, Compose([LoadStudyImaged(), ConcatItemsd(("anatomy", "overlay"), "image")]), notes.records
    )
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(stream, batch_size=1),
        Mean(),
        prepare_batch=PairBatch(),
        val_handlers=[notes.records, notes],
    ).run()
    found = CaseRecords(tmp_path, pairs).noted("description")
    assert list(found) == NAMES
    assert all(math.isnan(figures["similarity"]) for figures in found.values())


def test_a_folder_that_the_machines_do_not_share(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "gathered", lambda value: [value, 2])
    with pytest.raises(RuntimeError, match="3 of 5"):
        run(pairs, tmp_path / "out")
