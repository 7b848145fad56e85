import gzip
import io
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from carelab.data import DataError
from carelab.data.image_files import (
    read_cifar,
    read_cifar_archive,
    read_idx,
    read_ppm,
    read_signs,
)
from tests.data.image_fixtures import cifar_archive, cifar_batch, idx, ppm, sign_archive, zipped

BATCHES = {
    **{
        f"data_batch_{number}.bin": cifar_batch(np.array([number], np.uint8))
        for number in range(1, 6)
    },
    "test_batch.bin": cifar_batch(np.array([9, 8], np.uint8)),
}


@settings(max_examples=25)
@given(values=arrays(np.uint8, st.tuples(*[st.integers(0, 4)] * 3)))
def test_idx_gives_back_what_was_written(
    values: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("idx") / "images.gz"
    path.write_bytes(idx(values))
    read = read_idx(path, 3)
    assert read.dtype == torch.uint8
    assert read.shape == values.shape
    assert read.flatten().tolist() == values.flatten().tolist()


# The same bytes at every collection, which names the cases by them.
gzipped = partial(gzip.compress, mtime=0)
LABELS = gzip.decompress(idx(np.array([3, 1, 2], np.uint8)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file of bytes with 1 axes: it begins with nothing"),
        (b"no gzip at all", "is damaged or no gzip file"),
        (gzipped(LABELS)[:-9], "is damaged or no gzip file"),
        (gzipped(b""), "is no IDX file of bytes with 1 axes: it begins with nothing"),
        (gzipped(LABELS[:6]), "is no IDX file .* begins with 00 00 08 01"),
        (gzipped(LABELS[:-1]), r"has 2 bytes after its header; allowed: 3, for shape \(3,\)"),
        (gzipped(LABELS + b"!"), "has 4 bytes after its header; allowed: 3"),
        (gzipped(b"\0\0\x0d\x01" + LABELS[4:]), "begins with 00 00 0d 01; allowed: 00 00 08"),
        (idx(np.zeros((1, 2, 2), np.uint8)), "begins with 00 00 08 03; allowed: 00 00 08 01 and 1"),
        (gzipped(b"\0\0\x08\x01\xff\xff\xff\xff"), "0 bytes after its header; allowed: 4294"),
    ],
)
def test_idx_of_another_kind_or_length(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"labels.gz.*{message}"):
        read_idx(path, 1)


def test_idx_with_a_damaged_byte(tmp_path: Path) -> None:
    content = bytearray(idx(np.arange(200, dtype=np.uint8).reshape(2, 10, 10)))
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images.gz is damaged or no gzip file"):
        read_idx(path, 3)


def test_cifar_planes_by_hand() -> None:
    # Red 1, green 2, blue 3; the first pixel of the red plane is 4, the last of the blue one 5.
    planes = np.repeat(np.array([1, 2, 3], np.uint8), 1024)
    planes[0], planes[-1] = 4, 5
    images, labels = read_cifar(bytes([7]) + planes.tobytes(), file="batch")
    assert labels.tolist() == [7]
    assert images[0, :, 10, 10].tolist() == [1, 2, 3]
    assert images[0, 0, 0, 0] == 4
    assert images[0, 2, 31, 31] == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "batch is truncated: 0 bytes; allowed: one or more records of 3073"),
        (BATCHES["test_batch.bin"][:-1], "batch is truncated: 6145 bytes"),
        (BATCHES["test_batch.bin"] + b"!", "batch is truncated: 6147 bytes"),
        (cifar_batch(np.array([1, 10], np.uint8)), "batch, record 1: label 10; allowed: 0 to 9"),
    ],
)
def test_damaged_cifar_batch(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cifar(content, file="batch")


def test_cifar_archive_members_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(cifar_archive(dict(reversed(BATCHES.items()))))
    assert list(read_cifar_archive(path).items()) == list(BATCHES.items())
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar.gz"]


def link_in_place_of_a_batch() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged or no gzipped tar archive"),
        (b"plain text", "is damaged or no gzipped tar archive"),
        (cifar_archive(BATCHES)[:-500], "is damaged or no gzipped tar archive"),
        (cifar_archive({}), "has no member cifar-10-batches-bin/data_batch_1.bin"),
        (link_in_place_of_a_batch(), "has no member cifar-10-batches-bin/data_batch_1.bin"),
    ],
)
def test_cifar_archive_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a.tar.gz {message}"):
        read_cifar_archive(path)


