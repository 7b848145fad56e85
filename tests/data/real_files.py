"""Marks for tests that read the real data files, which not every machine has."""

import pytest

from carelab.data import catalogue


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test, visibly, where the files of these sets would have to be downloaded."""
    lacking = [e.name for e in catalogue() if e.name in names and e.found == "to download"]
    return pytest.mark.skipif(
        bool(lacking),
        reason=f"needs the files of {', '.join(lacking)} in CARELAB_DATA or the cache",
    )
