"""Violating and satisfying points of a safety property, apart for repair, choice and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import nn

from carelab.properties.counterexamples import ViolationSearch, find_violations
from carelab.properties.regions import OutputRegion, OutputRegions
from carelab.records import Samples

__all__ = ["SafetyPart", "SafetySamples", "safety_samples"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SafetyPart:
    """Points of a property's box for one purpose.

    Args:
        violating: points at which the network violates the property.
        satisfying: points at which it satisfies it.
    """

    violating: Samples
    satisfying: Samples


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SafetySamples:
    """Points of a property's box in three parts; none of them is in two.

    Args:
        repair: what a repair may look at.
        selection: for choosing (layers, counts, margins); never for measuring.
        test: for measuring; no repair and no choice sees them.
        violating: the search for the violating points, all parts together: status, ways, share.
        satisfying: the search for the satisfying ones.
        status: "complete", or "too few" where a part has fewer points than it should.
    """

    repair: SafetyPart
    selection: SafetyPart
    test: SafetyPart
    violating: ViolationSearch
    satisfying: ViolationSearch
    status: str


def safety_samples(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    *,
    violating: Sequence[int] = (10_016, 1_000, 10_016),
    satisfying: Sequence[int] = (10_016, 1_000, 10_016),
    draws: int = 500_000,
    walk: int = 2_000,
    progress: bool = False,
    generator: torch.Generator,
) -> SafetySamples:
    """Different violating and satisfying points for repair, selection and test.

    Found as in `find_violations`, mixed, and shared out. Where too few are found, each part gets
    its share of them.

    Args:
        model: the network, in evaluation mode.
        prop: the property, with one finite box.
        violating: how many violating points for repair, selection and test; 0 is allowed.
        satisfying: how many satisfying points for each.
        draws: uniform points of each search, at most.
        walk: steps of the random walk of each search, at most.
        progress: show bars.
        generator: draws everything random.

    Raises:
        ValueError: sizes that are not three, negative or all 0, a property without a box, or one
            that the network cannot take.

    Source: CARE, section V-A, for the sizes: 10,016 points of each kind for repair and for test.

    Example:
        >>> import torch, carelab as cl
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2)).eval()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> prop, g = cl.properties.forbidden_class(0, 2, **box), torch.Generator().manual_seed(0)
        >>> parts = cl.properties.safety_samples(
        ...     model, prop, violating=(4, 2, 4), satisfying=(4, 2, 4), draws=100, generator=g)
        >>> parts.status in ("complete", "too few")
        True
    """
    found = []
    for name, sizes in (("violating", violating), ("satisfying", satisfying)):
        if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) == 0:
            raise ValueError(
                f"{name}: got {list(sizes)}; allowed: a size for repair, selection and test, none "
                "negative, not all 0"
            )
        found.append(
            find_violations(
                model,
                prop,
                sum(sizes),
                draws=draws,
                walk=walk,
                satisfying=name == "satisfying",
                progress=progress,
                generator=generator,
            )
        )
    parts = [
        SafetyPart(violating=bad, satisfying=good)
        for bad, good in zip(
            _shared_out(found[0].points, violating, generator),
            _shared_out(found[1].points, satisfying, generator),
            strict=True,
        )
    ]
    complete = all(search.status == "complete" for search in found)
    return SafetySamples(
        repair=parts[0],
        selection=parts[1],
        test=parts[2],
        violating=found[0],
        satisfying=found[1],
        status="complete" if complete else "too few",
    )


def _shared_out(
    points: Samples, sizes: Sequence[int], generator: torch.Generator
) -> tuple[Samples, ...]:
    """The points at random in parts of these sizes, or of their shares where there are fewer."""
    order = torch.randperm(len(points), generator=generator).to(points.inputs.device)
    bounds = [0, *accumulate(sizes)]
    ends = [bound * len(points) // bounds[-1] for bound in bounds]
    return tuple(points.take(order[start:end]) for start, end in pairwise(ends))
