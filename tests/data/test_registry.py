from pathlib import Path

import pytest
import torch

from carelab.data import DataError, catalogue, check, fetch, load
from carelab.data.registry import ENTRIES
from carelab.records import Dataset


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("CARELAB_DATA", raising=False)
    monkeypatch.setattr("carelab.data.fetching.cache_folder", lambda: tmp_path)
    return tmp_path


def test_entries_are_sound() -> None:
    names = [entry.source.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    files = [file for entry in ENTRIES for file in entry.source.files]
    assert len({file.path for file in files}) == len(files)
    for file in files:
        assert file.address.startswith("https://")
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 0
        assert not file.path.startswith("/")


def test_catalogue_of_an_empty_machine(empty_machine: Path) -> None:
    found = {entry.name: entry.found for entry in catalogue()}
    embedded = {name for name, place in found.items() if place == "embedded"}
    assert embedded == {"embedded-census", "embedded-credit", "digits"}
    found = {name: place for name, place in found.items() if name not in embedded}
    assert set(found.values()) == {"to download"}
    assert {"adult", "german", "bank", "compas", "adf-census", "adf-credit", "adf-bank"} < set(
        found
    )
    assert {"mnist", "fashion-mnist", "cifar10", "gtsrb"} < set(found)
    assert {status.status for status in check()} == {"missing"}


def test_catalogue_and_check_tell_a_damaged_file(empty_machine: Path) -> None:
    path = empty_machine / "german" / "german.data"
    path.parent.mkdir()
    path.write_text("A11 6 A34\n")
    german = next(entry for entry in catalogue() if entry.name == "german")
    assert (german.found, german.size) == ("cache", 79793)
    status = next(status for status in check() if status.name == "german")
    assert status.status == "wrong checksum"
    assert "truncated: 10 of 79793 bytes" in status.detail


def test_half_a_set_is_still_to_download(empty_machine: Path) -> None:
    path = empty_machine / "adult" / "adult.data"
    path.parent.mkdir()
    path.write_text("half")
    assert next(e for e in catalogue() if e.name == "adult").found == "to download"


def test_a_part_of_a_set_that_is_enough_counts_as_found(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARELAB_DATA", str(empty_machine))
    folder = empty_machine / "cifar10"
    folder.mkdir()
    (folder / "data_batch_4.bin").write_bytes(b"short")
    assert next(e for e in catalogue() if e.name == "cifar10").found == "to download"
    (folder / "test_batch_first1000.bin").write_bytes(b"short")
    cifar10 = next(entry for entry in catalogue() if entry.name == "cifar10")
    assert (cifar10.found, cifar10.size) == ("CARELAB_DATA", 30730000 + 3073000)
    statuses = [status for status in check() if status.name == "cifar10"]
    assert [status.status for status in statuses] == ["wrong checksum", "wrong checksum"]
    assert "truncated: 5 of 30730000 bytes" in statuses[0].detail
    with pytest.raises(DataError, match=r"data_batch_4.bin is truncated: 5 of 30730000 bytes"):
        load("cifar10", generator=torch.Generator())


def test_embedded_sets_need_no_file(empty_machine: Path) -> None:
    assert fetch("embedded-census") == ()
    dataset = load("embedded-credit", generator=torch.Generator().manual_seed(0))
    assert isinstance(dataset, Dataset)
    assert fetch("digits") == ()
    assert len(load("digits", generator=torch.Generator().manual_seed(0)).train) == 1078
    assert list(empty_machine.iterdir()) == []


def test_missing_set_is_an_error_and_never_another_set(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", unreachable)
    with pytest.raises(DataError, match=r"german.data could not be fetched .*unreachable"):
        load("german", generator=torch.Generator())


def test_unknown_names() -> None:
    with pytest.raises(
        ValueError, match="name: got 'cencus', which is no data set; allowed: adult"
    ):
        load("cencus", generator=torch.Generator())
    with pytest.raises(ValueError, match="name: got 'cencus', which is not in the catalogue"):
        fetch("cencus")
    with pytest.raises(ValueError, match="got 'adf-census-network', which is no data set"):
        load("adf-census-network", generator=torch.Generator())
