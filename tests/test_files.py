"""Files and folders that appear whole or not at all."""

import os

import pytest

from deepmatch_ext._files import unfinished_folder, whole_file, whole_folder, write_text

pytestmark = pytest.mark.plain


@pytest.mark.parametrize("suffix", ["", ".weights.h5"])
def test_a_file_is_replaced_when_all_is_written(tmp_path, suffix):
    path = tmp_path / "a.txt"
    path.write_text("older")
    with whole_file(path, suffix) as unfinished:
        unfinished.write_text("newer")
        assert unfinished.name.startswith(".a.txt-")
        assert unfinished.name.endswith(f".tmp{suffix}")
        assert path.read_text() == "older"
    assert path.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("older", [True, False])
def test_a_file_that_fails_leaves_what_was_there(tmp_path, error, older):
    path = tmp_path / "a.txt"
    if older:
        path.write_text("older")

    def fail():
        with whole_file(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert [each.read_text() for each in tmp_path.iterdir()] == ["older"] * older


def test_a_file_that_was_never_written_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("older")
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass
    assert path.read_text() == "older"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    write_text(link, "æ\n")
    assert link.is_symlink()
    assert target.read_bytes() == b"\xc3\xa6\n"
    assert sorted(tmp_path.rglob("*.t*")) == [target, link]


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127])
def test_a_name_may_be_as_long_as_the_system_takes(tmp_path, name):
    write_text(tmp_path / name, "x")
    with whole_folder(tmp_path / name[1:]) as folder:
        write_text(folder / name, "x")
    assert sorted(os.listdir(tmp_path)) == sorted([name, name[1:]])


def test_a_folder_appears_when_all_is_written(tmp_path):
    path = tmp_path / "made"
    with whole_folder(path) as unfinished:
        (unfinished / "deep").mkdir()
        (unfinished / "deep" / "a.txt").write_text("x")
        assert not path.exists()
    assert [each.relative_to(tmp_path).as_posix() for each in sorted(tmp_path.rglob("*"))] == [
        "made",
        "made/deep",
        "made/deep/a.txt",
    ]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def fail():
        with whole_folder(tmp_path / "made") as unfinished:
            (unfinished / "a.txt").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with unfinished_folder(tmp_path / "made") as unfinished:  # not renamed
        (unfinished / "a.txt").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_never_replaced(tmp_path):
    write_text(tmp_path / "a.txt", "older")
    (tmp_path / "made").mkdir()
    write_text(tmp_path / "made" / "b.txt", "older")
    for taken in ("a.txt", "made"):
        with pytest.raises(OSError, match=taken), whole_folder(tmp_path / taken) as unfinished:
            (unfinished / "c.txt").write_text("x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b.txt", "made"]
