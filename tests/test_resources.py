"""What memory there is, by the machine and by its containers, and what is refused for want of it."""

import subprocess
import sys

import pytest

from fusion_nets import resources
from fusion_nets.clinical import ImageError, Reason, errors
from fusion_nets.clinical.errors import check_voxels

GIB = 2**30


@pytest.fixture
def machine(monkeypatch):
    """With so much memory and room on the disk, in bytes."""

    def has(memory, room):
        monkeypatch.setattr(errors, "available_memory", lambda: memory)
        monkeypatch.setattr(errors, "available_room", lambda: room)

    return has


def test_there_is_some():
    assert 0 < resources.available_memory() <= sys.maxsize
    assert resources.available_room() > 0


@pytest.mark.parametrize(
    ("limit", "used", "cached"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_container_has_less_than_its_machine(limit, used, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "CGROUPS", tmp_path)
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text("3000000\n")
    (tmp_path / used).write_text("2500000\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 7\n{cached} 400000\n")
    monkeypatch.setattr(resources, "_cgroups", lambda: [(tmp_path / limit).parent])
    assert resources.available_memory() == 900000
    (tmp_path / limit).write_text("max\n")
    assert resources.available_memory() > 900000


def test_a_volume_in_a_file_needs_room_there(machine):
    """300 slices of 512 x 512 take little memory, and twelve times their size on the disk at most."""
    shape, size = (1, 512, 512, 300), 300 * GIB / 1024
    machine(memory=GIB // 4, room=int(12 * size))
    check_voxels("ct", shape)
    machine(memory=GIB // 4, room=int(12 * size) - 1)
    with pytest.raises(ImageError, match=r"^ct: shape \(1, 512, 512, 300\) takes 3.5 GiB in .*TMPDIR") as caught:
        check_voxels("ct", shape)
    assert caught.value.reason is Reason.TOO_LARGE


def test_what_is_read_as_a_whole_needs_memory(machine):
    machine(memory=GIB, room=1000 * GIB)
    check_voxels("a.nrrd", (1, 512, 512, 512), held=4)
    with pytest.raises(ImageError, match=r"takes 1.0 GiB of memory, 1.0 are there; .* is accepted"):
        check_voxels("a.nrrd", (1, 512, 512, 513), held=4)


def test_there_is_no_limit_by_a_number(machine):
    machine(memory=GIB, room=10**15)
    check_voxels("ct", (1, 4096, 4096, 4096))


@pytest.mark.slow
def test_the_limit_of_addresses_counts():
    script = (
        "import resource\n"
        "from fusion_nets.resources import available_addresses, available_memory\n"
        "before = available_addresses()\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 2**29, taken + 2**29))\n"
        "print(before > 2**40, 2**28 < available_memory() <= available_addresses() + 2**20 <= 2**29 + 2**20)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True"]


def test_what_a_machine_has_counts_whoever_takes_it(tmp_path, monkeypatch):
    machine = resources.total_memory()
    assert resources.available_memory() <= machine <= sys.maxsize
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 7\n")
    monkeypatch.setattr(resources, "_cgroups", lambda: [tmp_path])
    assert resources.total_memory() == 3000000
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.total_memory() >= machine
