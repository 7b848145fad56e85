"""Image files in their official formats, read strictly: every fault names the file.

The formats are IDX (MNIST, Fashion-MNIST), the binary batches of CIFAR-10, and a zip archive of PPM
images (GTSRB). Nothing is unpacked to the disk, and no name in an archive is used as a path.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from carelab.data.fetching import DataError

__all__ = ["read_cifar", "read_cifar_archive", "read_idx", "read_ppm", "read_signs"]

_UNSIGNED_BYTE = 8  # the IDX code of the number type
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + 3 * 32 * 32  # one label, then the planes
_CIFAR_MEMBER = re.compile(r"cifar-10-batches-bin/((?:data_batch_[1-5]|test_batch)\.bin)")
_CIFAR_LARGEST = 10000 * _CIFAR_RECORD
_SIGN = re.compile(r"GTSRB/Training/(\d{5})/(\d{5})_\d{5}\.ppm")
_PPM_HEADER = re.compile(rb"P6\s+(\d{1,4})\s+(\d{1,4})\s+255\s")
_PPM_LARGEST = 4_000_000  # bytes; the largest sign takes about 200 thousand


def read_idx(path: Path, axes: int) -> UInt8[Tensor, "items ..."]:
    r"""The bytes of a gzipped IDX file, in its own shape.

    Args:
        path: the file.
        axes: how many axes it must have: 1 for labels, 3 for images (items, height, width).

    Raises:
        DataError: a damaged or truncated file, another kind of file, or more bytes than it states.

    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits, file formats.

    Example:
        >>> import gzip, pathlib, tempfile
        >>> from carelab.data.image_files import read_idx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "labels.gz")
        ...     _ = path.write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02\x07\x03"))
        ...     read_idx(path, 1).tolist()
        [7, 3]
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or no gzip file ({error})") from None
    header = bytes([0, 0, _UNSIGNED_BYTE, axes])
    if len(content) < 4 + 4 * axes or content[:4] != header:
        raise DataError(
            f"{path} is no IDX file of bytes with {axes} axes: it begins with "
            f"{content[:4].hex(' ') or 'nothing'}; allowed: {header.hex(' ')} and {axes} sizes"
        )
    shape = tuple(np.frombuffer(content, ">u4", count=axes, offset=4).tolist())
    start = 4 + 4 * axes
    expected = int(np.prod(shape, dtype=object))
    if len(content) - start != expected:
        raise DataError(
            f"{path} has {len(content) - start} bytes after its header; "
            f"allowed: {expected}, for shape {shape}"
        )
    values = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(values.copy())


