"""The neuron-effect explorer: click a neuron, hold it, scale it, and watch the misbehaviour."""

from carelab.show.explorer.engine import Engine, Reading
from carelab.show.explorer.image_scenes import backdoor_scene
from carelab.show.explorer.pictures import PictureSide
from carelab.show.explorer.portraits import (
    Portrait,
    check_showable,
    levels,
    portrait,
    shown_neurons,
)
from carelab.show.explorer.region_scenes import safety_scene
from carelab.show.explorer.rows import RowSide
from carelab.show.explorer.runs import CachedRun, Change
from carelab.show.explorer.scenes import (
    Gauge,
    Scene,
    accuracy_gauge,
    highest,
    kept_gauge,
    lowest,
    violation_gauge,
)
from carelab.show.explorer.searches import Progress, factor_repair, search_factors
from carelab.show.explorer.sides import InputSide
from carelab.show.explorer.slices import SliceSide
from carelab.show.explorer.table_scenes import fairness_scene, table_scene
from carelab.show.explorer.widget import Explorer, explore

__all__ = [
    "CachedRun",
    "Change",
    "Engine",
    "Explorer",
    "Gauge",
    "InputSide",
    "PictureSide",
    "Portrait",
    "Progress",
    "Reading",
    "RowSide",
    "Scene",
    "SliceSide",
    "accuracy_gauge",
    "backdoor_scene",
    "check_showable",
    "explore",
    "factor_repair",
    "fairness_scene",
    "highest",
    "kept_gauge",
    "levels",
    "lowest",
    "portrait",
    "safety_scene",
    "search_factors",
    "shown_neurons",
    "table_scene",
    "violation_gauge",
]
