"""Drawings of what a network of one input does, and of the bounds that are known of it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor, nn

from carelab.proof import affine_chain, hidden_bounds, interval_bounds, linear_bounds

__all__ = ["bounds_drawing", "value_band"]

_CURVE = "black"
_PROVED = "#0173b2"
_OPEN = "#de8f05"
_LIMIT = "#d55e00"


def value_band(
    model: nn.Module, low: float, high: float, *, parts: int = 1, lines: bool = False
) -> tuple[Float[Tensor, " ends"], Float[Tensor, "parts 2"], Float[Tensor, "parts 2"]]:
    """Below and above what the output of a network of one input stays, on equal parts of a range.

    Args:
        model: a sequential network with one input and one output.
        low: smallest input.
        high: largest input.
        parts: into how many equal parts the range is cut.
        lines: bound by lines carried back through the ReLUs, else by intervals alone.

    Returns:
        The ends of the parts (parts + 1), and the lower and the upper bound at the two ends of
        each part (parts, 2), float64; between the ends they are straight.

    Raises:
        ValueError: another number of inputs or outputs, no part, or an empty range.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.show.bound_drawings import value_band
        >>> model = networks.mlp(1, (3,), 1, generator=torch.Generator().manual_seed(0))
        >>> ends, lower, upper = value_band(model, -1, 1, parts=2)
        >>> ends.tolist(), bool((lower <= upper).all())
        ([-1.0, 0.0, 1.0], True)
    """
    chain = affine_chain(model)
    if (chain.features, chain.outputs) != (1, 1):
        raise ValueError(
            f"model: has {chain.features} inputs and {chain.outputs} outputs; allowed: one of each"
        )
    if parts < 1 or not low < high:
        raise ValueError(
            f"parts, low, high: got {parts}, {low}, {high}; allowed: 1 or more, low below high"
        )
    ends = torch.linspace(low, high, parts + 1, dtype=torch.float64, device=chain.weights[0].device)
    first, last = ends[:-1].unsqueeze(1), ends[1:].unsqueeze(1)
    if not lines:
        lower, upper = interval_bounds(chain, first, last)[-1]
        return ends, lower.expand(-1, 2), upper.expand(-1, 2)
    rows = torch.tensor([[1.0], [-1.0]]).to(ends).expand(parts, 2, 1)
    known = linear_bounds(
        chain, hidden_bounds(chain, first, last), rows, rows[..., 0] * 0, first, last
    )
    at_ends = known.coefficients * torch.cat([first, last], dim=1).unsqueeze(1)
    at_ends = at_ends + known.constants.unsqueeze(2)
    return ends, at_ends[:, 0], -at_ends[:, 1]


def bounds_drawing(
    model: nn.Module,
    low: float,
    high: float,
    *,
    parts: int = 1,
    lines: bool = False,
    limit: float | None = None,
    view: tuple[float, float] | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """The output of a network of one input over a range, inside the band that is certain.

    A part is proved where its whole band is above the limit: blue without hatching; parts that
    are still open are orange and hatched.

    Args:
        model: a sequential network with one input and one output.
        low: smallest input.
        high: largest input.
        parts: into how many equal parts the range is cut.
        lines: bound by lines carried back through the ReLUs, else by intervals alone.
        limit: what the output has to stay above, or None: no limit, no part is open.
        view: smallest and largest output to be shown, or None: all of the band.
        ax: where to draw; a new figure by default.
        label: title of the axes; by default the kind of bounds, the parts and the lower bound.

    Raises:
        ValueError: as `value_band`.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.show.bound_drawings import bounds_drawing
        >>> model = networks.mlp(1, (3,), 1, generator=torch.Generator().manual_seed(0))
        >>> axes = bounds_drawing(model, -1, 1, parts=2, limit=0.0)
    """
    ends, lower, upper = value_band(model, low, high, parts=parts, lines=lines)
    axes = plt.subplots()[1] if ax is None else ax
    named: set[str] = set()
    for part in range(parts):
        proved = limit is None or float(lower[part].min()) > limit
        name = "certain band" if limit is None else "proved" if proved else "still open"
        axes.fill_between(
            ends[part : part + 2].tolist(),
            lower[part].tolist(),
            upper[part].tolist(),
            facecolor=_PROVED if proved else _OPEN,
            edgecolor=_PROVED if proved else _OPEN,
            alpha=0.35,
            hatch=None if proved else "//",
            label=None if name in named else name,
        )
        named.add(name)
    inputs = torch.linspace(low, high, 2001, dtype=torch.float64, device=ends.device)
    outputs = affine_chain(model)(inputs.unsqueeze(1)).flatten()
    axes.plot(inputs.tolist(), outputs.tolist(), color=_CURVE, linewidth=2, label="network")
    if limit is not None:
        axes.axhline(limit, color=_LIMIT, linestyle="--", label=f"limit {limit:g}")
    axes.set(xlabel="input x", ylabel="output y", xlim=(low, high))
    if view is not None:
        axes.set_ylim(view)
    kind = "lines" if lines else "intervals"
    count = "1 part" if parts == 1 else f"{parts} parts"
    axes.set_title(label or f"{kind}, {count}: y is at least {float(lower.min()):.3g}")
    axes.legend(loc="best", fontsize="small")
    return axes
