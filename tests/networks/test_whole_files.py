from __future__ import annotations

import pytest

from carelab.networks.whole_files import existing_file, staged, write_whole


def test_staged_replaces_only_at_the_end(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with staged(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_staged_leaves_the_older_file_after_an_error(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with staged(target) as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_write_whole_replaces_an_older_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a"
    write_whole(target, b"old")
    write_whole(str(target), b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_write_whole_names_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        write_whole(tmp_path / "missing" / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_existing_file_refuses_what_is_missing_or_too_large(tmp_path):
    write_whole(tmp_path / "a", b"abc")
    assert existing_file(tmp_path / "a", largest=3) == tmp_path / "a"
    with pytest.raises(ValueError, match=r"path: .*a is too large, 3 bytes; allowed: 2"):
        existing_file(tmp_path / "a", largest=2)
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        existing_file(tmp_path / "b")
