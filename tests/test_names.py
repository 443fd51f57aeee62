"""Names that users give reach the disk as they are, or are refused; what is read is not written over."""

import os

import pytest

from fusion_nets.files import whole_file, whole_folder
from fusion_nets.names import check_destination, check_name, entries_read, is_result, perhaps

RESULTS = ("_fused.nii.gz", "_fused.json", "_fused.png", "_fused.html", "_fused_slices", "_dicom", "_montage.png",
           "_mip.png", "_checkerboard.png", "_registration.tfm", "_regions.csv", "_description.json",
           "_registration2.tfm", "_checkerboard3.png", "_mip2.png")  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "$1 + 1",
        "@a",
        "%a",
        "a#b",
        "a::b",
        "~",
        "-a",
        ".a",
        "a b",
        "a\nb",
        "ü漢",
        "*?[a]",
        "{x}",
        "a_fused",
        "\\",
        "'\"",
    ],
)
def test_whatever_a_name_is(tmp_path, name):
    check_name(name, tmp_path / "out")
    for behind in RESULTS:
        with whole_file(tmp_path / "out" / f"{name}{behind}") as partial:
            partial.write_text("content")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}{behind}" for behind in RESULTS}
    assert all(is_result(name, path.name) for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "/a", "a/", "../a", "a\0b", "\0", "\ud800"])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(ValueError, match=r"the name .* accepted"):
        check_name(name, tmp_path)


@pytest.mark.parametrize("letter", ["n", "ü", "漢"])
def test_names_of_the_longest_length(tmp_path, letter):
    """Up to what the file system takes, behind it the longest ending of a result, before it what marks a partial."""
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - max(map(len, RESULTS))
    name = letter * (most // len(letter.encode()))
    check_name(name, tmp_path)
    for behind in RESULTS:
        with whole_file(tmp_path / f"{name}{behind}") as partial:
            assert partial.name.endswith(behind)  # from which writers tell the format
            partial.write_text("content")
    with whole_folder(tmp_path / f"{name}_x") as partial:
        (partial / "a").write_text("fusion-nets")
    with whole_folder(tmp_path / f"{name}_x"):  # once more, over the first
        pass
    with pytest.raises(ValueError, match=f"up to {most} are accepted"):
        check_name(name + letter, tmp_path / "not" / "there")


def test_long_names_that_end_alike_are_written_at_once(tmp_path):
    paths = [tmp_path / (letter + 230 * "n" + ".txt") for letter in "ab"]
    with whole_file(paths[0]) as first, whole_file(paths[1]) as second:
        first.write_text("a")
        second.write_text("b")
    assert [path.read_text() for path in paths] == ["a", "b"]


@pytest.mark.parametrize("name", ["case1", "case1_b", "a", "a_fused", "a_fused.b", "a_fused_slices", "a_dicom"])
def test_results_are_of_one_pair_alone(name):
    names = ["case1", "case1_b", "a", "a_fused", "a_fused.b", "a_fused_slices", "a_dicom"]
    for behind in RESULTS:
        assert [other for other in names if is_result(other, f"{name}{behind}")] == [name]
    assert not is_result("a", "a_pred.png")
    assert not is_result("a", "a.png")


def test_what_of_a_folder_is_read(tmp_path):
    out = tmp_path / "out"
    (out / "x_dicom").mkdir(parents=True)
    for name in ("a.png", "real.png", "x_dicom/1.dcm"):
        (out / name).touch()
    (tmp_path / "outside.png").touch()
    (out / "link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "link.png").symlink_to(out / "real.png")
    (tmp_path / "same").symlink_to(out)
    sources = [out / "a.png", out / "link.png", tmp_path / "link.png", tmp_path / "same" / "x_dicom", "/nowhere", "a\0"]
    for folder in (out, tmp_path / "same"):
        assert set(entries_read(folder, sources)) == {"a.png", "link.png", "real.png", "x_dicom"}
    assert entries_read(tmp_path / "other", sources) == {}


def test_a_destination_that_is_read(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "folder" / "a.png")
    for written, read in (("folder/a.png", "folder/a.png"), ("folder/a.png", "link.png"), ("link.png", "folder/a.png"),
                          ("folder", "folder/a.png"), ("folder", "folder"), ("link.png", "link.png"),
                          ("folder/../folder/a.png", "link.png")):  # fmt: skip
        with pytest.raises(ValueError, match=f"written over .*{read}"):
            check_destination(tmp_path / written, [None, tmp_path / "b.png", tmp_path / read])
    check_destination(tmp_path / "folder" / "b.png", [tmp_path / "folder" / "a.png", tmp_path / "folder", None, ""])


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("regsiter", "register"),
        ("registre", "register"),
        ("overlya_text", "overlay_text"),
        ("regi", "register"),
        ("overlay_", "overlay_text"),
        ("x", None),
        (10**6 * "r", None),
    ],
)
def test_the_nearest_right_name(word, meant):
    accepted = ["register", "register_fallback", "overlay", "overlay_text"]
    assert perhaps(word, accepted) == (f", perhaps {meant!r}" if meant else "")
