"""An objective over a space: what searches minimise, with and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from carelab.networks import check_evaluation_mode, check_inputs, ordered_modules
from carelab.networks.layers import assemble
from carelab.records import Samples
from carelab.repair.objectives import Anchors, Objective
from carelab.repair.spaces import EditSpace

__all__ = ["SearchProblem", "search_problem"]

# Inputs that run through the prefix together.
_A_PASS = 1024


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
    cache_prefix: bool = False,
) -> SearchProblem:
    """The objective over a space, for searches with and without gradients.

    Args:
        model: the network, in evaluation mode; it is not changed.
        space: what may change.
        objective: what is asked for.
        batch_size: samples of each group that a random batch holds.
        rows: samples of each group, at most, that the cost of many vectors runs over.
        cache_prefix: run the modules before the first changed weight once for all samples, and
            keep what they give in memory: the convolutions of a network whose last layers are
            repaired need not run at every step.

    Returns:
        The problem; its loss is an unbiased estimate of the objective.

    Raises:
        ValueError: inputs of the wrong width, a size below 1, a network in training mode, or a
            prefix to be kept of a network that is not sequential.

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
    prefix, suffix = None, model
    if cache_prefix:
        prefix, suffix = _split_before(model, space.parameters(space.start))
    groups = _groups(objective, prefix)
    fixed = {name: tensor.detach() for name, tensor in suffix.state_dict().items()}

    def run(vector: Tensor, inputs: Tensor) -> Tensor:
        weights = {**fixed, **space.parameters(vector.to(inputs))}
        outputs: Tensor = functional_call(suffix, weights, (inputs,))
        return outputs

    def loss(vector: Tensor, generator: torch.Generator) -> Tensor:
        return _loss(groups, lambda inputs: run(vector, inputs), batch_size, generator)

    def cost(vectors: Tensor) -> Tensor:
        def one(vector: Tensor) -> Tensor:
            return _loss(groups, lambda inputs: run(vector, inputs), rows, None)

        with torch.no_grad():
            return vmap(one)(vectors).double().cpu()

    return SearchProblem(space=space, cost=cost, loss=loss)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Group:
    """Samples or anchors with their part of the objective."""

    samples: Samples | Anchors
    probes: Callable[[Tensor], Tensor]  # what the network is run on for them (runs, batch, ...)
    kept: Tensor | None  # what the prefix gives there for all of them
    weight: float
    term: Callable[[Any, Tensor], Tensor]  # of some of them and the outputs (runs, batch, classes)

    def take(self, rows: Tensor) -> tuple[Samples | Anchors, Tensor]:
        """Some of them, and what the network is run on there."""
        samples = self.samples.take(rows)
        return samples, self.probes(samples.inputs) if self.kept is None else self.kept[:, rows]


def _groups(objective: Objective, prefix: nn.Module | None) -> tuple[_Group, ...]:
    """The labelled samples, then the anchors, then the guarded samples."""

    def labelled(samples: Samples, outputs: Tensor) -> Tensor:
        assert samples.labels is not None, "an objective refuses samples without labels"
        return functional.cross_entropy(outputs[0], samples.labels)

    def anchored(anchors: Anchors, outputs: Tensor) -> Tensor:
        return functional.cross_entropy(outputs[0], anchors.chances)

    def guarded(samples: Samples, outputs: Tensor) -> Tensor:
        return objective.prop.score(outputs * objective.sharpness, samples).mean()

    def group(
        samples: Samples | Anchors, weight: float, term: Callable[[Any, Tensor], Tensor]
    ) -> _Group:
        probes = objective.prop.probes if term is guarded else _itself
        kept = None if prefix is None else _run_through(prefix, probes(samples.inputs))
        return _Group(samples=samples, probes=probes, kept=kept, weight=weight, term=term)

    fidelity = objective.fidelity / max(1, len(objective.anchors))
    violation = objective.violation / len(objective.guarded)
    asked: list[tuple[Samples | Anchors, float, Callable[[Any, Tensor], Tensor]]] = [
        (objective.labelled, objective.accuracy, labelled),
        *((anchors, fidelity, anchored) for anchors in objective.anchors),
        *((samples, violation, guarded) for samples in objective.guarded),
    ]
    # What weighs nothing need not be run.
    return tuple(group(samples, weight, term) for samples, weight, term in asked if weight > 0)


def _itself(inputs: Tensor) -> Tensor:
    return inputs[None]


def _run_through(prefix: nn.Module, probes: Tensor) -> Tensor:
    with torch.no_grad():
        passes = [prefix(part) for part in probes.flatten(0, 1).split(_A_PASS)]
    return torch.cat(passes).unflatten(0, probes.shape[:2])


def _split_before(model: nn.Module, changed: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Module]:
    """The modules before the first one whose weights change, and the others."""
    leaves = ordered_modules(model)
    touched = [any(parameter.startswith(f"{leaf}.") for parameter in changed) for leaf, _ in leaves]
    first = touched.index(True)
    return assemble(leaves[:first]), assemble(leaves[first:])


def _loss(
    groups: tuple[_Group, ...],
    run: Callable[[Tensor], Tensor],
    size: int,
    generator: torch.Generator | None,
) -> Tensor:
    """The objective over `size` samples of each group: random ones, or always the same."""
    taken = [
        group.take(_rows(len(group.samples), size, generator, group.samples.inputs.device))
        for group in groups
    ]
    # One pass through the network for everything: small passes would cost more than they compute.
    outputs = run(torch.cat([probes.flatten(0, 1) for _, probes in taken]))
    parts = outputs.split([probes.shape[:2].numel() for _, probes in taken])
    terms = [
        group.weight * group.term(samples, part.unflatten(0, probes.shape[:2]))
        for group, (samples, probes), part in zip(groups, taken, parts, strict=True)
    ]
    return reduce(torch.add, terms)


def _rows(count: int, size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    if generator is None:  # evenly spaced: the same rows for every vector
        kept = min(size, count)
        return torch.arange(kept, device=device) * count // kept
    return torch.randint(count, (size,), generator=generator).to(device)
