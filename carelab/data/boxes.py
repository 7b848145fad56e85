"""Points in a box: an interval for each feature, each on its own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.records import Samples

__all__ = ["inner_box", "uniform_points"]


def uniform_points(
    low: Float[Tensor, " features"],
    high: Float[Tensor, " features"],
    count: int,
    *,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator,
) -> Samples:
    """Points drawn uniformly from the box low..high, without labels.

    Args:
        low: smallest value of each feature (features).
        high: largest value of each feature (features).
        count: how many points, at least 1.
        dtype: number type of the points; rounding never leads out of the box.
        generator: draws the points.

    Raises:
        ValueError: a count below 1, a box that is not finite or has a side without a number of
            that type.

    Example:
        >>> import torch
        >>> from carelab.data import uniform_points
        >>> low, high = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0])
        >>> points = uniform_points(low, high, 5, generator=torch.Generator().manual_seed(0))
        >>> points.inputs[:, 1].tolist()
        [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    if count < 1:
        raise ValueError(f"count: got {count}; allowed: 1 or more")
    inner_low, inner_high = inner_box(low, high, dtype=dtype)
    # In float64, whose 53 random bits reach every float32 number of the box.
    shares = torch.rand(count, len(low), generator=generator, dtype=torch.float64)
    drawn = low.double().cpu() + (high.double() - low.double()).cpu() * shares
    inside = drawn.to(dtype).clamp(inner_low.cpu(), inner_high.cpu())
    return Samples(inputs=inside.to(low.device))


def inner_box(
    low: Float[Tensor, " features"],
    high: Float[Tensor, " features"],
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """The largest box with corners of a number type inside the box low..high.

    Bounds such as 0.679857769 are no float32 numbers; the nearest one may lie outside the box.

    Args:
        low: smallest value of each feature (features).
        high: largest value of each feature (features).
        dtype: the number type.

    Returns:
        Its smallest and its largest values, in that type.

    Raises:
        ValueError: bounds that do not fit together or are not finite, or a side that is so short
            that it holds no number of that type.

    Example:
        >>> import torch
        >>> from carelab.data import inner_box
        >>> low, high = inner_box(torch.zeros(1), torch.tensor([0.679857769], dtype=torch.float64))
        >>> bool(high.double() <= 0.679857769)
        True
    """
    if low.shape != high.shape or not bool(torch.isfinite(torch.stack([low, high])).all()):
        raise ValueError(
            f"low, high: got {low.tolist()}, {high.tolist()}; allowed: finite numbers, as many "
            "in each"
        )
    inner_low, inner_high = low.to(dtype), high.to(dtype)
    upwards, downwards = (
        torch.full_like(inner_low, torch.inf),
        torch.full_like(inner_low, -torch.inf),
    )
    too_low = inner_low.double() < low.double()
    too_high = inner_high.double() > high.double()
    inner_low = torch.where(too_low, torch.nextafter(inner_low, upwards), inner_low)
    inner_high = torch.where(too_high, torch.nextafter(inner_high, downwards), inner_high)
    if bool((inner_low > inner_high).any()):
        raise ValueError(
            f"low, high: got {low.tolist()}, {high.tolist()}; allowed: low at most high, with a "
            f"number of type {dtype} between them"
        )
    return inner_low, inner_high
