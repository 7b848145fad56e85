"""Settings for every test: one thread, no window, examples that repeat."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import matplotlib
import pytest
import torch

# Two threads spin against each other on shared cores, and their number changes sums of floats.
torch.set_num_threads(1)
matplotlib.use("Agg")
hypothesis.settings.register_profile("carelab", deadline=None, derandomize=True)
hypothesis.settings.load_profile("carelab")


@pytest.fixture
def empty_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty CARELAB_DATA, with an empty cache and no way out to the internet."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CARELAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("carelab.data.fetching.cache_folder", lambda: tmp_path / "cache")

    def unreachable(*_args: object, **_knobs: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", unreachable)
    return tmp_path / "data"
