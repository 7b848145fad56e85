"""Image data sets: MNIST, Fashion-MNIST, CIFAR-10, GTSRB, and digits that need no file.

Images are float32 (batch, channels, height, width) in [0, 1], labels int64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from carelab.data.fetching import DataError, Source, obtain
from carelab.data.image_files import read_cifar, read_cifar_archive, read_idx, read_signs
from carelab.data.image_sources import (
    CIFAR10_CLASSES,
    DIGIT_CLASSES,
    DIGITS,
    FASHION_CLASSES,
    FASHION_MNIST,
    GTSRB_CLASSES,
    MNIST,
    local_cifar10,
    local_gtsrb,
)
from carelab.data.sampling import part_rows
from carelab.records import Dataset, Samples

__all__ = ["cifar10", "digits", "fashion_mnist", "gtsrb", "mnist"]

_TRACKS_PER_TEST = 4  # about one track of four is for testing


def mnist(*, generator: torch.Generator) -> Dataset:
    """MNIST: which digit is written here? 28 x 28 grey images, white on black.

    The official test part (10000 images) is the test part; of the official training part 5000
    images are for selection and 55000 for training.

    Args:
        generator: draws the split of the training part.

    Returns:
        The data set; its sha256 is that of the checksums of its four files, a line each.

    Raises:
        DataError: a file is damaged, or missing and cannot be fetched.

    Source: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document
        recognition, Proceedings of the IEEE 86(11), 1998.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> digits = data.mnist(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> digits.train.inputs.shape  # doctest: +SKIP
        torch.Size([55000, 1, 28, 28])
    """
    return _from_idx(MNIST, DIGIT_CLASSES, held=5000, generator=generator)


def fashion_mnist(*, generator: torch.Generator) -> Dataset:
    """Fashion-MNIST: which of ten kinds of clothes is this? 28 x 28 grey images.

    Split as `mnist` is: 55000 for training, 5000 for selection, the official 10000 for testing.

    Args:
        generator: draws the split of the training part.

    Returns:
        The data set; its sha256 is that of the checksums of its four files, a line each.

    Raises:
        DataError: a file is damaged, or missing and cannot be fetched.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv 1708.07747, 2017.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> clothes = data.fashion_mnist(generator=torch.Generator())  # doctest: +SKIP
        >>> clothes.classes[0]  # doctest: +SKIP
        'T-shirt'
    """
    return _from_idx(FASHION_MNIST, FASHION_CLASSES, held=5000, generator=generator)


def cifar10(*, generator: torch.Generator) -> Dataset:
    """CIFAR-10: which of ten things is on this photograph? 32 x 32 colour images.

    The official archive is used where it is present; else the batches that lie in the folder that
    CARELAB_DATA names (any of the five for training; the test batch, or its first 1000 images as
    test_batch_first1000.bin); else the archive is fetched. `source` says how many of the 50000
    training and 10000 test images were used. Of the training images 2000 are for selection.

    Args:
        generator: draws the split of the training images.

    Returns:
        The data set; its sha256 is that of the archive, or of the checksums of the batches, a
        line each.

    Raises:
        DataError: a file is damaged, or missing and cannot be fetched.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> photographs = data.cifar10(generator=torch.Generator())  # doctest: +SKIP
        >>> photographs.test.inputs.shape[1:]  # doctest: +SKIP
        torch.Size([3, 32, 32])
    """
    source = local_cifar10()
    paths = obtain(source)
    batches = _cifar_batches(paths)
    parts = {name: read_cifar(content, file=name) for name, content in batches.items()}
    train = [part for name, part in parts.items() if "test" not in Path(name).name]
    test = [part for name, part in parts.items() if "test" in Path(name).name]
    pixels, labels = (torch.cat(both) for both in zip(*train, strict=True))
    test_pixels, test_labels = (torch.cat(both) for both in zip(*test, strict=True))
    selection, rest = _held_out(len(labels), 2000, source, generator)
    used = f"{len(labels)} of 50000 training and {len(test_labels)} of 10000 test images"
    return _dataset(
        source,
        CIFAR10_CLASSES,
        address=f"{source.files[0].address} ({used})",
        train=_samples(pixels, labels, rest),
        selection=_samples(pixels, labels, selection),
        test=_samples(test_pixels, test_labels),
    )


def gtsrb(*, generator: torch.Generator) -> Dataset:
    """GTSRB: which of 43 traffic signs is this? Colour photographs, resized to 32 x 32.

    The frames of a track show the same sign from nearer and nearer, so the parts share no track:
    of the tracks of each sign about every fourth is for testing, one for selection, the rest for
    training. All come from the official training archive, or from the selection of it that lies
    in CARELAB_DATA; `source` says how many images there are.

    Args:
        generator: draws the tracks of each part.

    Returns:
        The data set; its sha256 is that of the archive used.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.

    Source: Stallkamp, Schlipsing, Salmen and Igel, Man vs. computer, Neural Networks 32, 2012.
        Departs: split by track; the official test images are not used.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> signs = data.gtsrb(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> signs.classes[14]  # doctest: +SKIP
        'stop'
    """
    source = local_gtsrb()
    (path,) = obtain(source)
    images, signs, tracks = read_signs(path)
    if int(signs.max()) >= len(GTSRB_CLASSES):
        raise DataError(
            f"{path} has a sign {int(signs.max())}; allowed: 0 to {len(GTSRB_CLASSES) - 1}"
        )
    train, selection, test = _split_tracks(signs, tracks, str(path), generator)
    return _dataset(
        source,
        GTSRB_CLASSES,
        address=f"{source.files[0].address} ({len(signs)} images)",
        train=_samples(images, signs, train),
        selection=_samples(images, signs, selection),
        test=_samples(images, signs, test),
    )


def digits(*, generator: torch.Generator) -> Dataset:
    """Scikit-learn's bundled digits: which digit is written here? 8 x 8 grey images, no file.

    The 1797 images have values 0 to 16, divided by 16 here. Split 60/15/25.

    Args:
        generator: draws the split.

    Returns:
        The data set; its sha256 is that of the pixels and labels.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI), test part, as
        bundled with scikit-learn.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> small = data.digits(generator=torch.Generator().manual_seed(0))
        >>> [tuple(part.inputs.shape) for part in (small.train, small.selection, small.test)]
        [(1078, 1, 8, 8), (269, 1, 8, 8), (450, 1, 8, 8)]
    """
    bundled = load_digits()
    pixels = torch.from_numpy(bundled.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bundled.target.astype(np.int64))
    shares = part_rows(len(labels), (0.6, 0.15, 0.25), generator=generator)
    train, selection, test = (
        Samples(inputs=pixels[rows].float() / 16, labels=labels[rows]) for rows in shares
    )
    return Dataset(
        name=DIGITS.name,
        source="bundled with scikit-learn (sklearn.datasets.load_digits)",
        sha256=hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest(),
        licence=DIGITS.licence,
        classes=DIGIT_CLASSES,
        train=train,
        selection=selection,
        test=test,
    )


def _from_idx(
    source: Source, classes: Sequence[str], *, held: int, generator: torch.Generator
) -> Dataset:
    """A data set of four IDX files: images and labels for training, then those for testing."""
    paths = obtain(source)
    pixels, labels = _idx_pair(paths[0], paths[1], len(classes))
    test_pixels, test_labels = _idx_pair(paths[2], paths[3], len(classes))
    selection, rest = _held_out(len(labels), held, source, generator)
    return _dataset(
        source,
        classes,
        address=source.files[0].address,
        train=_samples(pixels, labels, rest),
        selection=_samples(pixels, labels, selection),
        test=_samples(test_pixels, test_labels),
    )


def _idx_pair(images: Path, labels: Path, classes: int) -> tuple[Tensor, Tensor]:
    pixels, values = read_idx(images, 3).unsqueeze(1), read_idx(labels, 1).long()
    if len(pixels) != len(values) or len(values) == 0:
        raise DataError(
            f"{images} holds {len(pixels)} images and {labels} {len(values)} labels; "
            "allowed: as many, and at least one"
        )
    if int(values.max()) >= classes:
        raise DataError(f"{labels} has a label {int(values.max())}; allowed: 0 to {classes - 1}")
    return pixels, values


def _cifar_batches(paths: Sequence[Path]) -> dict[str, bytes]:
    """What the batches hold, by the names for messages: from the archive, or file by file."""
    if paths[0].name.endswith(".tar.gz"):
        return read_cifar_archive(paths[0])
    return {str(path): path.read_bytes() for path in paths}


def _held_out(
    count: int, held: int, source: Source, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Row numbers held out at random, and all others."""
    if count <= held:
        raise DataError(
            f"{source.name} has {count} training images; allowed: more than the {held} that are "
            "held out for selection"
        )
    order = torch.randperm(count, generator=generator)
    return order[:held], order[held:]


def _split_tracks(
    signs: Tensor, tracks: Tensor, file: str, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers for training, selection and testing; no track of a sign is in two of them."""
    parts: tuple[list[Tensor], ...] = ([], [], [])
    for sign in signs.unique().tolist():
        rows = (signs == sign).nonzero().flatten()
        own = tracks[rows].unique()
        if len(own) < 3:
            raise DataError(f"{file} has {len(own)} tracks of sign {sign}; allowed: at least 3")
        own = own[torch.randperm(len(own), generator=generator)]
        tested = max(1, round(len(own) / _TRACKS_PER_TEST))
        chosen = (own[tested + 1 :], own[tested : tested + 1], own[:tested])
        for part, numbers in zip(parts, chosen, strict=True):
            part.append(rows[torch.isin(tracks[rows], numbers)])
    # Shuffled, since the first rows of a part would otherwise show the first signs only.
    train, selection, test = (torch.cat(part) for part in parts)
    return (
        train[torch.randperm(len(train), generator=generator)],
        selection[torch.randperm(len(selection), generator=generator)],
        test[torch.randperm(len(test), generator=generator)],
    )


def _samples(pixels: Tensor, labels: Tensor, rows: Tensor | None = None) -> Samples:
    """The rows as images in [0, 1]; bytes stay bytes until they are chosen, to save memory."""
    if rows is not None:
        pixels, labels = pixels[rows], labels[rows]
    scaled = pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels
    return Samples(inputs=scaled, labels=labels)


def _dataset(
    source: Source,
    classes: Sequence[str],
    *,
    address: str,
    train: Samples,
    selection: Samples,
    test: Samples,
) -> Dataset:
    sums = [file.sha256 for file in source.files]
    joined = hashlib.sha256("\n".join(sums).encode()).hexdigest()
    return Dataset(
        name=source.name,
        source=address,
        sha256=sums[0] if len(sums) == 1 else joined,
        licence=source.licence,
        classes=tuple(classes),
        train=train,
        selection=selection,
        test=test,
    )
