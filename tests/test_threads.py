"""What belongs to the whole process is as it was when threads that changed it overlapped, and was quiet meanwhile."""

import logging
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
import pytest
import torch
from pydicom import config

from evaluation.functional._helpers import _SINGLE, _in_threads
from evaluation.report.figures import figure_of
from evaluation.report.subjects import bootstrap_interval
from fusion_nets import quiet
from fusion_nets.clinical.dicom.parsing import parsing
from fusion_nets.quiet import Shared, silence
from fusion_nets.workflows.progress import LOG_ABOVE_BAR

NOISY = ("pydicom", "pydicom.pixels.decoders.base", "pydicom.made.later")


class Steps:
    """Two threads that take turns: each waits until the other has come as far."""

    def __init__(self):
        self.done = [threading.Event() for _ in range(5)]

    def run(self, first, second):
        with ThreadPoolExecutor(2) as pool:
            for ended in [pool.submit(first, self), pool.submit(second, self)]:
                ended.result(60)


def overlapping(first, second, inside=lambda: None):
    """The bad order: the first enters, the second enters, the first leaves, the second leaves."""

    def leaves_first(steps):
        with first():
            steps.done[0].set()
            steps.done[1].wait(30)
            inside()
        steps.done[2].set()

    def leaves_last(steps):
        steps.done[0].wait(30)
        with second():
            steps.done[1].set()
            steps.done[2].wait(30)
            inside()

    Steps().run(leaves_first, leaves_last)


def state():
    filters = [one for one in warnings.filters if one is not quiet._FILTER]
    levels = {name: logging.getLogger(name).level for name in (*NOISY, "highdicom", "monai.bundle.workflows")}
    validation = config.settings._reading_validation_mode, config.settings._writing_validation_mode
    return filters, levels, validation, list(logging.root.handlers), torch.get_num_threads()


def speak():
    """A warning and a log, as pydicom speaks of a value."""
    warnings.warn("Invalid value for VR PN: 'Doe^John'", UserWarning, stacklevel=1)
    for name in NOISY:
        logging.getLogger(name).warning("PatientName Doe^John")


def test_parsing(caplog):
    before = state()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        overlapping(lambda: parsing("a"), lambda: parsing("b"), speak)
        assert told == []
        speak()
    assert state() == before
    assert len(told) == 1
    assert caplog.text.count("Doe^John") == len(NOISY)  # what was said afterwards
    assert len(caplog.records) == len(NOISY)


def test_the_other_thread_may_speak(caplog):
    """What this library keeps quiet of pydicom's it keeps for itself."""

    def parses(steps):
        with parsing("a"):
            steps.done[0].set()
            steps.done[1].wait(30)

    def speaks(steps):
        steps.done[0].wait(30)
        with pytest.warns(UserWarning, match="Invalid value"):
            speak()
        steps.done[1].set()

    Steps().run(parses, speaks)
    assert len(caplog.records) == len(NOISY)


def test_one_within_another(caplog):
    logger = logging.getLogger("monai.bundle.workflows")
    with silence(("monai.bundle.workflows",), below=logging.ERROR):
        with parsing("a"):
            speak()
            logger.warning("not heard")
        logger.warning("not heard")
        logger.error("heard")
        logging.getLogger("pydicom").warning("heard")
    logger.warning("heard")
    assert [record.message for record in caplog.records] == ["heard"] * 3


def test_errors_leave_it(caplog):
    before = state()

    def broken(steps):
        with pytest.raises(ValueError, match="damaged DICOM"), parsing("a"):
            raise KeyError("Doe^John")

    Steps().run(broken, broken)
    assert state() == before


def test_a_filter_that_came_before(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with silence():
            speak()
        with pytest.raises(UserWarning):
            speak()
        with silence():
            warnings.simplefilter("error")  # by somebody, meanwhile
        with silence():
            speak()


@pytest.mark.parametrize("shared", [LOG_ABOVE_BAR, _SINGLE])
def test_shared_changes(shared):
    logging.root.addHandler(handler := logging.StreamHandler(sys.stderr))
    try:
        before = state()
        overlapping(lambda: shared, lambda: shared)
        assert state() == before
    finally:
        logging.root.removeHandler(handler)


def test_the_first_makes_it_and_the_last_undoes_it():
    made = []

    class Change:
        def __enter__(self):
            made.append("made")

        def __exit__(self, *_):
            made.append("undone")

    shared = Shared(Change)
    overlapping(lambda: shared, lambda: shared, lambda: made.append("inside"))
    assert made == ["made", "inside", "inside", "undone"]
    with shared, shared:
        pass
    assert made[4:] == ["made", "undone"]


def test_threads_of_metrics():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        chunks = [[torch.ones(1)]] * 4
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: _in_threads(lambda chunk: list(chunk), chunks), range(20)))
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3, "what a new thread begins with"
    finally:
        torch.set_num_threads(before)


def test_figures():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:

        def draw(number):
            with figure_of((1, 1), dark=bool(number % 2)) as figure:
                return figure.get_facecolor(), matplotlib.rcParams["text.color"]

        drawn = list(pool.map(draw, range(40)))
    assert len(set(drawn[::2])) == len(set(drawn[1::2])) == 1
    assert dict(matplotlib.rcParams) == before


def test_intervals():
    """Where bootstrap complains, in several threads."""
    before = state()
    values, subjects = [1.0, 1, 1, 1, 2], list("abcde")
    alone = bootstrap_interval(values, subjects, resamples=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda _: bootstrap_interval(values, subjects, resamples=50), range(12)))
    np.testing.assert_array_equal(got, [alone] * 12)
    assert state() == before


def test_series_read_by_many_at_once(dicom_study, caplog):
    """With values that pydicom complains of, by threads that come and go."""
    from fusion_nets.clinical.dicom import find_series

    before = state()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda name: len(find_series(dicom_study[name])), ["mri", "pet", "ct"] * 4))
    assert set(found) == {1}
    assert told == []
    assert state() == before
    assert pydicom.config.settings.reading_validation_mode == config.WARN
