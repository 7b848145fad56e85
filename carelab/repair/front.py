"""A repair as a choice: several weights of the property, and the points nothing else beats."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from torch import Tensor, nn

from carelab.networks import accuracy, fingerprint
from carelab.properties import violation_rate
from carelab.records import Performance, Repair
from carelab.repair.edits import apply_repair, edits_between
from carelab.repair.objectives import Objective
from carelab.repair.problems import search_problem
from carelab.repair.searches import Search
from carelab.repair.spaces import EditSpace

__all__ = ["Front", "pareto_optimal", "repair_front", "search_repair"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Front:
    """Repairs of one network that trade one cost for another.

    Args:
        names: what the costs are, such as "accuracy_drop".
        weights: the knob behind each repair, such as the weight of the violations.
        repairs: the repairs.
        costs: what each costs, on samples that no search saw (repairs, costs); less is better.
        optimal: whether no other repair is as good in every cost and better in one (repairs).
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    repairs: tuple[Repair, ...]
    costs: Float[Tensor, "repairs costs"]
    optimal: Bool[Tensor, " repairs"]


def pareto_optimal(costs: Float[Tensor, "points costs"]) -> Bool[Tensor, " points"]:
    """Which points no other point beats: as good in every cost, and better in one.

    Args:
        costs: one row a point; less is better.

    Raises:
        ValueError: no point, or a cost that is not finite.

    Example:
        >>> import torch
        >>> from carelab.repair import pareto_optimal
        >>> pareto_optimal(torch.tensor([[0.0, 2.0], [1.0, 1.0], [1.0, 3.0]])).tolist()
        [True, True, False]
    """
    if len(costs) == 0 or not torch.isfinite(costs).all():
        raise ValueError(f"costs: got {len(costs)} points; allowed: at least one, all finite")
    first = NonDominatedSorting().do(costs.double().numpy(), only_non_dominated_front=True)
    optimal = torch.zeros(len(costs), dtype=torch.bool)
    optimal[torch.from_numpy(first)] = True
    return optimal


def repair_front(
    model: nn.Module,
    search: Callable[[float], Repair],
    judge: Callable[[nn.Module], Sequence[float]],
    *,
    weights: Sequence[float],
    names: Sequence[str],
) -> Front:
    """The repairs found with several settings of a knob, and which of them are worth it.

    Args:
        model: the network that is repaired.
        search: makes the repair for one weight: of the violations, or CARE's alpha.
        judge: what a repaired network costs, less is better; judged on selection rows, never on
            test rows.
        weights: the weights to try, at least one.
        names: what the costs are.

    Raises:
        ValueError: no weight, or another number of costs than of names.

    Example:
        >>> import torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> m, fair = cl.networks.mlp(9, (8,), 2, generator=g), cl.properties.individual_fairness
        >>> search = lambda weight: cl.repair.care(m, table.train, table.train, fair(table, "sex"),
        ...     [one], alpha=1 - weight, generator=g)
        >>> judge = lambda model: [1 - cl.networks.accuracy(model, table.selection)]
        >>> front = cl.repair.repair_front(m, search, judge, weights=[0.1, 0.7], names=["error"])
    """
    if not weights:
        raise ValueError("weights: got none; allowed: at least one")
    repairs = tuple(search(weight) for weight in weights)
    rows = [list(judge(apply_repair(model, repair))) for repair in repairs]
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"names: got {len(names)} for {len(rows[0])} costs; allowed: one a cost")
    costs = torch.tensor(rows, dtype=torch.float64)
    return Front(
        names=tuple(names),
        weights=tuple(weights),
        repairs=repairs,
        costs=costs,
        optimal=pareto_optimal(costs),
    )


def search_repair(
    model: nn.Module,
    space: EditSpace,
    objective: Objective,
    search: Search,
    *,
    original: nn.Module | None = None,
    method: str,
    batch_size: int = 384,
    cache_prefix: bool = False,
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    """The repair that a search finds in a space, as edits of the weights.

    Args:
        model: the network that the space was made for, in evaluation mode; it is not changed.
        space: what may change.
        objective: what is asked for; its labelled and guarded samples must be no test samples.
        search: `gradient_search`, `cma_search`, `swarm_search`, or one with knobs of its own.
        original: the network that the repair is to start from, where `model` is a changed copy
            of it (revived neurons, a feature held constant); by default `model`.
        method: the name that the record carries.
        batch_size: samples of each group in a random batch.
        cache_prefix: as for `search_problem`: run what comes before the first change once.
        progress: show a bar.
        generator: drives the search.

    Returns:
        The repair; its rates are those over the labelled and all guarded samples. Its status is
        "unchanged" where no weight changed.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> m, fair = cl.networks.mlp(9, (8,), 2, generator=g), cl.properties.individual_fairness
        >>> t, space = table.train, cl.repair.weight_space(m, cl.networks.hidden_neurons(m)[:2])
        >>> goal = cl.repair.Objective(prop=fair(table, "sex"), labelled=t, guarded=[t])
        >>> fixed = cl.repair.search_repair(
        ...     m, space, goal, cl.repair.cma_search, method="cma", generator=g)
    """
    started, seed = time.perf_counter(), generator.initial_seed()
    problem = search_problem(
        model, space, objective, batch_size=batch_size, cache_prefix=cache_prefix
    )
    found = search(problem, progress=progress, generator=generator)
    repaired = deepcopy(model)
    with torch.no_grad():
        for name, weight in space.parameters(found.vector).items():
            repaired.get_parameter(name).copy_(weight)
    start = model if original is None else original
    edits = edits_between(start, repaired)
    return Repair(
        method=method,
        property_name=objective.prop.name,
        neurons=space.neurons,
        factors=torch.zeros(0),
        before=_performance(start, objective),
        after=_performance(repaired, objective),
        history=found.history,
        seconds=time.perf_counter() - started,
        seed=seed,
        network=fingerprint(start),
        repaired=fingerprint(repaired),
        edits=edits,
        status="improved" if edits else "unchanged",
    )


def _performance(model: nn.Module, objective: Objective) -> Performance:
    """Accuracy on the labelled samples, violations over all guarded ones."""
    counts = [len(samples) for samples in objective.guarded]
    rates = [violation_rate(model, samples, objective.prop) for samples in objective.guarded]
    violating = sum(rate * count for rate, count in zip(rates, counts, strict=True))
    return Performance(
        accuracy=accuracy(model, objective.labelled), violation_rate=violating / sum(counts)
    )
