"""What is launched on a GPU is recorded once for a size, and replayed; without a GPU, by recordings that compute."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fusion_nets.networks import TextGuidedUNet
from fusion_nets.workflows import EngineNetwork, recorded
from fusion_nets.workflows.recorded import RecordedRun

POOL = (0, 1)


@pytest.fixture
def made(monkeypatch):
    """Which images were recorded, and in which memory."""
    made = []

    def record(run, given, pool):
        made.append((tuple(given[0].shape), pool))
        mine = tuple(one.clone() for one in given)
        result = run(*mine)
        graph = SimpleNamespace(replay=lambda: result.copy_(run(*mine)), pool=lambda: POOL)
        return recorded._Recording(graph, mine, result)

    monkeypatch.setattr(recorded, "_is_small", lambda given: True)
    monkeypatch.setattr(recorded, "_recorded", record)
    return made


@pytest.fixture
def run():
    torch.manual_seed(0)
    part = nn.Conv2d(2, 1, 3, padding=1)
    return RecordedRun(lambda image, more=0: part(image) + more, part)


@torch.no_grad()
def test_it_gives_what_is_recorded_again_for_other_images(run, made):
    images = torch.rand(6, 1, 2, 8, 9)
    results = [run(image) for image in images]
    for image, result in zip(images, results, strict=True):
        assert torch.equal(result, run.part(image))
    assert made == [((1, 2, 8, 9), None)]
    assert torch.equal(run(images[0], 2 * torch.ones(1)), run.part(images[0]) + 2)
    assert len(made) == 1


@torch.no_grad()
def test_each_size_is_recorded_and_all_share_their_memory(run, made):
    for _ in range(3):
        for size in (8, 12):
            image = torch.rand(1, 2, size, size)
            assert torch.equal(run(image), run.part(image))
    assert made == [((1, 2, 8, 8), None), ((1, 2, 12, 12), POOL)]


@torch.no_grad()
def test_sizes_that_come_once_are_not_recorded_and_few_are_kept(run, made):
    for size in range(4, 104):
        run(torch.rand(1, 2, size, 8))
    assert made == []
    assert len(run._seen) == recorded._SEEN
    for size in range(96, 104):
        run(torch.rand(1, 2, size, 8))
    assert len(made) == 8
    assert [kind[1][0][2] for kind in run._recordings] == [100, 101, 102, 103]


@torch.no_grad()
def test_weights_in_other_memory_are_recorded_anew(run, made):
    image = torch.rand(1, 2, 8, 8)
    for _ in range(2):
        run(image)
    kept = run.part.weight.data
    run.part.weight.data = kept * 2
    for _ in range(2):
        assert torch.equal(run(image), run.part(image))
    assert len(made) == 2


@torch.no_grad()
def test_what_cannot_be_recorded_is_run_as_it_is(run, made, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(recorded, "_recorded", fail)
    image = torch.rand(1, 2, 8, 8)
    for _ in range(4):
        assert torch.equal(run(image), run.part(image))
    (record,) = caplog.records
    assert "operation not permitted when stream is capturing" in record.getMessage()


@torch.no_grad()
def test_on_a_processor_nothing_is_recorded(run):
    image = torch.rand(1, 2, 8, 8)
    for _ in range(3):
        run(image)
    assert not run._seen


def test_an_engine_of_torch_records(made):
    network = TextGuidedUNet(8).eval()
    torch.nn.init.normal_(network.fusion.head.weight, std=0.05)
    fast, image = EngineNetwork(network, engine="torch", precision="float32"), torch.rand(1, 2, 40, 48)
    with torch.no_grad():
        expected = network(image)
        for _ in range(3):
            assert torch.equal(fast(image), expected)
        assert len(made) == 1
        network.fusion.head.weight.mul_(2)
        assert torch.equal(fast(image), network(image))
