"""Searching a box of inputs for points that violate a safety property.

Five ways, each where those before it found too few: uniform points; walks down the margin's
gradient; corners of boxes that are split again and again; differential evolution; and, from what
was found, a random walk that spreads over the violating part of the box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from carelab.properties.box_searches import (
    descend,
    evolve,
    split_boxes,
    spread,
    uniform_search,
)
from carelab.properties.hunts import distinct_points, hunt_for
from carelab.properties.regions import OutputRegion, OutputRegions
from carelab.records import Samples

__all__ = ["ViolationSearch", "find_violations"]

_SEEDS = 64  # points that are enough to start walks from


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ViolationSearch:
    """What a search found.

    Args:
        points: different points of the box that violate the property, checked in float32 and in
            float64, without labels.
        status: "complete", "too few" where the search ended before the number wanted was reached,
            or "none found", which proves nothing.
        found_by: how many of the points each way brought: "uniform", "walk", "descent", "corners",
            "evolution"; the ways that were not needed are left out.
        uniform_share: fraction of the uniform points that violate.
        tried: at how many points the network was run.
    """

    points: Samples
    status: str
    found_by: Mapping[str, int]
    uniform_share: float
    tried: int


def find_violations(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    count: int,
    *,
    draws: int = 500_000,
    descents: int = 2,
    generations: int = 200,
    walk: int = 2_000,
    satisfying: bool = False,
    progress: bool = False,
    generator: torch.Generator,
) -> ViolationSearch:
    """Points of a property's box at which the network violates it.

    Uniform points come first. Where they bring fewer than 64 (or `count`), descents along the sign
    of the margin's gradient start from the best of them and from new points; then the box is split
    along the side across which its corners differ most, and the halves with the lowest corners are
    split again; then 512 points evolve, each taking a step where that lowers its margin. Where
    points are still missing, a random walk starts from all that were found: a step is a share of
    the difference of two other walkers, or a small random one, and is taken where it stays in the
    box and violates. After enough steps its points are spread evenly over the part that it can
    reach, so that those of the guided ways, which crowd in a few places, come last.

    Args:
        model: the network, in evaluation mode.
        prop: the property, with one finite box.
        count: how many different points are wanted.
        draws: uniform points, at most.
        descents: rounds of 512 descents with 60 steps each, at most.
        generations: steps of the evolution, at most.
        walk: steps of the random walk, at most.
        satisfying: look for points that satisfy the property instead.
        progress: show bars.
        generator: draws everything random.

    Returns:
        Up to `count` points, each checked by the network in float32 and in float64, with a status
        that says whether they are enough.

    Raises:
        ValueError: a count or a limit that is negative, a count of 0, a property without a box, or
            one that the network cannot take.

    Example:
        >>> import torch, carelab as cl
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2)).eval()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> prop = cl.properties.forbidden_class(0, 2, **box)
        >>> g = torch.Generator().manual_seed(0)
        >>> found = cl.properties.find_violations(model, prop, 10, draws=100, generator=g)
        >>> found.status in ("complete", "too few", "none found")
        True
    """
    if count < 1 or min(draws, descents, generations, walk) < 0:
        raise ValueError(
            f"count, draws, descents, generations, walk: got {count}, {draws}, {descents}, "
            f"{generations}, {walk}; allowed: 1 or more, the others 0 or more"
        )
    hunt = hunt_for(model, prop, satisfying=satisfying)
    seeds = min(count, _SEEDS)
    uniform, nearest, drawn = uniform_search(hunt, count, draws, progress, generator)
    groups, tried = {"uniform": uniform}, drawn
    for way, search in (
        ("descent", partial(descend, hunt, nearest, seeds, descents)),
        ("corners", partial(split_boxes, hunt, seeds)),
        ("evolution", partial(evolve, hunt, seeds, generations)),
    ):
        if sum(len(group) for group in groups.values()) < seeds:
            groups[way], more = search(progress, generator)
            tried += more
    known = distinct_points(torch.cat(list(groups.values())))
    # A few points may lie anywhere; many should not crowd where the descents ended.
    if len(known) > 0 and len(uniform) < count and (count > seeds or len(known) < count):
        missing = count - len(uniform)
        groups["walk"], more = spread(hunt, known, missing, walk, progress, generator)
        tried += more
    return _result(groups, count, len(uniform) / max(1, drawn), tried)


def _result(
    groups: Mapping[str, Tensor],
    count: int,
    uniform_share: float,
    tried: int,
) -> ViolationSearch:
    """The first points of each way in the order of how evenly they are spread."""
    ways = [way for way in dict.fromkeys(("uniform", "walk", *groups)) if way in groups]
    found_by: dict[str, int] = {}
    points = groups["uniform"][:0]
    for way in ways:
        longer = distinct_points(torch.cat([points, groups[way]]))[:count]
        found_by[way] = len(longer) - len(points)
        points = longer
    status = "complete" if len(points) == count else "too few" if len(points) else "none found"
    return ViolationSearch(
        points=Samples(inputs=points),
        status=status,
        found_by=found_by,
        uniform_share=uniform_share,
        tried=tried,
    )
