import hashlib
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusion_nets import running
from fusion_nets.files import file_sha256, remove_partials, whole_file, whole_folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("old", [None, b"old"])
def test_appears_when_it_is_whole(tmp_path, old):
    path = tmp_path / "a.nii.gz"
    if old:
        path.write_bytes(old)
    with whole_file(path) as partial:
        partial.write_bytes(b"half")
        assert (path.read_bytes() if path.exists() else None) == old
        partial.write_bytes(b"whole")
    assert content(tmp_path) == {"a.nii.gz": b"whole"}


def test_name_to_write_to(tmp_path):
    with whole_file(str(tmp_path / "a.nii.gz")) as partial:
        assert partial.parent == tmp_path  # renaming works on one file system only
        assert partial.name != "a.nii.gz"
        assert partial.name.startswith(".")
        assert partial.name.endswith(".nii.gz")
        partial.touch()


def test_folder_is_made(tmp_path):
    with whole_file(tmp_path / "new" / "deeper" / "a.txt") as partial:
        partial.write_text("whole")
    assert (tmp_path / "new" / "deeper" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_nothing_changes_when_writing_fails(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old:
        path.write_bytes(old)

    def write_half():
        with whole_file(path) as partial:
            partial.write_bytes(b"half")
            raise error("stopped")

    with pytest.raises(error):
        write_half()
    assert content(tmp_path) == ({"a.txt": old} if old else {})


def test_nothing_written_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.txt"):
        pass
    assert content(tmp_path) == {"a.txt": b"old"}


def test_destination_is_a_folder(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError), whole_file(tmp_path / "a.txt") as partial:  # noqa: PT011
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert list((tmp_path / "a.txt").iterdir()) == []


def test_folder_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), whole_file(tmp_path / "file" / "a.txt"):  # noqa: PT011
        pytest.fail("there is no place to write to")


def test_sha256_of_a_file(tmp_path):
    content = b"fusion" * 400_000
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_what_a_killed_process_leaves_is_removed_and_no_more(tmp_path):
    writer = """
import os, signal, sys
from fusion_nets.files import whole_file
with whole_file(sys.argv[1]) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "a.txt"
    assert subprocess.run([sys.executable, "-c", writer, str(path)]).returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(content(tmp_path)) == 1
    (tmp_path / ".other.partial.txt").write_text("somebody's")
    with whole_file(path) as partial:
        partial.write_text("whole")
        remove_partials(tmp_path)
    assert content(tmp_path) == {"a.txt": b"whole", ".other.partial.txt": b"somebody's"}
    remove_partials(tmp_path / "missing")


def fill(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


OLD, NEW = "old, by fusion-nets", "new, by fusion-nets"


@pytest.mark.parametrize("old", [None, {}, {"a": OLD, "b": OLD}])
def test_folder_appears_when_it_is_whole(tmp_path, old):
    if old is not None:
        fill(tmp_path / "a", **old)
    with whole_folder(tmp_path / "a") as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith(".")
        fill(partial, a=NEW)
        assert (tmp_path / "a").exists() == (old is not None)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert content(tmp_path / "a") == {"a": NEW.encode()}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_folder_is_as_before_when_writing_fails(tmp_path, error):
    fill(tmp_path / "a", a=OLD)

    def write_half():
        with whole_folder(tmp_path / "a") as partial:
            fill(partial, a=NEW)
            raise error("stopped")

    with pytest.raises(error):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert content(tmp_path / "a") == {"a": OLD.encode()}


def other_file(folder):
    fill(folder, a=OLD, theirs="old")


def folder_inside(folder):
    fill(folder, a=OLD)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "theirs").write_text("old")


def link_inside(folder):
    fill(folder.parent / "elsewhere", a=OLD)
    folder.mkdir()
    (folder / "a").symlink_to(folder.parent / "elsewhere" / "a")


def link(folder):
    fill(folder.parent / "elsewhere", a=OLD)
    folder.symlink_to(folder.parent / "elsewhere")


def file(folder):
    folder.write_text("old")


@pytest.mark.parametrize("make", [other_file, folder_inside, link_inside, link, file])
def test_folder_that_is_not_ours_stays(tmp_path, make):
    make(tmp_path / "a")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "a"))), whole_folder(tmp_path / "a"):
        pytest.fail("it may not be replaced")
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_folder_of_a_killed_process_is_removed(tmp_path):
    writer = """
import os, runpy, signal, sys
whole_folder = runpy.run_path(sys.argv[1])["whole_folder"]
with whole_folder(sys.argv[2]) as partial:
    (partial / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    arguments = [inspect.getfile(whole_folder.__wrapped__), str(tmp_path / "a")]
    assert subprocess.run([sys.executable, "-c", writer, *arguments]).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    remove_partials(tmp_path)
    assert list(tmp_path.iterdir()) == []


WRITE_AND_WAIT = """
import sys, time
from fusion_nets.files import whole_file, whole_folder
with whole_file(sys.argv[1]) as file, whole_folder(sys.argv[2]) as folder:
    file.write_text("half")
    (folder / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
WRITE = """
import sys
from pathlib import Path
from fusion_nets.files import remove_partials, whole_file, whole_folder
with whole_file(sys.argv[1]) as file, whole_folder(sys.argv[2]) as folder:
    file.write_text("whole")
    (folder / "whole").write_text("by fusion-nets")
remove_partials(Path(sys.argv[1]).parent)
"""


@pytest.fixture
def writing(tmp_path):
    """A process that writes a file and a folder in `out`, the two names it left when it was killed."""
    (tmp_path / "out").mkdir()
    arguments = [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path / "out/a.txt"), str(tmp_path / "out/b")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def as_of(folder, **parts):
    """Rename what is left as if a process with these marks had left it."""
    for path in list(folder.iterdir()):
        marks = dict(zip(("host", "place", "process", "beginning", "rest"), path.name[1:].split("-", 4), strict=True))
        path.rename(folder / f".{'-'.join({**marks, **parts}.values())}")


def test_what_a_running_process_writes_stays(writing, tmp_path):
    remove_partials(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2
    writing.kill()
    writing.wait()
    remove_partials(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_process_that_nobody_waits_for_is_no_more(writing, tmp_path):
    writing.kill()
    while Path(f"/proc/{writing.pid}/stat").exists() and running.beginning(writing.pid):
        time.sleep(0.01)
    remove_partials(tmp_path / "out")  # though it is there as a zombie
    assert list((tmp_path / "out").iterdir()) == []


def test_earlier_life_of_the_same_number(writing, tmp_path):
    """As when the number of a killed process was given to this one, which writes the same."""
    writing.kill()
    writing.wait()
    as_of(tmp_path / "out", process=str(os.getpid()))
    with whole_file(tmp_path / "out/a.txt") as file, whole_folder(tmp_path / "out/b") as folder:
        file.write_text("whole")
        remove_partials(tmp_path / "out")
        assert sorted(tmp_path.glob("out/.*")) == sorted([file, folder])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "b"]


@pytest.mark.parametrize("place", ["00000000", None])
def test_what_cannot_be_seen_is_left_if_it_is_older_than_this_process(writing, tmp_path, place):
    """Of another container, or an earlier life of this one; `place` None: that of another host stays whatever."""
    writing.kill()
    as_of(tmp_path / "out", **({"place": place} if place else {"host": "00000000"}))
    remove_partials(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2, "younger than this process"
    for path in (tmp_path / "out").iterdir():
        os.utime(path, (1, 1))
    remove_partials(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == (0 if place else 2)


def test_container_that_starts_again(tmp_path):
    """With its host name, and the number 1, as Docker starts one."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c"]
    if subprocess.run([*inside, ""], capture_output=True).returncode:
        pytest.skip("this machine gives no right to make a namespace of processes")
    arguments = [str(tmp_path / "out/a.txt"), str(tmp_path / "out/b")]
    (tmp_path / "out").mkdir()
    with subprocess.Popen([*inside, WRITE_AND_WAIT, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        remove_partials(tmp_path / "out")
        assert len(list((tmp_path / "out").iterdir())) == 2
        process.kill()
    time.sleep(0.1)  # the kernel ends what is in the namespace
    subprocess.run([*inside, WRITE, *arguments], check=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "b"]


def test_threads_do_not_collide(tmp_path):
    """Many that write the same file and folder at once: one of them is there, whole."""
    ready = threading.Barrier(8)

    def write(number):
        for _ in range(20):
            ready.wait()
            with whole_file(tmp_path / "a.txt") as file, whole_folder(tmp_path / "b") as folder:
                file.write_text(f"{number}" * 5000)
                fill(folder, **{f"{part}": f"{number}, by fusion-nets" for part in range(5)})
            remove_partials(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b"]
    assert len(set((tmp_path / "a.txt").read_text())) == 1
    assert len((tmp_path / "a.txt").read_text()) == 5000
    assert len(content(tmp_path / "b")) == 5
    assert len(set(content(tmp_path / "b").values())) == 1
