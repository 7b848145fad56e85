"""What a search of a box looks for, and the box itself."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.data import inner_box, uniform_points
from carelab.networks import check_evaluation_mode, check_inputs, logits
from carelab.properties.regions import OutputRegion, OutputRegions
from carelab.records import Samples

__all__ = ["Hunt", "distinct_points", "hunt_for", "region_box"]

_BLOCK = 2**15  # points of a pass
_ROUNDING = 1e-5  # of the largest output: far more than float32 can be off, far less than matters


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Hunt:
    """What is sought, points whose sign * margin is negative, and the box that it is sought in.

    Args:
        model: the network, in evaluation mode.
        exact: the same network in float64.
        prop: the property.
        sign: 1 to look for violating points, -1 for satisfying ones.
        low: smallest value of each feature, in the network's number type (features).
        high: largest value of each feature (features).
    """

    model: nn.Module
    exact: nn.Module
    prop: OutputRegion | OutputRegions
    sign: int
    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]

    def distance(self, points: Float[Tensor, "points features"]) -> Float[Tensor, " points"]:
        """How far each point is from what is sought; negative there."""
        outputs = logits(self.model, points, batch_size=_BLOCK)
        return self.sign * self.prop.margin(outputs.unsqueeze(0), Samples(inputs=points))

    def slope(self, points: Float[Tensor, "points features"]) -> Float[Tensor, "points features"]:
        """Gradient of the distance at each point."""
        with torch.enable_grad():
            inputs = points.detach().clone().requires_grad_()
            outputs = self.model(inputs).unsqueeze(0)
            distance = self.sign * self.prop.margin(outputs, Samples(inputs=inputs))
            (gradient,) = torch.autograd.grad(distance.sum(), inputs)
        return gradient

    def confirmed(self, points: Float[Tensor, "points features"]) -> Float[Tensor, "sure features"]:
        """Those of the points that are what is sought beyond doubt of rounding, each once."""
        doubles = points.double()
        outputs = logits(self.exact, doubles, batch_size=_BLOCK)
        margin = self.prop.margin(outputs.unsqueeze(0), Samples(inputs=doubles))
        sure = self.sign * margin < -_ROUNDING * outputs.abs().amax(dim=1)
        return distinct_points(points[sure & (self.distance(points) < 0)])

    def drawn(self, count: int, generator: torch.Generator) -> Float[Tensor, "count features"]:
        """Uniform points of the box."""
        low, high = self.low.cpu(), self.high.cpu()
        points = uniform_points(low, high, count, dtype=low.dtype, generator=generator)
        return points.inputs.to(self.low.device)


def hunt_for(
    model: nn.Module, prop: OutputRegion | OutputRegions, *, satisfying: bool = False
) -> Hunt:
    """What the searches below need to know of a network and a property.

    Args:
        model: the network, in evaluation mode.
        prop: the property, with one finite box.
        satisfying: look for points that satisfy the property.

    Raises:
        ValueError: a network in training mode or that does not take the box's points; a property
            without a box, or whose box holds no point of the network's number type.

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> from carelab.properties.hunts import hunt_for
        >>> model = torch.nn.Sequential(torch.nn.Identity()).eval()
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> hunt_for(model, properties.forbidden_class(0, 2, **box)).high
        tensor([1., 1.])
    """
    check_evaluation_mode(model)
    weights = next(model.parameters(), torch.zeros(()))
    low, high = inner_box(*region_box(prop), dtype=weights.dtype)
    low, high = low.to(weights.device), high.to(weights.device)
    check_inputs(model, low.unsqueeze(0))
    exact = deepcopy(model).double()
    sign = -1 if satisfying else 1
    return Hunt(model=model, exact=exact, prop=prop, sign=sign, low=low, high=high)


def region_box(
    prop: OutputRegion | OutputRegions,
) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """The one box of inputs that a property is about.

    Args:
        prop: the property.

    Returns:
        Its smallest and its largest inputs (features), as the property holds them.

    Raises:
        ValueError: a property without a box, with an unbounded one, or whose polytopes have
            different boxes.

    Example:
        >>> import torch
        >>> from carelab.properties import forbidden_class, region_box
        >>> low, high = region_box(forbidden_class(0, 2, low=torch.zeros(1), high=torch.ones(1)))
        >>> low.tolist(), high.tolist()
        ([0.0], [1.0])
    """
    regions = prop.regions if isinstance(prop, OutputRegions) else (prop,)
    low, high = regions[0].low, regions[0].high
    if low is None or high is None or not bool(torch.stack([low, high]).isfinite().all()):
        raise ValueError(f"prop: {prop.name} has no finite box of inputs; allowed: low and high")
    for other in regions[1:]:
        for own, theirs in ((low, other.low), (high, other.high)):
            if theirs is None or not torch.equal(own, theirs):
                raise ValueError(
                    f"prop: the polytopes of {prop.name} have different boxes; allowed: one box, "
                    "a property of its own for each"
                )
    return low, high


def distinct_points(
    points: Float[Tensor, "points features"],
) -> Float[Tensor, "distinct features"]:
    """The points without later repetitions, in their order.

    Args:
        points: one a row (points, features).

    Example:
        >>> import torch
        >>> from carelab.properties.hunts import distinct_points
        >>> distinct_points(torch.tensor([[2.0], [1.0], [2.0]])).tolist()
        [[2.0], [1.0]]
    """
    if len(points) == 0:
        return points
    groups, member = torch.unique(points, dim=0, return_inverse=True)
    places = torch.arange(len(points), device=points.device)
    first = torch.full((len(groups),), len(points), device=points.device)
    return points[first.scatter_reduce(0, member, places, "amin").sort().values]
