"""Safety: for inputs of a box, the outputs must not enter an unsafe polytope, or one of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from carelab.records import Samples

__all__ = [
    "OutputRegion",
    "OutputRegions",
    "forbidden_class",
    "never_lowest",
    "required_lowest",
]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class OutputRegion:
    """The outputs y stay out of the polytope A y <= b, in which all rows hold at once.

    * margin: max over rows of (A y - b), how far the outputs are from unsafe by the row that holds
      them out; negative inside the polytope;
    * score: sigmoid(-margin / scale), in (0, 1); over 1/2 inside, and the more the deeper;
    * rate: fraction of samples whose outputs are unsafe, margin <= 0 (the border is unsafe).

    The outputs are taken as the network gives them: for a classifier its logits, for a network
    that scores actions its scores. Violation of the property at one input is a fact whether or not
    the input lies in the box; the box says which inputs the property is about.

    Args:
        matrix: A, one constraint a row (constraints, classes).
        limits: b (constraints).
        low: smallest value of each input feature in the box (features), or None: unbounded.
        high: largest value of each input feature in the box (features), or None: unbounded.
        scale: distance, in outputs, that counts as far; of the order of their spread.
        name: what the property is called.

    Raises:
        ValueError: no constraint, a row of zeros, limits that do not fit, an empty box, a scale
            that is not positive.

    Source: Katz et al., Reluplex, CAV 2017, section VI, whose properties of ACAS Xu are of this
        form; VNN-LIB states them the same way round.

    Example:
        >>> import torch
        >>> from carelab.properties import OutputRegion
        >>> from carelab.records import Samples
        >>> region = OutputRegion(matrix=torch.tensor([[1.0, -1.0]]), limits=torch.zeros(1))
        >>> region.margin(torch.tensor([[[2.0, 5.0]]]), Samples(inputs=torch.ones(1, 3))).tolist()
        [-3.0]
    """

    matrix: Float[Tensor, "constraints classes"]
    limits: Float[Tensor, " constraints"]
    low: Float[Tensor, " features"] | None = None
    high: Float[Tensor, " features"] | None = None
    scale: float = 1.0
    name: str = "safety"

    def __post_init__(self) -> None:
        """Refuses a polytope without constraints, an empty box and a scale that is no distance."""
        if len(self.matrix) == 0 or bool((self.matrix == 0).all(dim=1).any()):
            raise ValueError(
                f"matrix: got {self.matrix.tolist()}; allowed: at least one row, none of zeros only"
            )
        _check_box(self.low, self.high)
        _check_scale(self.scale)

    def inside(self, inputs: Float[Tensor, "batch features"]) -> Bool[Tensor, " batch"]:
        """Which inputs lie in the box that the property is about."""
        within = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        if self.low is not None:
            within &= (inputs >= self.low.to(inputs)).all(dim=1)
        if self.high is not None:
            within &= (inputs <= self.high.to(inputs)).all(dim=1)
        return within

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "1 batch ..."]:
        """The inputs themselves."""
        return inputs.unsqueeze(0)

    def score(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """How deep in the unsafe polytope the outputs are, squashed into (0, 1)."""
        return torch.sigmoid(-self.margin(outputs, samples) / self.scale)

    def margin(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """By how much the outputs miss the constraint that they miss most."""
        if outputs.shape[-1] != self.matrix.shape[1]:
            raise ValueError(
                f"matrix: got {self.matrix.shape[1]} columns for a network of "
                f"{outputs.shape[-1]} outputs; allowed: one column for each output"
            )
        held_out = outputs[..., 0, :, :] @ self.matrix.to(outputs).T - self.limits.to(outputs)
        return held_out.amax(dim=-1)

    def rate(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        """Fraction of samples whose outputs are unsafe."""
        return (self.margin(outputs, samples) <= 0).to(outputs.dtype).mean(dim=-1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class OutputRegions:
    """The outputs stay out of each of several polytopes.

    Margin: the smallest of theirs; score: the largest of theirs; rate: fraction of samples whose
    outputs are in at least one.

    Args:
        regions: the polytopes, for the same inputs.
        name: what the property is called.

    Raises:
        ValueError: no polytope, or polytopes of different numbers of outputs.

    Example:
        >>> import torch
        >>> from carelab.properties import OutputRegions, never_lowest
        >>> from carelab.records import Samples
        >>> turns = OutputRegions(regions=(never_lowest(1, 3), never_lowest(2, 3)))
        >>> turns.margin(torch.tensor([[[5.0, 2.0, 4.0]]]), Samples(inputs=torch.ones(1, 3)))
        tensor([-2.])
    """

    regions: tuple[OutputRegion, ...]
    name: str = "safety"

    def __post_init__(self) -> None:
        """Refuses no polytope at all, and polytopes of different networks."""
        classes = sorted({region.matrix.shape[1] for region in self.regions})
        if len(classes) != 1:
            raise ValueError(
                f"regions: got {len(self.regions)}, of {classes} outputs; allowed: at least one, "
                "all of the same number of outputs"
            )

    def inside(self, inputs: Float[Tensor, "batch features"]) -> Bool[Tensor, " batch"]:
        """Which inputs lie in the box of at least one of the polytopes."""
        return torch.stack([region.inside(inputs) for region in self.regions]).any(dim=0)

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "1 batch ..."]:
        """The inputs themselves."""
        return inputs.unsqueeze(0)

    def score(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Score of the polytope that the outputs are deepest in."""
        scores = [region.score(outputs, samples) for region in self.regions]
        return torch.stack(scores).amax(dim=0)

    def margin(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Margin to the nearest polytope."""
        margins = [region.margin(outputs, samples) for region in self.regions]
        return torch.stack(margins).amin(dim=0)

    def rate(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        """Fraction of samples whose outputs are in at least one polytope."""
        return (self.margin(outputs, samples) <= 0).to(outputs.dtype).mean(dim=-1)


def forbidden_class(
    forbidden: int,
    classes: int,
    *,
    low: Float[Tensor, " features"] | None = None,
    high: Float[Tensor, " features"] | None = None,
    scale: float = 1.0,
    name: str = "",
) -> OutputRegion:
    """The output of a class is never the highest; unsafe: y_j - y_forbidden <= 0 for all j.

    Args:
        forbidden: the class.
        classes: number of outputs, at least 2.
        low: smallest value of each input feature in the box (features), or None.
        high: largest value of each input feature in the box (features), or None.
        scale: as in `OutputRegion`.
        name: what the property is called; by default it says so.

    Raises:
        ValueError: a class that does not exist.

    Source: ACAS Xu's property 2 (clear of conflict is never the highest) has this form.

    Example:
        >>> from carelab.properties import forbidden_class
        >>> forbidden_class(0, 3).matrix.tolist()
        [[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]
    """
    return OutputRegion(
        matrix=_differences(forbidden, classes),
        limits=torch.zeros(classes - 1),
        low=low,
        high=high,
        scale=scale,
        name=name or f"class {forbidden} is never the highest",
    )


def never_lowest(
    forbidden: int,
    classes: int,
    *,
    low: Float[Tensor, " features"] | None = None,
    high: Float[Tensor, " features"] | None = None,
    scale: float = 1.0,
    name: str = "",
) -> OutputRegion:
    """The output of a class is never the lowest; unsafe: y_forbidden - y_j <= 0 for all j.

    Args:
        forbidden: the class.
        classes: number of outputs, at least 2.
        low: smallest value of each input feature in the box (features), or None.
        high: largest value of each input feature in the box (features), or None.
        scale: as in `OutputRegion`.
        name: what the property is called; by default it says so.

    Raises:
        ValueError: a class that does not exist.

    Source: ACAS Xu's properties 3 and 4, in whose networks the lowest score is the advice; two of
        these in `OutputRegions` are its property 7.

    Example:
        >>> from carelab.properties import never_lowest
        >>> never_lowest(0, 3).matrix.tolist()
        [[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]
    """
    return OutputRegion(
        matrix=0 - _differences(forbidden, classes),
        limits=torch.zeros(classes - 1),
        low=low,
        high=high,
        scale=scale,
        name=name or f"class {forbidden} is never the lowest",
    )


def required_lowest(
    allowed: Sequence[int],
    classes: int,
    *,
    low: Float[Tensor, " features"] | None = None,
    high: Float[Tensor, " features"] | None = None,
    scale: float = 1.0,
    name: str = "",
) -> OutputRegions:
    """One of the allowed classes is the lowest; unsafe: another is below or level with all.

    Args:
        allowed: the classes of which one must have the lowest output.
        classes: number of outputs, at least 2.
        low: smallest value of each input feature in the box (features), or None.
        high: largest value of each input feature in the box (features), or None.
        scale: as in `OutputRegion`.
        name: what the property is called; by default it says so.

    Raises:
        ValueError: a class that does not exist, no class allowed, or all.

    Source: ACAS Xu's properties 5, 6 and 9 (one allowed) and 8 (two).

    Example:
        >>> from carelab.properties import required_lowest
        >>> [region.name for region in required_lowest([0, 2], 3).regions]
        ['class 1 is never the lowest']
    """
    others = sorted(set(range(classes)) - set(allowed))
    if not set(allowed) <= set(range(classes)) or not allowed or not others:
        raise ValueError(
            f"allowed: got {list(allowed)} of {classes} classes; allowed: some of 0 to "
            f"{classes - 1}, not all"
        )
    return OutputRegions(
        regions=tuple(
            never_lowest(other, classes, low=low, high=high, scale=scale) for other in others
        ),
        name=name
        or f"the lowest is of class {', '.join(str(one) for one in sorted(set(allowed)))}",
    )


def _differences(own: int, classes: int) -> Float[Tensor, "others classes"]:
    """Rows that give y_j - y_own for every other class j."""
    if classes < 2 or not 0 <= own < classes:
        raise ValueError(
            f"forbidden, classes: got {own}, {classes}; allowed: at least 2 classes, one of them"
        )
    rows = torch.eye(classes)
    rows[:, own] -= 1
    return rows[[other for other in range(classes) if other != own]]


def _check_box(low: Tensor | None, high: Tensor | None) -> None:
    if low is None or high is None:
        return
    if low.shape != high.shape or bool((low > high).any()):
        raise ValueError(
            f"low, high: got {low.tolist()}, {high.tolist()}; allowed: as many numbers in each, "
            "none of low above that of high"
        )


def _check_scale(scale: float) -> None:
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale: got {scale}; allowed: a positive number")
