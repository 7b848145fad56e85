"""The parts of a box that a tree of cuts makes, which cover it by the way they are made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carelab.proof.verdicts import SplitTree

__all__ = ["Parts", "parts_of"]

_Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Parts:
    """Boxes of inputs, each with what is known of the signs of the hidden sums in it.

    Args:
        low: smallest value of each input (parts, features).
        high: largest value of each input (parts, features).
        phases: +1 where a sum is >= 0, -1 where it is <= 0, 0 where it is open (parts, neurons).
    """

    low: _Numbers
    high: _Numbers
    phases: NDArray[np.int8]

    def take(self, rows: slice) -> Parts:
        """Some of the parts."""
        return Parts(low=self.low[rows], high=self.high[rows], phases=self.phases[rows])


def parts_of(tree: SplitTree, low: _Numbers, high: _Numbers, neurons: int) -> Parts:
    """The parts that the cuts of a tree make of a box.

    Each cut replaces a part by two that together hold all of it: the inputs on either side of a
    number within it, or the points where a sum is <= 0 and where it is >= 0. So the parts cover
    the box, whatever the cuts are, as long as the list of nodes is complete.

    Args:
        tree: the cuts.
        low: smallest value of each input (features).
        high: largest value of each input (features).
        neurons: number of hidden neurons.

    Returns:
        The parts in the order of the tree's proved nodes.

    Raises:
        ValueError: a list of nodes that ends too early or too late, a cut outside its part, or on
            something that is not there.

    Example:
        >>> import torch, numpy as np
        >>> from carelab.proof.covering import parts_of
        >>> from carelab.proof import DualValues, SplitTree
        >>> one = DualValues(weights=torch.ones(2, 1), slopes=torch.zeros(2, 0, dtype=torch.uint8))
        >>> on, at = torch.tensor([0, -1, -1]), torch.tensor([0.5, 0, 0])
        >>> tree = SplitTree(split_on=on, split_at=at, values=one)
        >>> parts_of(tree, np.zeros(1), np.ones(1), 0).low.tolist()
        [[0.0], [0.5]]
    """
    lows, highs, signs = [], [], []
    waiting = [(low, high, np.zeros(neurons, dtype=np.int8))]
    ons, ats = tree.split_on.tolist(), tree.split_at.tolist()
    if len(ons) != len(ats):
        raise ValueError(f"it cuts {len(ons)} nodes at {len(ats)} places")
    for node, (on, at) in enumerate(zip(ons, ats, strict=True)):
        if not waiting:
            raise ValueError(f"its tree is complete after {node} of its {len(ons)} nodes")
        below, above, phases = waiting.pop()
        if on == -1:
            lows.append(below)
            highs.append(above)
            signs.append(phases)
        elif 0 <= on < len(low):
            if not below[on] < at < above[on]:
                raise ValueError(f"node {node} is cut at {at}, outside its part")
            middle_high, middle_low = above.copy(), below.copy()
            middle_high[on] = middle_low[on] = at
            waiting.append((middle_low, above, phases))
            waiting.append((below, middle_high, phases))
        elif len(low) <= on < len(low) + neurons and phases[on - len(low)] == 0:
            negative, positive = phases.copy(), phases.copy()
            negative[on - len(low)], positive[on - len(low)] = -1, 1
            waiting.append((below, above, positive))
            waiting.append((below, above, negative))
        else:
            raise ValueError(f"node {node} is cut on {on}, which is not there or is cut already")
    if waiting:
        raise ValueError(f"its tree is not complete: {len(waiting)} parts of the box are missing")
    return Parts(low=np.stack(lows), high=np.stack(highs), phases=np.stack(signs))
