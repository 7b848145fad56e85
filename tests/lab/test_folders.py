from __future__ import annotations

import os

import pytest

from carelab.lab import folders


def test_checkout_holds_the_package():
    assert (folders.checkout() / "carelab" / "lab" / "folders.py").is_file()


def test_a_package_without_its_checkout_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="without its checkout"):
        folders.checkout()
    assert folders.resolve("out") == tmp_path / "out"


def test_resolve_leaves_an_absolute_folder_alone(tmp_path):
    assert folders.resolve(tmp_path) == tmp_path


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    folder = folders.check_writable(tmp_path / "a" / "b")
    assert list(folder.iterdir()) == []


def test_check_writable_refuses_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"out_dir: cannot write to .*file"):
        folders.check_writable(tmp_path / "file" / "out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_refuses_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"out_dir: cannot write to .*Permission denied"):
        folders.check_writable(tmp_path)
