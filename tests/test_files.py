import hashlib
import inspect
import re
import signal
import subprocess
import sys

import pytest

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