def test_cifar_archive_with_an_overlong_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carelab.data.image_files._CIFAR_LARGEST", 3073)
    (tmp_path / "a.tar.gz").write_bytes(cifar_archive(BATCHES))
    with pytest.raises(DataError, match=r"has no member .*/test_batch.bin of at most 3073 bytes"):
        read_cifar_archive(tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.ppm is no PPM image: it begins with b''"),
        (b"P5 1 1 255 abc", "a.ppm is no PPM image: it begins with b'P5 1"),
        (b"P6 1 1 65535 abcdef", "a.ppm is no PPM image"),
        (b"P6 99999 1 255 ", "a.ppm is no PPM image"),
        (b"P6 1 1 255 ab", "a.ppm has 2 bytes of pixels; allowed: 3, more than 0, for 1 x 1"),
        (b"P6 1 1 255 abcd", "a.ppm has 4 bytes of pixels; allowed: 3"),
        (b"P6 0 5 255 ", "a.ppm has 0 bytes of pixels; allowed: 0, more than 0, for 0 x 5"),
    ],
)
def test_damaged_ppm(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_ppm(content, file="a.ppm")


def test_ppm_whose_first_pixel_looks_like_white_space() -> None:
    # Only one character separates the header from the pixels.
    assert read_ppm(b"P6\n1 1\n255\n\n \t", file="a").flatten().tolist() == [10, 32, 9]


def test_signs_are_resized_with_antialiasing(tmp_path: Path) -> None:
    # From 2 x 2 to 1 x 1 the filter weighs all four pixels alike: the mean of 0, 51, 102, 255.
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[:, :, 1] = [[0, 51], [102, 255]]
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"GTSRB/Training/00042/00007_00003.ppm": ppm(pixels)}))
    images, signs, tracks = read_signs(path, 1)
    torch.testing.assert_close(images.flatten(), torch.tensor([0, 102 / 255, 0]))
    assert (signs.tolist(), tracks.tolist()) == ([42], [7])
    with pytest.raises(ValueError, match="size: got 0; allowed: 1 or more pixels"):
        read_signs(path, 0)


def test_signs_of_any_size_become_32_x_32_and_nothing_else_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(sign_archive({0: 2, 5: 1}, frames=2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../GTSRB/Training/00000/00000_00000.ppm", b"no image")
        archive.writestr("GTSRB/Training/0/00000_00000.ppm", b"no image")
    images, signs, tracks = read_signs(path)
    assert images.shape == (6, 3, 32, 32)
    assert signs.tolist() == [0, 0, 0, 0, 5, 5]
    assert tracks.tolist() == [0, 0, 1, 1, 0, 0]
    # Every image is of one colour, which resizing keeps: sign, track and frame.
    colours = (images * 255).round().flatten(2)
    assert torch.equal(colours.amin(dim=2), colours.amax(dim=2))
    assert colours[:, :, 0].tolist() == [
        [s, t, f] for s, t in ((0, 0), (0, 1), (5, 0)) for f in (0, 1)
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a.zip is damaged or no zip archive"),
        (zipped({"other.txt": b"x"}), "a.zip holds no image"),
        (
            zipped({"GTSRB/Training/00000/00000_00000.ppm": b"P6"}),
            r"a.zip \(GTSRB/Training/00000/00000_00000.ppm\) is no PPM image",
        ),
        (
            zipped({"GTSRB/Training/00000/00000_00000.ppm": bytes(4_000_001)}),
            r"a.zip \(.*\) is larger than 4000000 bytes",
        ),
        (sign_archive({0: 1})[:-30], "a.zip is damaged or no zip archive"),
    ],
)
def test_sign_archive_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_signs(path)


def test_sign_archive_with_a_damaged_byte(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = bytearray(zipped({"GTSRB/Training/00000/00000_00000.ppm": ppm(pixels)}))
    content[2000] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a.zip is damaged or no zip archive"):
        read_signs(tmp_path / "a.zip")
