"""What a repair is asked for: accuracy, fidelity, and no violation, old or new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from carelab.networks import check_evaluation_mode, check_inputs
from carelab.properties import Property
from carelab.records import Samples
from carelab.repair.spaces import EditSpace

_Group = TypeVar("_Group", Samples, "Anchors")

__all__ = ["Anchors", "Objective", "SearchProblem", "search_problem"]


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
        if not all(0 <= weight < float("inf") for weight in weights) or not self.sharpness > 0:
            raise ValueError(
                f"accuracy, fidelity, violation, sharpness: got {weights}, {self.sharpness}; "
                "allowed: 0 or more, and a sharpness above 0"
            )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SearchProblem:
    """What every search takes: a space, a cost of many vectors, a loss with a gradient.

    Args:
        space: where to search.
        cost: costs of many vectors at once on all data, (particles, size) to (particles).
        loss: differentiable loss of one vector on a random batch that the generator draws.
    """

    space: EditSpace
    cost: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, torch.Generator], Tensor]


def search_problem(
    model: nn.Module,
    space: EditSpace,
    objective: Objective,
    *,
    batch_size: int = 384,
    rows: int = 2000,
) -> SearchProblem:
    """The objective over a space, for searches with and without gradients.

    Args:
        model: the network, in evaluation mode; it is not changed.
        space: what may change.
        objective: what is asked for.
        batch_size: samples of each group that a random batch holds.
        rows: samples of each group, at most, that the cost of many vectors runs over.

    Returns:
        The problem; its loss is an unbiased estimate of the objective.

    Raises:
        ValueError: inputs of the wrong width, a size below 1, or a network in training mode.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> goal = cl.repair.Objective(prop=fair, labelled=table.train, guarded=[table.train])
        >>> space = cl.repair.factor_space(model, cl.networks.hidden_neurons(model))
        >>> problem = cl.repair.search_problem(model, space, goal)
    """
    check_evaluation_mode(model)
    check_inputs(model, objective.labelled.inputs)
    if batch_size < 1 or rows < 1:
        raise ValueError(f"batch_size, rows: got {batch_size}, {rows}; allowed: 1 or more")
    fixed = {name: tensor.detach() for name, tensor in model.state_dict().items()}

    def run(vector: Tensor, inputs: Tensor) -> Tensor:
        weights = {**fixed, **space.parameters(vector.to(inputs))}
        outputs: Tensor = functional_call(model, weights, (inputs,))
        return outputs

    def loss(vector: Tensor, generator: torch.Generator) -> Tensor:
        return _loss(objective, lambda inputs: run(vector, inputs), batch_size, generator)

    def cost(vectors: Tensor) -> Tensor:
        with torch.no_grad():
            costs = vmap(
                lambda vector: _loss(objective, lambda inputs: run(vector, inputs), rows, None)
            )(vectors)
        return costs.double().cpu()

    return SearchProblem(space=space, cost=cost, loss=loss)


def _loss(
    objective: Objective,
    run: Callable[[Tensor], Tensor],
    size: int,
    generator: torch.Generator | None,
) -> Tensor:
    """The objective over `size` samples of each group: random ones, or always the same."""
    labelled = _some(objective.labelled, size, generator)
    assert labelled.labels is not None
    anchors = [_some(group, size, generator) for group in objective.anchors]
    guarded = [_some(group, size, generator) for group in objective.guarded]
    probes = [objective.prop.probes(samples.inputs) for samples in guarded]
    # One pass through the network for everything: small passes would cost more than they compute.
    inputs = [
        labelled.inputs,
        *(group.inputs for group in anchors),
        *(p.flatten(0, 1) for p in probes),
    ]
    outputs = run(torch.cat(inputs)).split([len(part) for part in inputs])
    total = objective.accuracy * functional.cross_entropy(outputs[0], labelled.labels)
    for group, part in zip(anchors, outputs[1:], strict=False):
        kept = functional.cross_entropy(part, group.chances)
        total = total + objective.fidelity / len(anchors) * kept
    for samples, probe, part in zip(guarded, probes, outputs[1 + len(anchors) :], strict=True):
        judged = part.unflatten(0, probe.shape[:2]) * objective.sharpness
        score = objective.prop.score(judged, samples).mean()
        total = total + objective.violation / len(guarded) * score
    return total


def _some(samples: _Group, size: int, generator: torch.Generator | None) -> _Group:
    return samples.take(_rows(len(samples), size, generator, samples.inputs.device))


def _rows(count: int, size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    if generator is None:  # evenly spaced: the same rows for every vector
        kept = min(size, count)
        return torch.arange(kept, device=device) * count // kept
    return torch.randint(count, (size,), generator=generator).to(device)
