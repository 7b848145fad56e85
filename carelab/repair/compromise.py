"""Several weights of the accuracy, and the repair that selection rows choose among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from carelab.networks import accuracy
from carelab.records import Repair, Samples
from carelab.repair.front import repair_front

__all__ = ["Compromise", "choose_alpha"]

# The difference of two accuracies may lie above the drop allowed by a rounding error alone.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Compromise:
    """The repairs found with several weights of the accuracy, and the one chosen.

    Args:
        alphas: the weights tried.
        repairs: the repair found with each.
        drops: accuracy that each costs on the selection rows, as a fraction.
        chosen: position of the repair chosen.
    """

    alphas: tuple[float, ...]
    repairs: tuple[Repair, ...]
    drops: tuple[float, ...]
    chosen: int

    @property
    def repair(self) -> Repair:
        """The repair chosen."""
        return self.repairs[self.chosen]

    @property
    def alpha(self) -> float:
        """The weight of the accuracy it was found with."""
        return self.alphas[self.chosen]


def choose_alpha(
    model: nn.Module,
    selection: Samples,
    search: Callable[[float], Repair],
    *,
    alphas: Sequence[float],
    largest_drop: float = 0.02,
) -> Compromise:
    """The repair with the fewest violations among those that cost little accuracy.

    CARE fixes alpha by hand. Here several are tried, and rows that neither the search nor the
    measurement sees decide: of the repairs whose accuracy on the selection rows is at most
    `largest_drop` lower, the one that leaves the fewest given counterexamples is chosen; where
    none is that accurate, the most accurate one.

    Args:
        model: the network that is repaired.
        selection: labelled rows that only choose.
        search: makes the repair for one alpha.
        alphas: the weights to try, at least one.
        largest_drop: accuracy that a repair may cost, as a fraction, 0 or more.

    Raises:
        ValueError: no alpha, or a drop that is negative or no number.

    Example:
        >>> import torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> search = lambda alpha: cl.repair.care(
        ...     model, table.train, table.train, fair, [one], alpha=alpha, generator=g)
        >>> both = cl.repair.choose_alpha(model, table.selection, search, alphas=(0.3, 0.9))
    """
    if not alphas or not largest_drop >= 0:
        raise ValueError(
            f"alphas, largest_drop: got {list(alphas)}, {largest_drop}; "
            "allowed: at least one alpha, a drop of 0 or more"
        )
    before = accuracy(model, selection)
    front = repair_front(
        model,
        search,
        lambda repaired: [before - accuracy(repaired, selection)],
        weights=alphas,
        names=["accuracy_drop"],
    )
    repairs, drops = front.repairs, tuple(front.costs[:, 0].tolist())
    numbers = range(len(repairs))
    cheap = [number for number in numbers if drops[number] <= largest_drop + _ROUNDING]
    chosen = (
        min(cheap, key=lambda number: (repairs[number].after.violation_rate, drops[number]))
        if cheap
        else min(numbers, key=drops.__getitem__)
    )
    return Compromise(alphas=tuple(alphas), repairs=repairs, drops=drops, chosen=chosen)
