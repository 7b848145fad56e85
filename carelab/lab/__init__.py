"""Run it all: sessions, notebooks, sweeps and the command line."""

from carelab.lab.folders import check_writable
from carelab.lab.runs import Run, RunError, run_notebook
from carelab.lab.session import interval, origin, save, start
from carelab.lab.trained import cached_network
from carelab.records import Interval

__all__ = [
    "Interval",
    "Run",
    "RunError",
    "cached_network",
    "check_writable",
    "interval",
    "origin",
    "run_notebook",
    "save",
    "start",
]
