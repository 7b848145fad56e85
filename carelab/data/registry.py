"""The one table of everything that can be loaded; adding a data set means adding a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from carelab.data import (
    acasxu_files,
    adf,
    adf_networks,
    generated,
    image_sources,
    images,
    layouts,
    raw,
)
from carelab.data.fetching import FileStatus, Source, file_status, obtain
from carelab.records import Dataset

__all__ = ["ENTRIES", "CatalogueEntry", "Entry", "catalogue", "check", "fetch", "load"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the registry.

    Args:
        source: name, licence and files.
        loader: makes the data set from a generator, or None for a network's files.
        local: narrows the source to the files to use on this machine, where a part of them is
            enough.
    """

    source: Source
    loader: Callable[..., Dataset] | None
    local: Callable[[], Source] | None = None

    @property
    def files_to_use(self) -> Source:
        """The source with the files that are used on this machine."""
        return self.source if self.local is None else self.local()


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueEntry:
    """What a user sees of one line of the registry.

    Args:
        name: the name that `load` and `fetch` take.
        description: what it is, in one line.
        licence: the licence that its source states.
        size: bytes of the files used on this machine, 0 where it needs none.
        found: "CARELAB_DATA", "cache", "to download" or "embedded".
    """

    name: str
    description: str
    licence: str
    size: int
    found: str


ENTRIES = (
    Entry(source=layouts.ADULT, loader=raw.adult),
    Entry(source=layouts.GERMAN, loader=raw.german),
    Entry(source=layouts.BANK, loader=raw.bank),
    Entry(source=layouts.COMPAS, loader=raw.compas),
    Entry(source=adf.TABLES[0], loader=adf.adf_census),
    Entry(source=adf.TABLES[1], loader=adf.adf_credit),
    Entry(source=adf.TABLES[2], loader=adf.adf_bank),
    *(Entry(source=source, loader=None) for source in adf_networks.NETWORKS.values()),
    Entry(source=generated.EMBEDDED_CENSUS, loader=generated.embedded_census),
    Entry(source=generated.EMBEDDED_CREDIT, loader=generated.embedded_credit),
    Entry(source=image_sources.MNIST, loader=images.mnist),
    Entry(source=image_sources.FASHION_MNIST, loader=images.fashion_mnist),
    Entry(source=image_sources.CIFAR10, loader=images.cifar10, local=image_sources.local_cifar10),
    Entry(source=image_sources.GTSRB, loader=images.gtsrb, local=image_sources.local_gtsrb),
    Entry(source=image_sources.DIGITS, loader=images.digits),
    Entry(source=acasxu_files.ACASXU, loader=None),
    Entry(source=acasxu_files.ACASXU_NNET, loader=None),
    Entry(source=acasxu_files.ACASXU_PROPERTIES, loader=None),
)


def load(name: str, *, generator: torch.Generator) -> Dataset:
    """The data set of that name, with its default settings.

    Args:
        name: a name in the catalogue, such as "adf-census".
        generator: draws the split, and the rows of an embedded set.

    Raises:
        ValueError: an unknown name, or that of a network.
        DataError: a file is damaged, or missing and cannot be fetched.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> data.load("embedded-credit", generator=torch.Generator().manual_seed(0)).name
        'embedded-credit'
    """
    for entry in ENTRIES:
        if entry.source.name == name and entry.loader is not None:
            return entry.loader(generator=generator)
    known = ", ".join(entry.source.name for entry in ENTRIES if entry.loader is not None)
    raise ValueError(f"name: got {name!r}, which is no data set; allowed: {known}")


def fetch(name: str, *, progress: bool = True) -> tuple[Path, ...]:
    """Paths of the files of a data set or network, downloaded where necessary.

    Args:
        name: a name in the catalogue.
        progress: show a bar while a file downloads.

    Returns:
        One path per file, each with the right checksum; none for an embedded set.

    Raises:
        ValueError: an unknown name.
        DataError: a file is damaged, or missing and cannot be fetched.

    Example:
        >>> from carelab import data
        >>> data.fetch("embedded-census")
        ()
    """
    for entry in ENTRIES:
        if entry.source.name == name:
            return obtain(entry.files_to_use, progress=progress)
    known = ", ".join(entry.source.name for entry in ENTRIES)
    raise ValueError(f"name: got {name!r}, which is not in the catalogue; allowed: {known}")


def catalogue() -> tuple[CatalogueEntry, ...]:
    """Everything that can be loaded or fetched, and where it is found now.

    No checksum is computed here; `check` does that.

    Raises:
        DataError: CARELAB_DATA names a folder that does not exist.

    Example:
        >>> from carelab import data
        >>> [entry.name for entry in data.catalogue() if entry.found == "embedded"]
        ['embedded-census', 'embedded-credit', 'digits']
    """
    return tuple(
        CatalogueEntry(
            name=entry.source.name,
            description=entry.source.description,
            licence=entry.source.licence,
            size=sum(file.size for file in entry.files_to_use.files),
            found=_found(entry.files_to_use),
        )
        for entry in ENTRIES
    )


def check() -> tuple[FileStatus, ...]:
    """Status of every file in the registry: "ok", "missing" or "wrong checksum".

    Raises:
        DataError: CARELAB_DATA names a folder that does not exist.

    Example:
        >>> from carelab import data
        >>> {status.status for status in data.check()} <= {"ok", "missing", "wrong checksum"}
        True
    """
    return tuple(status for entry in ENTRIES for status in file_status(entry.files_to_use))


def _found(source: Source) -> str:
    places = {status.found for status in file_status(source, verify=False)}
    if not places:
        return "embedded"
    if "to download" in places:
        return "to download"
    return ", ".join(sorted(places))
