from pathlib import Path

import numpy as np
import pytest
import torch

from carelab.data import DataError, cifar10, digits, fashion_mnist, gtsrb, load, mnist
from carelab.data import image_sources as sources
from carelab.data.fetching import Source
from carelab.records import Dataset, Samples
from tests.data.image_fixtures import (
    cifar_archive,
    cifar_batch,
    idx,
    placed,
    sign_archive,
    stated,
)
from tests.data.real_files import needs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(part: Samples) -> torch.Tensor:
    assert part.labels is not None
    return part.labels


def check_soundness(dataset: Dataset, shape: tuple[int, ...]) -> None:
    for part in (dataset.train, dataset.selection, dataset.test):
        assert tuple(part.inputs.shape[1:]) == shape
        assert (part.inputs.dtype, labels(part).dtype) == (torch.float32, torch.int64)
        assert part.inputs.min() >= 0
        assert part.inputs.max() <= 1
        assert labels(part).min() >= 0
        assert labels(part).max() < len(dataset.classes)
    assert len(set(dataset.classes)) == len(dataset.classes)
    assert len(bytes.fromhex(dataset.sha256)) == 32
    assert (dataset.features, dataset.sensitive) == ((), ())


@pytest.fixture
def folder(empty_data_folder: Path) -> Path:
    return empty_data_folder


def idx_source(folder: Path, values: np.ndarray, classes: np.ndarray) -> Source:
    """Four files: the values as one-pixel images for training, the first three for testing."""
    images = values.reshape(-1, 1, 1)
    contents = (images, classes, images[:3], classes[:3])
    files = tuple(placed(folder, f"set/{n}.gz", idx(part)) for n, part in enumerate(contents))
    return Source(name="mnist", description="", licence="MIT", files=files)


def test_idx_set_by_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(5040) % 256
    source = idx_source(folder, values.astype(np.uint8), (values % 10).astype(np.uint8))
    monkeypatch.setattr("carelab.data.images.MNIST", source)
    dataset = mnist(generator=generator())
    check_soundness(dataset, (1, 1, 1))
    assert [len(p) for p in (dataset.train, dataset.selection, dataset.test)] == [40, 5000, 3]
    torch.testing.assert_close(dataset.test.inputs.flatten(), torch.tensor([0, 1 / 255, 2 / 255]))
    assert labels(dataset.test).tolist() == [0, 1, 2]
    # Every training image is in one of the two parts, beside its own label.
    drawn = torch.cat([dataset.train.inputs, dataset.selection.inputs]).flatten()
    shown = (drawn * 255).round().long()
    assert sorted(shown.tolist()) == sorted(values.tolist())
    given = torch.cat([labels(dataset.train), labels(dataset.selection)])
    assert torch.equal(shown % 10, given)
    assert dataset.source == "https://example.org/set/0.gz"


