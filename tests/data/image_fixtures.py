"""Tiny image files in the official formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carelab.data.fetching import RemoteFile


def idx(values: NDArray[np.uint8]) -> bytes:
    """A gzipped IDX file of bytes."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)


def cifar_batch(labels: NDArray[np.uint8], first: int = 0) -> bytes:
    """A CIFAR-10 batch whose image k is (first + k) mod 251 all over."""
    values = (first + np.arange(len(labels))) % 251
    pixels = np.repeat(values[:, None], 3072, axis=1)
    return np.concatenate([labels[:, None], pixels], axis=1).astype(np.uint8).tobytes()


def cifar_archive(batches: Mapping[str, bytes]) -> bytes:
    """A gzipped tar archive in the official layout, with something else in it as well."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        members = {f"cifar-10-batches-bin/{name}": batch for name, batch in batches.items()}
        for name, content in {"cifar-10-batches-bin/readme.html": b"hello", **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def ppm(pixels: NDArray[np.uint8]) -> bytes:
    """A binary PPM image of (height, width, 3) bytes."""
    height, width = pixels.shape[:2]
    return f"P6\n{width} {height}\n255\n".encode() + pixels.tobytes()


def sign_archive(tracks: Mapping[int, int], frames: int = 2) -> bytes:
    """Frames of a few tracks of each sign; red tells the sign, green the track, blue the frame."""
    members = {"GTSRB/Training/00000/GT-00000.csv": b"a;b\n", "GTSRB/Readme.txt": b"hello"}
    for sign, count in tracks.items():
        for track in range(count):
            for frame in range(frames):
                name = f"GTSRB/Training/{sign:05d}/{track:05d}_{frame:05d}.ppm"
                pixels = np.full((5 + frame, 4 + track, 3), (sign, track, frame), np.uint8)
                members[name] = ppm(pixels)
    return zipped(members)


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A compressed zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def placed(folder: Path, path: str, content: bytes) -> RemoteFile:
    """Writes the file below the folder, and states its checksum."""
    file = stated(path, content)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return file


def stated(path: str, content: bytes) -> RemoteFile:
    """The file as a source states it, wherever it is."""
    return RemoteFile(
        path=path,
        address=f"https://example.org/{path}",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
