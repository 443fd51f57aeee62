"""What a run does around its network grows as the number of cases does: calls are counted, not seconds."""

import gc
import json
import sys

import pytest

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.names import entries_read
from fusion_nets.workflows import PairStream, slicing
from tests.benchmarks.many_cases import Run, make_studies

pytestmark = pytest.mark.slow


def calls(run):
    """What it gives, and how many functions were called, those of C among them."""
    count = 0

    def notice(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(notice)
    try:
        given = run()
    finally:
        sys.setprofile(None)
    return given, count


@pytest.mark.parametrize("inside", [True, False], ids=["sources among the results", "sources elsewhere"])
def test_calls_grow_as_cases_do(tmp_path, inside):
    counted = []
    for count in (250, 1000):
        datalist = make_studies(tmp_path / str(count), count)
        if not inside:
            (tmp_path / f"out{count}").mkdir()
            pairs = json.loads(datalist.read_text())
            placed = [{**pair, **{key: f"../{count}/{pair[key]}" for key in ("anatomy", "overlay")}} for pair in pairs]
            datalist = tmp_path / f"out{count}" / "pairs.json"
            datalist.write_text(json.dumps(placed))
        first, making = calls(lambda path=datalist: Run(path))
        fused, doing = calls(first)
        tables = {path.name: path.read_bytes() for path in datalist.parent.glob("*.csv")}
        again, seeing = calls(lambda path=datalist: Run(path)())
        assert (fused, again) == (count, 0)
        assert tables == {path.name: path.read_bytes() for path in datalist.parent.glob("*.csv")}
        assert len(tables["SSIM_raw.csv"].splitlines()) == count + 1
        counted.append((making, doing, seeing))
    for few, many in zip(*counted, strict=True):
        assert 3 * few < many < 4.2 * few


def test_where_folders_lie_is_looked_up_once(tmp_path, monkeypatch):
    looked, real = [], entries_read.__globals__["os"].path.realpath
    monkeypatch.setattr("os.path.realpath", lambda path: looked.append(path) or real(path))
    entries_read(tmp_path / "out", [tmp_path / "in" / f"{number}.png" for number in range(100)])
    assert len(looked) == 2


def test_a_failed_case_holds_no_image():
    class Volume:
        """Stands for one that was loaded before its pair was refused."""

    def refuse(pair):
        volume = Volume()
        raise ImageError(Reason.SHAPE, f"{pair['name']}: {type(volume).__name__}")

    stream = PairStream([{"name": str(number)} for number in range(5)], refuse)
    assert list(stream) == []
    assert len(stream.failures) == 5
    assert stream.failures[0].__traceback__ is not None  # --traceback prints it
    gc.collect()
    assert not any(isinstance(held, Volume) for held in gc.get_objects())


def test_slices_are_noted_within_a_twentieth_of_the_time(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(slicing.time, "monotonic", lambda: now)
    splits = {"PET-MRI": {"train": []}}
    path, written = tmp_path / "splits.json", []
    with slicing._Notes(path, splits) as note:
        write = note._write

        def slowly():
            nonlocal now
            write()
            now += 0.001 * len(splits["PET-MRI"]["train"])
            written.append(len(splits["PET-MRI"]["train"]))

        note._write = slowly
        for number in range(1000):
            now += 0.01
            splits["PET-MRI"]["train"].append(str(number))
            note()
    assert written[0] == 1
    assert written[-1] == 1000 == len(json.loads(path.read_text())["PET-MRI"]["train"])
    assert len(written) < 120  # each once more would be a thousand
