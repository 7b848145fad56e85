"""Settings for every test: one thread, no window, examples that repeat."""

from __future__ import annotations

import hypothesis
import matplotlib
import torch

# Two threads spin against each other on shared cores, and their number changes sums of floats.
torch.set_num_threads(1)
matplotlib.use("Agg")
hypothesis.settings.register_profile("carelab", deadline=None, derandomize=True)
hypothesis.settings.load_profile("carelab")
