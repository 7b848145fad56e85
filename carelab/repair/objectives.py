"""What a repair is asked for: accuracy, fidelity, and no violation, old or new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from carelab.properties import Property
from carelab.records import Samples

__all__ = ["Anchors", "Objective"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Anchors:
    """Inputs at which the network's behaviour is to stay, and that behaviour.

    Args:
        inputs: the inputs (batch, ...).
        chances: the class probabilities wanted there (batch, classes).
    """

    inputs: Float[Tensor, "batch ..."]
    chances: Float[Tensor, "batch classes"]

    def __len__(self) -> int:
        """How many anchors there are."""
        return len(self.inputs)

    def take(self, rows: Tensor) -> Anchors:
        """The anchors at the given rows."""
        return Anchors(inputs=self.inputs[rows], chances=self.chances[rows])


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Objective:
    """Loss = accuracy x CE(labels) + sum of fidelity x CE(anchors) + violation x mean score.

    CE is the cross-entropy, the mean score that of the property's graded violation over the
    guarded samples, with logits multiplied by `sharpness`: the larger, the closer the score comes
    to the 0-or-1 violation. Ordinary samples are guarded beside the known counterexamples, so that
    a repair that trades old violations for new ones gains nothing.

    Args:
        prop: the property.
        labelled: labelled samples.
        guarded: groups of samples that must not violate, each of equal weight.
        anchors: groups of inputs whose behaviour is to stay, each of equal weight.
        accuracy: weight of the labels, 0 or more.
        fidelity: weight of the anchors, 0 or more.
        violation: weight of the violations, 0 or more: the knob of the trade-off.
        sharpness: factor of the logits in the score, above 0.
    """

    prop: Property
    labelled: Samples
    guarded: Sequence[Samples]
    anchors: Sequence[Anchors] = ()
    accuracy: float = 1.0
    fidelity: float = 1.0
    violation: float = 1.0
    sharpness: float = 2.0

    def __post_init__(self) -> None:
        """Refuses missing samples and labels, and weights out of range."""
        if self.labelled.labels is None or len(self.labelled) == 0:
            raise ValueError("labelled: got no labelled sample; allowed: at least one")
        if not self.guarded or not all(len(samples) for samples in self.guarded):
            raise ValueError("guarded: got an empty group or none; allowed: at least one sample")
        weights = (self.accuracy, self.fidelity, self.violation)
        weighed = any(weights) and all(0 <= weight < float("inf") for weight in weights)
        if not weighed or not self.sharpness > 0:
            raise ValueError(
                f"accuracy, fidelity, violation, sharpness: got {weights}, {self.sharpness}; "
                "allowed: 0 or more, not all 0, and a sharpness above 0"
            )