def test_a_seed_gives_the_split_and_the_files_give_the_checksum(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (np.arange(5040) % 256).astype(np.uint8)
    source = idx_source(folder, values, values % 10)
    monkeypatch.setattr("carelab.data.images.FASHION_MNIST", source)
    one, two, other = (fashion_mnist(generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.train.inputs, two.train.inputs)
    assert not torch.equal(one.train.inputs, other.train.inputs)
    assert one.sha256 == other.sha256
    source = idx_source(folder, values[::-1].copy(), values % 10)
    monkeypatch.setattr("carelab.data.images.FASHION_MNIST", source)
    assert fashion_mnist(generator=generator()).sha256 != one.sha256


@pytest.mark.parametrize(
    ("count", "classes", "message"),
    [
        (5000, np.zeros(5000), "mnist has 5000 training images; allowed: more than the 5000"),
        (5001, np.zeros(5002), "0.gz holds 5001 images and .*1.gz 5002 labels; allowed: as many"),
        (5001, np.full(5001, 10), "1.gz has a label 10; allowed: 0 to 9"),
    ],
)
def test_idx_files_that_do_not_go_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, classes: np.ndarray, message: str
) -> None:
    source = idx_source(folder, np.zeros(count, np.uint8), classes.astype(np.uint8))
    monkeypatch.setattr("carelab.data.images.MNIST", source)
    with pytest.raises(DataError, match=message):
        mnist(generator=generator())


BATCHES = {
    **{
        f"data_batch_{n}.bin": cifar_batch(np.full(1010, n, np.uint8), first=n) for n in range(1, 6)
    },
    "test_batch.bin": cifar_batch(np.array([9, 8], np.uint8)),
}
FIRST = BATCHES["test_batch.bin"][:3073]
ARCHIVE = cifar_archive(BATCHES)


@pytest.fixture
def _small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 of 5 x 1010 training and 2 test images, none of them anywhere yet."""
    archive = stated("cifar10/cifar-10-binary.tar.gz", ARCHIVE)
    given = [stated(f"cifar10/{name}", batch) for name, batch in BATCHES.items()]
    first = stated("cifar10/test_batch_first1000.bin", FIRST)
    whole = Source(name="cifar10", description="", licence="free", files=(archive,))
    monkeypatch.setattr(sources, "CIFAR10", whole)
    monkeypatch.setattr(sources, "CIFAR10_TRAIN", tuple(given[:5]))
    monkeypatch.setattr(sources, "CIFAR10_TEST", (given[5], first))


def put(folder: Path, *names: str) -> None:
    known = {
        **BATCHES,
        "test_batch_first1000.bin": FIRST,
        "cifar-10-binary.tar.gz": ARCHIVE,
    }
    for name in names:
        placed(folder, f"cifar10/{name}", known[name])


@pytest.mark.usefixtures("_small_cifar")
def test_cifar_works_with_the_batches_present(folder: Path) -> None:
    put(folder, "data_batch_2.bin", "data_batch_5.bin", "test_batch_first1000.bin")
    dataset = cifar10(generator=generator())
    check_soundness(dataset, (3, 32, 32))
    assert [len(p) for p in (dataset.train, dataset.selection, dataset.test)] == [20, 2000, 1]
    assert dataset.source.endswith("(2020 of 50000 training and 1 of 10000 test images)")
    drawn = torch.cat([labels(dataset.train), labels(dataset.selection)])
    assert torch.bincount(drawn).tolist() == [0, 0, 1010, 0, 0, 1010]
    assert labels(dataset.test).tolist() == [9]
    put(folder, "test_batch.bin")
    with_all_tests = cifar10(generator=generator())
    assert labels(with_all_tests.test).tolist() == [9, 8]
    assert torch.equal(with_all_tests.train.inputs, dataset.train.inputs)
    assert with_all_tests.sha256 != dataset.sha256


@pytest.mark.usefixtures("_small_cifar")
def test_the_archive_holds_the_same_images_and_comes_first(folder: Path) -> None:
    put(folder, *BATCHES)
    from_batches = cifar10(generator=generator())
    for name in list(BATCHES)[1:]:
        (folder / "cifar10" / name).unlink()
    put(folder, "cifar-10-binary.tar.gz")
    from_archive = cifar10(generator=generator())
    assert len(from_archive.train) == 5050 - 2000
    assert torch.equal(from_archive.train.inputs, from_batches.train.inputs)
    assert torch.equal(labels(from_archive.train), labels(from_batches.train))
    assert torch.equal(from_archive.test.inputs, from_batches.test.inputs)
    assert from_archive.sha256 == sources.CIFAR10.files[0].sha256


@pytest.mark.usefixtures("_small_cifar")
@pytest.mark.parametrize("names", [(), ("data_batch_1.bin",), ("test_batch.bin",)])
def test_too_few_batches_ask_for_the_archive(folder: Path, names: tuple[str, ...]) -> None:
    put(folder, *names)
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz could not be fetched from"):
        cifar10(generator=generator())


@pytest.mark.usefixtures("_small_cifar")
def test_batches_that_only_lie_in_the_cache_do_not_count(folder: Path) -> None:
    put(folder.parent / "cache", *BATCHES)
    assert sources.local_cifar10() is sources.CIFAR10
    put(folder.parent / "cache", "cifar-10-binary.tar.gz")
    put(folder, "data_batch_1.bin", "test_batch.bin")
    assert sources.local_cifar10() is sources.CIFAR10
    assert len(cifar10(generator=generator()).train) == 3050


@pytest.mark.usefixtures("_small_cifar")
def test_a_damaged_batch_is_an_error_even_if_others_are_there(folder: Path) -> None:
    put(folder, "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "test_batch.bin")
    path = folder / "cifar10" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"data_batch_3.bin has the wrong checksum"):
        cifar10(generator=generator())
    path.write_bytes(path.read_bytes()[:-3073])
    with pytest.raises(DataError, match=r"data_batch_3.bin is truncated"):
        cifar10(generator=generator())


def sign_source(folder: Path, tracks: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    selection = placed(folder, "gtsrb/selection.zip", sign_archive(tracks))
    whole = stated("gtsrb/whole.zip", sign_archive({**tracks, 42: 9}))
    monkeypatch.setattr(sources, "GTSRB_SELECTION", selection)
    archive = Source(name="gtsrb", description="", licence="free", files=(whole,))
    monkeypatch.setattr(sources, "GTSRB", archive)


def test_signs_are_split_by_track(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 3, 6 and 14 tracks, 1, round(1.5) = 2 and round(3.5) = 4 are tested, one is for selection.
    sign_source(folder, {0: 3, 7: 6, 42: 14}, monkeypatch)
    dataset = gtsrb(generator=generator())
    check_soundness(dataset, (3, 32, 32))
    assert len(dataset.classes) == 43
    seen: set[tuple[int, int]] = set()
    for part, counts in (
        (dataset.train, {0: 1, 7: 3, 42: 9}),
        (dataset.selection, {0: 1, 7: 1, 42: 1}),
        (dataset.test, {0: 1, 7: 2, 42: 4}),
    ):
        sign, track, frame = (part.inputs[:, :, 0, 0] * 255).round().long().T
        assert torch.equal(sign, labels(part))
        assert len(part) == 2 * sum(counts.values())  # both frames of each track
        assert frame.float().mean() == 0.5
        pairs = set(zip(sign.tolist(), track.tolist(), strict=True))
        assert {s: [p[0] for p in pairs].count(s) for s in counts} == counts
        assert not pairs & seen
        seen |= pairs
    assert len(seen) == 3 + 6 + 14
    assert dataset.source.endswith("(46 images)")
    assert torch.equal(dataset.train.inputs, gtsrb(generator=generator()).train.inputs)
    assert not torch.equal(labels(dataset.train), labels(gtsrb(generator=generator(1)).train))


def test_the_whole_sign_archive_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_source(folder, {0: 3}, monkeypatch)
    assert len(gtsrb(generator=generator()).test) == 2
    placed(folder, "gtsrb/whole.zip", sign_archive({0: 3, 42: 9}))
    dataset = gtsrb(generator=generator())
    assert len(dataset.test) == 2 + 4
    assert dataset.sha256 == sources.GTSRB.files[0].sha256


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ({0: 3, 1: 2}, "selection.zip has 2 tracks of sign 1; allowed: at least 3"),
        ({0: 3, 43: 3}, "selection.zip has a sign 43; allowed: 0 to 42"),
    ],
)
def test_sign_archive_that_cannot_be_split(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tracks: dict[int, int], message: str
) -> None:
    sign_source(folder, tracks, monkeypatch)
    with pytest.raises(DataError, match=message):
        gtsrb(generator=generator())


def test_digits() -> None:
    dataset = digits(generator=generator())
    check_soundness(dataset, (1, 8, 8))
    parts = (dataset.train, dataset.selection, dataset.test)
    assert [len(part) for part in parts] == [1078, 269, 450]
    # UCI's test part: 178 zeros, 182 ones; every image once, in 17 grey levels.
    counts = torch.bincount(torch.cat([labels(part) for part in parts]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = torch.cat([part.inputs for part in parts]) * 16
    assert torch.equal(pixels, pixels.round())
    assert pixels.unique().tolist() == list(range(17))
    assert dataset.sha256 == digits(generator=generator(5)).sha256
    assert not torch.equal(dataset.test.inputs, digits(generator=generator(5)).test.inputs)


@needs("mnist", "fashion-mnist")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_grey_images(name: str) -> None:
    dataset = load(name, generator=generator())
    check_soundness(dataset, (1, 28, 28))
    parts = (dataset.train, dataset.selection, dataset.test)
    assert [len(part) for part in parts] == [55000, 5000, 10000]
    counts = torch.bincount(torch.cat([labels(dataset.train), labels(dataset.selection)]))
    # As published: MNIST's training part, and 6000 of each kind of clothes.
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert counts.tolist() == (published if name == "mnist" else [6000] * 10)
    if name == "mnist":
        assert labels(dataset.test)[:5].tolist() == [7, 2, 1, 0, 4]
        assert dataset.test.inputs.mean().item() == pytest.approx(0.1325, abs=5e-4)


@needs("cifar10")
def test_real_photographs() -> None:
    dataset = cifar10(generator=generator())
    check_soundness(dataset, (3, 32, 32))
    assert len(dataset.selection) == 2000
    assert (len(dataset.train) + 2000) % 10000 == 0
    assert labels(dataset.test)[:5].tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, airplane, frog
    # Means of the three colours, as published for the whole training part.
    means = dataset.train.inputs.mean(dim=(0, 2, 3))
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=3e-3, rtol=0)


@needs("gtsrb")
def test_real_signs() -> None:
    dataset = gtsrb(generator=generator())
    check_soundness(dataset, (3, 32, 32))
    for part in (dataset.train, dataset.selection, dataset.test):
        assert labels(part).unique().tolist() == list(range(43))
    total = sum(len(part) for part in (dataset.train, dataset.selection, dataset.test))
    assert total in (2814, 26640)
    assert 0.2 < len(dataset.test) / total < 0.3
    assert dataset.train.inputs.max() > 0.9