def read_cifar(
    content: bytes, *, file: str
) -> tuple[UInt8[Tensor, "batch 3 32 32"], Int[Tensor, " batch"]]:
    """Images and labels of one binary batch of CIFAR-10.

    Each record is a label from 0 to 9, then the red, green and blue planes of 32 x 32 bytes.

    Args:
        content: what the batch holds.
        file: what the error messages call it.

    Raises:
        DataError: no record, a last record that is cut off, or a label above 9.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; layout as on
        the data set's page.

    Example:
        >>> from carelab.data.image_files import read_cifar
        >>> images, labels = read_cifar(bytes([6]) + bytes(3072), file="batch")
        >>> images.shape, labels.tolist()
        (torch.Size([1, 3, 32, 32]), [6])
    """
    count, rest = divmod(len(content), _CIFAR_RECORD)
    if count == 0 or rest:
        raise DataError(
            f"{file} is truncated: {len(content)} bytes; "
            f"allowed: one or more records of {_CIFAR_RECORD}"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, _CIFAR_RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        row = int((labels > 9).argmax())
        raise DataError(f"{file}, record {row}: label {labels[row]}; allowed: 0 to 9")
    images = records[:, 1:].reshape(count, *_CIFAR_SHAPE)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def read_cifar_archive(path: Path) -> dict[str, bytes]:
    """The six batches in CIFAR-10's official archive, by their names, in memory.

    Args:
        path: cifar-10-binary.tar.gz.

    Returns:
        "data_batch_1.bin" to "data_batch_5.bin" and "test_batch.bin".

    Raises:
        DataError: a damaged archive, or one without these members.

    Example:
        >>> import io, pathlib, tarfile, tempfile
        >>> from carelab.data.image_files import read_cifar_archive
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.tar.gz")
        ...     with tarfile.open(path, "w:gz") as archive:
        ...         for name in ("test_batch", *(f"data_batch_{n}" for n in range(1, 6))):
        ...             archive.addfile(tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin"))
        ...     sorted(read_cifar_archive(path))[-1]
        'test_batch.bin'
    """
    batches = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = _CIFAR_MEMBER.fullmatch(member.name)
                file = archive.extractfile(member) if name and member.isfile() else None
                if name and file and member.size <= _CIFAR_LARGEST:
                    batches[name[1]] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or no gzipped tar archive ({error})") from None
    wanted = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    missing = [name for name in wanted if name not in batches]
    if missing:
        raise DataError(
            f"{path} has no member cifar-10-batches-bin/{missing[0]} of at most "
            f"{_CIFAR_LARGEST} bytes; allowed: the official archive"
        )
    return {name: batches[name] for name in wanted}


def read_ppm(content: bytes, *, file: str) -> UInt8[Tensor, "3 height width"]:
    r"""Red, green and blue planes of a binary PPM image with one byte a number.

    Args:
        content: what the file holds.
        file: what the error messages call it.

    Raises:
        DataError: another format, or pixels that are missing or too many.

    Example:
        >>> from carelab.data.image_files import read_ppm
        >>> read_ppm(b"P6\n1 2\n255\n" + bytes([1, 2, 3, 4, 5, 6]), file="a.ppm").tolist()
        [[[1], [4]], [[2], [5]], [[3], [6]]]
    """
    header = _PPM_HEADER.match(content)
    if header is None:
        raise DataError(f"{file} is no PPM image: it begins with {content[:12]!r}")
    width, height = int(header[1]), int(header[2])
    found = len(content) - header.end()
    if found != 3 * width * height or not found:
        raise DataError(
            f"{file} has {found} bytes of pixels; allowed: {3 * width * height}, more than 0, "
            f"for {width} x {height}"
        )
    pixels = np.frombuffer(content, np.uint8, offset=header.end()).reshape(height, width, 3)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def read_signs(
    path: Path, size: int = 32
) -> tuple[Float[Tensor, "batch 3 size size"], Int[Tensor, " batch"], Int[Tensor, " batch"]]:
    """Images, signs and tracks of a zip archive in the layout of GTSRB's training images.

    Members ``GTSRB/Training/CCCCC/TTTTT_FFFFF.ppm`` are read, with the sign C, the track T and the
    frame F; whatever else lies in the archive, such as its tables, is passed over.

    Args:
        path: the archive.
        size: height and width that each image is resized to, bilinearly with antialiasing.

    Returns:
        The images in [0, 1], in the order of the names; the sign of each (batch,); and its track
        (batch,), counted within the sign.

    Raises:
        DataError: a damaged archive or image, or an archive without such members.
        ValueError: a size below 1.

    Source: Stallkamp, Schlipsing, Salmen and Igel, Man vs. computer, Neural Networks 32, 2012.

    Example:
        >>> import pathlib, tempfile, zipfile
        >>> from carelab.data.image_files import read_signs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, image = pathlib.Path(folder, "a.zip"), b"P6 1 1 255 " + bytes([255, 0, 0])
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("GTSRB/Training/00014/00002_00000.ppm", image)
        ...     [part.flatten().tolist() for part in read_signs(path, 1)]
        [[1.0, 0.0, 0.0], [14], [2]]
    """
    if size < 1:
        raise ValueError(f"size: got {size}; allowed: 1 or more pixels")
    images, signs, tracks = [], [], []
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info for info in archive.infolist()}
            for name in sorted(found):
                place = _SIGN.fullmatch(name)
                if place is None:
                    continue
                if found[name].file_size > _PPM_LARGEST:
                    raise DataError(f"{path} ({name}) is larger than {_PPM_LARGEST} bytes")
                pixels = read_ppm(archive.read(found[name]), file=f"{path} ({name})")
                images.append(_resized(pixels, size))
                signs.append(int(place[1]))
                tracks.append(int(place[2]))
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is damaged or no zip archive ({error})") from None
    if not images:
        raise DataError(f"{path} holds no image; allowed: members such as {_SIGN.pattern}")
    return torch.stack(images), torch.tensor(signs), torch.tensor(tracks)


def _resized(pixels: Tensor, size: int) -> Tensor:
    image = pixels[None].float() / 255
    resized = functional.interpolate(
        image, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    # Rounding may carry a white pixel past 1.
    return resized[0].clamp(0, 1)
