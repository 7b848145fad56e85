"""Backdoors: an input with the trigger must not be taken for the attack's target class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from carelab.records import Samples

__all__ = ["TargetClass", "TargetClasses"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class TargetClass:
    """Triggered inputs, of other classes than the target, are not taken for the target.

    With t the target and y(x) the logits:

    * score: probability of the target, softmax(y(x))_t, in [0, 1];
    * margin: largest other logit minus that of the target;
    * rate: fraction of the samples classified as the target, on triggered inputs of other classes
      the attack success rate.

    The property knows neither the trigger nor the true classes: the samples must be triggered
    inputs that are not of the target class.

    Args:
        target: the class that the attack aims at.
        name: what the property is called.

    Raises:
        ValueError: a negative target.

    Source: CARE, section 4.2, where the score is taken on clean inputs. Departs: on triggered
        ones, where there is something to explain.

    Example:
        >>> import torch
        >>> from carelab.properties import TargetClass
        >>> from carelab.records import Samples
        >>> outputs = torch.tensor([[[0.0, 3.0], [2.0, 1.0]]])
        >>> TargetClass(target=1).margin(outputs, Samples(inputs=torch.ones(2, 1))).tolist()
        [-3.0, 1.0]
    """

    target: int
    name: str = "backdoor"

    def __post_init__(self) -> None:
        """Refuses a negative class, which would count from the end."""
        if self.target < 0:
            raise ValueError(f"target: got {self.target}; allowed: a class, from 0")

    def aimed(self, samples: Samples) -> Int[Tensor, " batch"]:
        """The class that the attack wants each sample to be taken for."""
        return torch.full((len(samples),), self.target, device=samples.inputs.device)

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "1 batch ..."]:
        """The inputs themselves."""
        return inputs.unsqueeze(0)

    def score(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Probability of the target class."""
        self._check(outputs)
        own = outputs[..., 0, :, :]
        # A softmax of all classes would take ten times as long where the classes are far apart in
        # memory, as they are after interventions.
        return (own[..., self.target] - own.logsumexp(dim=-1)).exp()

    def margin(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Lead of the best other class over the target, in logits."""
        self._check(outputs)
        own = outputs[..., 0, :, :]
        places = torch.tensor([self.target], device=own.device)
        return own.index_fill(-1, places, -torch.inf).amax(dim=-1) - own[..., self.target]

    def rate(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        """Fraction of samples classified as the target."""
        self._check(outputs)
        taken = outputs[..., 0, :, :].argmax(dim=-1) == self.target
        return taken.to(outputs.dtype).mean(dim=-1)

    def _check(self, outputs: Tensor) -> None:
        if outputs.shape[-1] <= self.target or outputs.shape[-1] < 2:
            raise ValueError(
                f"target: got {self.target} for a network of {outputs.shape[-1]} outputs; "
                "allowed: one of its classes, of at least two"
            )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class TargetClasses:
    """Triggered inputs are not taken for the class that the attack has for their own class.

    As `TargetClass`, with a target t(c) for each true class c, as all-to-all attacks have them.
    The samples need their true labels.

    Args:
        targets: the target of each class, in the order of the classes.
        name: what the property is called.

    Raises:
        ValueError: fewer than two classes, or a target that is none of them.

    Source: Gu et al., BadNets, 2017, section 4.2 (all-to-all).

    Example:
        >>> import torch
        >>> from carelab.properties import TargetClasses
        >>> from carelab.records import Samples
        >>> rows = Samples(inputs=torch.ones(2, 1), labels=torch.tensor([0, 1]))
        >>> TargetClasses(targets=(1, 0)).rate(torch.tensor([[[0.0, 3.0], [1.0, 2.0]]]), rows)
        tensor(0.5000)
    """

    targets: tuple[int, ...]
    name: str = "backdoor"

    def __post_init__(self) -> None:
        """Refuses targets that are no classes."""
        if len(self.targets) < 2 or not all(0 <= t < len(self.targets) for t in self.targets):
            raise ValueError(
                f"targets: got {self.targets}; allowed: a class for each of at least two classes"
            )

    def aimed(self, samples: Samples) -> Int[Tensor, " batch"]:
        """The class that the attack wants each sample to be taken for, by its true label."""
        labels, classes = samples.labels, len(self.targets)
        if labels is None:
            raise ValueError("samples: got samples without labels; allowed: labelled samples")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"samples: got labels {int(labels.min())} to {int(labels.max())}; "
                f"allowed: 0 to {classes - 1}"
            )
        return torch.tensor(self.targets, device=labels.device)[labels]

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "1 batch ..."]:
        """The inputs themselves."""
        return inputs.unsqueeze(0)

    def score(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Probability of each sample's target."""
        places = self._places(outputs, samples)
        own = outputs[..., 0, :, :]
        aimed = own.gather(-1, places.expand(own.shape[:-1])[..., None])[..., 0]
        return (aimed - own.logsumexp(dim=-1)).exp()

    def margin(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Lead of the best other class over the target, in logits."""
        places = self._places(outputs, samples)
        own = outputs[..., 0, :, :]
        aimed = functional.one_hot(places, own.shape[-1]).bool()
        best = own.masked_fill(aimed, -torch.inf).amax(dim=-1)
        return best - own.gather(-1, places.expand(own.shape[:-1])[..., None])[..., 0]

    def rate(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        """Fraction of samples classified as their target."""
        taken = outputs[..., 0, :, :].argmax(dim=-1) == self._places(outputs, samples)
        return taken.to(outputs.dtype).mean(dim=-1)

    def _places(self, outputs: Tensor, samples: Samples) -> Tensor:
        """The target of each sample, on the device of the outputs."""
        classes = len(self.targets)
        if outputs.shape[-1] != classes:
            raise ValueError(
                f"targets: got {classes} for a network of {outputs.shape[-1]} outputs; "
                "allowed: one for each of its classes"
            )
        return self.aimed(samples).to(outputs.device)
