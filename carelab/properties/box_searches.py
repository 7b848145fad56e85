"""Ways to search a box for points at which a property is violated, or satisfied."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from carelab.properties.hunts import Hunt, distinct_points

__all__ = ["descend", "evolve", "split_boxes", "spread", "uniform_search"]

_BLOCK = 2**15  # points of a pass
_STARTS = 512  # descents at a time, points of the evolution
_STEPS = 60  # steps of a descent
_SPLITS = 40  # rounds of splitting boxes
_CORNERS = 2**13  # corners looked at in a round
_SIDES = 10  # with more free features than this, corners are drawn
_WALKERS = 2**12
_APART = 20  # steps of the walk between two points that are kept


def uniform_search(
    hunt: Hunt, count: int, draws: int, progress: bool, generator: torch.Generator
) -> tuple[Float[Tensor, "found features"], Float[Tensor, "nearest features"], int]:
    """What uniform points bring, those nearest to it, and how many were drawn.

    Args:
        hunt: what is sought.
        count: how many are wanted.
        draws: points drawn, at most.
        progress: show a bar.
        generator: draws the points.

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> from carelab.properties.box_searches import uniform_search
        >>> from carelab.properties.hunts import hunt_for
        >>> model, g = torch.nn.Sequential(torch.nn.Identity()).eval(), torch.Generator()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> hunt = hunt_for(model, properties.forbidden_class(0, 2, **box))
        >>> found, _, _ = uniform_search(hunt, 5, 100, False, g)
    """
    found = nearest = hunt.low.new_empty(0, len(hunt.low))
    distances = hunt.low.new_empty(0)
    drawn = 0
    with tqdm(total=count, desc="uniform points", disable=not progress) as bar:
        while drawn < draws and len(found) < count:
            points = hunt.drawn(min(_BLOCK, draws - drawn), generator)
            drawn += len(points)
            distance = hunt.distance(points)
            found = distinct_points(torch.cat([found, hunt.confirmed(points[distance < 0])]))
            nearest, distances = torch.cat([nearest, points]), torch.cat([distances, distance])
            best = distances.argsort(stable=True)[: _STARTS // 2]
            nearest, distances = nearest[best], distances[best]
            bar.update(min(len(found), count) - bar.n)
    return found, nearest, drawn


def descend(
    hunt: Hunt,
    nearest: Float[Tensor, "nearest features"],
    wanted: int,
    rounds: int,
    progress: bool,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "found features"], int]:
    """What descents along the sign of the gradient come through, and how many points they saw.

    Args:
        hunt: what is sought.
        nearest: where half of the first round's descents start; all others start anywhere.
        wanted: how many are wanted.
        rounds: rounds of 512 descents, at most.
        progress: show a bar.
        generator: draws the starts.

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> from carelab.properties.box_searches import descend
        >>> from carelab.properties.hunts import hunt_for
        >>> model, g = torch.nn.Sequential(torch.nn.Identity()).eval(), torch.Generator()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> hunt = hunt_for(model, properties.forbidden_class(0, 2, **box))
        >>> found, _ = descend(hunt, torch.zeros(0, 2), 5, 1, False, g)
    """
    found, tried = nearest[:0], 0
    shares = torch.logspace(-1, -4, _STEPS).tolist()
    for _ in tqdm(range(rounds), desc="descents", disable=not progress):
        if len(found) >= wanted:
            break
        fresh = hunt.drawn(_STARTS - len(nearest), generator)
        points, nearest = torch.cat([nearest, fresh]), nearest[:0]
        for share in shares:
            step = share * (hunt.high - hunt.low) * hunt.slope(points).sign()
            points = (points - step).clamp(hunt.low, hunt.high)
            tried += len(points)
            found = torch.cat([found, hunt.confirmed(points[hunt.distance(points) < 0])])
    return distinct_points(found), tried


def split_boxes(
    hunt: Hunt, wanted: int, progress: bool, generator: torch.Generator
) -> tuple[Float[Tensor, "found features"], int]:
    """What the corners of ever smaller boxes bring, and how many corners were looked at.

    A box is cut across the side at whose ends its corners differ most; the boxes with the lowest
    corners are cut again. With more than 10 free features a round looks at 1,024 random corners.

    Args:
        hunt: what is sought.
        wanted: how many are wanted.
        progress: show a bar.
        generator: draws corners where there are too many.

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> from carelab.properties.box_searches import split_boxes
        >>> from carelab.properties.hunts import hunt_for
        >>> model, g = torch.nn.Sequential(torch.nn.Identity()).eval(), torch.Generator()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> hunt = hunt_for(model, properties.forbidden_class(0, 2, **box))
        >>> split_boxes(hunt, 1, False, g)[0].tolist()
        [[1.0, 0.0]]
    """
    found, tried = hunt.low.new_empty(0, len(hunt.low)), 0
    sides = (hunt.high > hunt.low).nonzero().flatten()
    low, high = hunt.low.unsqueeze(0), hunt.high.unsqueeze(0)
    for _ in tqdm(range(_SPLITS), desc="corners", disable=not progress):
        choice = _corner_choice(len(sides), generator).to(low.device)
        points = low.unsqueeze(1).repeat(1, len(choice), 1)
        points[:, :, sides] = torch.where(choice, high[:, None, sides], low[:, None, sides])
        distance = hunt.distance(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        tried += distance.numel()
        found = torch.cat([found, hunt.confirmed(points[distance < 0])])
        if len(found) >= wanted or len(sides) == 0:
            break
        kept = distance.amin(dim=1).argsort(stable=True)[: max(1, _CORNERS // len(choice) // 2)]
        side = sides[_influence(distance[kept], choice).argmax(dim=1)]
        low, high = _halves(low[kept], high[kept], side)
    return distinct_points(found), tried


def evolve(
    hunt: Hunt, wanted: int, generations: int, progress: bool, generator: torch.Generator
) -> tuple[Float[Tensor, "found features"], int]:
    """What points bring that take every step nearer to what is sought, and how many they tried.

    Args:
        hunt: what is sought.
        wanted: how many are wanted.
        generations: steps of the 512 points, at most.
        progress: show a bar.
        generator: draws points and steps.

    Source: Storn and Price, Differential Evolution, Journal of Global Optimization 1997.
        Departs: no crossing over; half of the steps are small random ones.

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> from carelab.properties.box_searches import evolve
        >>> from carelab.properties.hunts import hunt_for
        >>> model, g = torch.nn.Sequential(torch.nn.Identity()).eval(), torch.Generator()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> hunt = hunt_for(model, properties.forbidden_class(0, 2, **box))
        >>> found, _ = evolve(hunt, 5, 10, False, g)
    """
    points = hunt.drawn(_STARTS, generator)
    distance = hunt.distance(points)
    tried = len(points)
    for _ in tqdm(range(generations), desc="evolution", disable=not progress):
        if int((distance < 0).sum()) >= wanted and len(hunt.confirmed(points)) >= wanted:
            break
        proposed = (points + _moves(hunt, points, generator)).clamp(hunt.low, hunt.high)
        reached = hunt.distance(proposed)
        better = reached < distance
        points = torch.where(better.unsqueeze(1), proposed, points)
        distance = torch.where(better, reached, distance)
        tried += len(points)
    return hunt.confirmed(points), tried


def spread(
    hunt: Hunt,
    known: Float[Tensor, "known features"],
    missing: int,
    steps: int,
    progress: bool,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "found features"], int]:
    """Points over which a random walk from the known ones spreads, and how many it tried.

    Args:
        hunt: what is sought.
        known: points that are what is sought, at least one.
        missing: how many are wanted.
        steps: steps of the 4,096 walkers, at most.
        progress: show a bar.
        generator: draws the steps.

    Source: ter Braak, A Markov Chain Monte Carlo version of the genetic algorithm Differential
        Evolution, Statistics and Computing 2006. Departs: all walkers step at once; half of the
        steps are small random ones.

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> from carelab.properties.box_searches import spread
        >>> from carelab.properties.hunts import hunt_for
        >>> model, g = torch.nn.Sequential(torch.nn.Identity()).eval(), torch.Generator()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> hunt = hunt_for(model, properties.forbidden_class(0, 2, **box))
        >>> found, _ = spread(hunt, torch.tensor([[1.0, 0.0]]), 5, 0, False, g)
    """
    order = torch.randperm(len(known), generator=generator).to(known.device)
    walkers = known[order].repeat(-(-_WALKERS // len(known)), 1)[:_WALKERS]
    found, tried = walkers[:0], 0
    with tqdm(total=missing, desc="walk", disable=not progress) as bar:
        for step in range(1, steps + 1):
            proposed = walkers + _moves(hunt, walkers, generator)
            inside = ((proposed >= hunt.low) & (proposed <= hunt.high)).all(dim=1)
            accepted = inside & (hunt.distance(proposed) < 0)
            tried += len(proposed)
            walkers = torch.where(accepted.unsqueeze(1), proposed, walkers)
            # What the walkers saw close to their start is no sample of the whole part.
            if step % _APART == 0 and step > 5 * _APART:
                found = distinct_points(torch.cat([found, hunt.confirmed(walkers)]))
                bar.update(min(len(found), missing) - bar.n)
            if len(found) >= missing:
                break
    return found, tried


def _moves(
    hunt: Hunt, walkers: Float[Tensor, "walkers features"], generator: torch.Generator
) -> Float[Tensor, "walkers features"]:
    """A step for each walker: part of the way between two others, or of a random size anywhere."""
    count, features = walkers.shape
    pairs = torch.randint(count, (2, count), generator=generator).to(walkers.device)
    numbers = torch.rand(3, count, 1, generator=generator).to(walkers)
    directions = torch.randn(count, features, generator=generator).to(walkers)
    across = 1.2 * numbers[0] * (walkers[pairs[0]] - walkers[pairs[1]])
    anywhere = 10 ** (-1 - 4 * numbers[1]) * (hunt.high - hunt.low) * directions
    return torch.where(numbers[2] < 0.5, across, anywhere)


def _corner_choice(sides: int, generator: torch.Generator) -> Bool[Tensor, "corners sides"]:
    """Which corners are looked at: True for the upper end of a side."""
    if sides > _SIDES:
        return torch.rand(2**_SIDES, sides, generator=generator) < 0.5
    numbers = torch.arange(2**sides).unsqueeze(1)
    return (numbers >> torch.arange(sides)) % 2 == 1


def _influence(
    distance: Float[Tensor, "boxes corners"], choice: Bool[Tensor, "corners sides"]
) -> Float[Tensor, "boxes sides"]:
    """How far the mean distances at the two ends of each side are apart."""
    upper = choice.to(distance)
    means = [distance @ part / part.sum(dim=0).clamp(min=1) for part in (upper, 1 - upper)]
    return (means[0] - means[1]).abs()


def _halves(
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    side: Int[Tensor, " boxes"],
) -> tuple[Float[Tensor, "halves features"], Float[Tensor, "halves features"]]:
    """Both halves of each box, cut across a side."""
    rows = torch.arange(len(low), device=low.device)
    upper_low, lower_high = low.clone(), high.clone()
    middle = (low[rows, side] + high[rows, side]) / 2
    upper_low[rows, side], lower_high[rows, side] = middle, middle
    return torch.cat([low, upper_low]), torch.cat([lower_high, high])
