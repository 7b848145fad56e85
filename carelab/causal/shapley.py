"""Patching of groups of units: each unit's fair share of what the fault's cause does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.causal.interventions import check_unit
from carelab.causal.uncertainty import mean_contrasts
from carelab.networks import (
    check_evaluation_mode,
    check_inputs,
    hidden_neurons,
    ordered_modules,
    split,
)
from carelab.properties import Property
from carelab.records import Evidence, Samples, Unit, UnitEffects

__all__ = ["probe_pairs", "shapley_effects"]


def probe_pairs(
    evidence: Evidence, prop: Property
) -> tuple[Float[Tensor, "probes batch ..."], Float[Tensor, "probes batch ..."]]:
    """The probes of the violating samples, and the same probes without the fault's cause.

    A property of several probes compares them with each other: what makes the first differ from
    the others is the cause, so that the first stands in for all of them. A property of one probe
    needs the references.

    Args:
        evidence: violating samples and their references.
        prop: the property that they violate.

    Returns:
        Probes with and without the cause, both (probes, batch, ...).

    Raises:
        ValueError: references of another shape than the violating inputs.

    Example:
        >>> import torch
        >>> from carelab import properties, records
        >>> from carelab.causal.shapley import probe_pairs
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> own, without = probe_pairs(evidence, fair)
    """
    own = prop.probes(evidence.violating.inputs)
    if len(own) > 1:
        return own, own[:1].expand_as(own)
    without = prop.probes(evidence.references.inputs)
    if without.shape != own.shape:
        raise ValueError(
            f"references: got inputs of shape {tuple(without.shape[2:])}; allowed: "
            f"{tuple(own.shape[2:])}, as the violating ones have"
        )
    return own, without


def shapley_effects(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    orders: int = 8,
    batch_size: int = 32_768,
    progress: bool = False,
    generator: torch.Generator,
) -> UnitEffects:
    """Mean rise of the score when a unit joins those of its layer that already show the cause.

    v(S) is the property's score when the units S of a layer have the values that the violating
    input gives them, and the others those without the fault's cause (`probe_pairs`). The effect
    is the Shapley value of v: the mean of v(S with u) - v(S) over the orders in which units may
    join. Units that stand in for each other share what they do, where patching one alone shows
    nothing; over each layer that everything passes through the effects add up to the total
    effect. Units of the layer that are not asked for join as one.

    Every sample draws its own orders, each followed by its reverse, so that the standard errors
    hold what comes from the drawing too.

    Args:
        model: a sequential network in evaluation mode.
        evidence: violating samples and their references.
        prop: the property whose score is the outcome.
        units: the units; by default all hidden neurons, post-activation.
        orders: orders drawn for each sample, at least 2 and even.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show a bar.
        generator: draws the orders.

    Raises:
        ValueError: an unknown unit, an odd or too small number of orders, one sample alone,
            inputs of the wrong width, a network in training mode, or one that is not sequential.

    Source: Shapley (1953); Castro, Gomez, Tejada, Computers & Operations Research 36 (2009), for
        estimating it from orders; activation patching: Vig et al., NeurIPS 2020. Departs: values
        of the reference run in place of Neuron Shapley's ablation (Ghorbani, Zou, NeurIPS 2020).

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> g, rows = torch.Generator().manual_seed(0), records.Samples(inputs=torch.eye(3))
        >>> model = networks.mlp(3, (4,), 2, generator=g)
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> effects = shapley_effects(model, evidence, fair, generator=g)
    """
    chosen = tuple(hidden_neurons(model) if units is None else units)
    _check(model, evidence, chosen, orders, batch_size)
    own, without = probe_pairs(evidence, prop)
    # Enough rows a block to fill a pass with one step; steps are cut to fit as well.
    rows = torch.arange(own.shape[1]).split(max(1, batch_size // len(own)))
    blocks = tqdm(rows, desc="patching", disable=not progress)
    return mean_contrasts(
        "shapley patching",
        chosen,
        (
            _block(
                model,
                evidence.violating.take(block),
                (own[:, block], without[:, block]),
                prop,
                chosen,
                orders,
                batch_size,
                generator,
            )
            for block in blocks
        ),
    )


def _block(
    model: nn.Module,
    samples: Samples,
    probes: tuple[Tensor, Tensor],
    prop: Property,
    units: Sequence[Unit],
    orders: int,
    batch_size: int,
    generator: torch.Generator,
) -> Float[Tensor, "units batch"]:
    """The effect of each unit on each sample."""
    effects = torch.zeros(len(units), len(samples), dtype=torch.float64)
    with torch.inference_mode():
        layers = list(dict.fromkeys(unit.layer for unit in units))
        recorded = [_recorded(model, side, layers) for side in probes]
        for layer in layers:
            sides = (recorded[0][layer], recorded[1][layer])
            rest = split(model, layer)[1]
            for members in _kinds(units, layer):
                picked = [units[row] for row in members]
                for unit in picked:
                    check_unit(unit, sides[0].shape[2:])
                owner, moving = _players(picked, sides)
                if not moving:
                    continue
                total = torch.zeros(len(moving) + 1, len(samples), dtype=torch.float64)
                for order in _orders(len(moving) + 1, len(samples), orders, generator):
                    steps = _joining(rest, sides, owner, order, prop, samples, batch_size)
                    total.scatter_add_(0, order, steps.diff(dim=0))
                effects[[members[row] for row in moving]] = total[:-1] / orders
    return effects.clone()


def _joining(
    rest: nn.Module,
    sides: tuple[Tensor, Tensor],
    owner: Int[Tensor, "*shape"],
    order: Int[Tensor, "players batch"],
    prop: Property,
    samples: Samples,
    batch_size: int,
) -> Float[Tensor, "players_1 batch"]:
    """v(S) of every sample while its players join one after another, from nobody to all."""
    own, without = sides
    # When each number of the layer turns: the place of its player in the order of each sample.
    turn = order.argsort(dim=0).to(own.device)[owner.flatten()]
    turn = turn.T.reshape(1, order.shape[1], *owner.shape)
    scores = []
    every = max(1, batch_size // (own.shape[0] * own.shape[1]))
    for steps in torch.arange(len(order) + 1, device=own.device).split(every):
        joined = turn < steps.reshape(-1, *[1] * turn.ndim)
        mixed = torch.where(joined, own, without)
        outputs = rest(mixed.flatten(0, 2)).unflatten(0, mixed.shape[:3])
        scores.append(prop.score(outputs, samples).to("cpu", torch.float64))
    return torch.cat(scores)


def _orders(
    players: int, batch: int, count: int, generator: torch.Generator
) -> Iterator[Int[Tensor, "players batch"]]:
    """Orders of joining, one a sample, each followed by its reverse."""
    for _ in range(count // 2):
        order = torch.rand(players, batch, generator=generator).argsort(dim=0)
        yield order
        yield order.flip(0)


def _players(
    units: Sequence[Unit], sides: tuple[Tensor, Tensor]
) -> tuple[Int[Tensor, "*shape"], list[int]]:
    """The player that each number of the layer belongs to, and the units that are players.

    A unit whose values are the same on both sides for all samples changes nothing, and is none;
    with the numbers that no unit holds it belongs to the last player.
    """
    changes: Bool[Tensor, " *shape"] = (sides[0] != sides[1]).flatten(0, 1).any(dim=0)
    moving = [row for row, unit in enumerate(units) if bool(changes[unit.place].any())]
    owner = torch.full(changes.shape, len(moving), dtype=torch.long)
    for player, row in enumerate(moving):
        owner[units[row].place] = player
    return owner, moving


def _kinds(units: Sequence[Unit], layer: str) -> list[list[int]]:
    """Positions of the layer's units, those of one kind together: they do not overlap."""
    kinds: dict[int, list[int]] = {}
    for row, unit in enumerate(units):
        if unit.layer == layer:
            kinds.setdefault(len(unit.place), []).append(row)
    return list(kinds.values())


def _recorded(
    model: nn.Module, probes: Tensor, layers: Sequence[str]
) -> dict[str, Float[Tensor, "probes batch ..."]]:
    recorded, hidden = {}, probes.flatten(0, 1)
    for name, module in ordered_modules(model):
        hidden = module(hidden)
        if name in layers:
            # A clone, since an in-place activation that follows would overwrite the output.
            recorded[name] = hidden.clone().unflatten(0, probes.shape[:2])
    return recorded


def _check(
    model: nn.Module, evidence: Evidence, units: Sequence[Unit], orders: int, batch_size: int
) -> None:
    check_evaluation_mode(model)
    check_inputs(model, evidence.violating.inputs)
    if not units or len(set(units)) < len(units):
        raise ValueError(f"units: got {len(units)}; allowed: at least one, and each only once")
    if orders < 2 or orders % 2 or batch_size < 1:
        raise ValueError(
            f"orders, batch_size: got {orders}, {batch_size}; allowed: an even number from 2, "
            "and at least 1 row"
        )
    names = [name for name, _ in ordered_modules(model)]
    for unit in units:
        if unit.layer not in names:
            raise ValueError(f"layer: got {unit.layer!r}; allowed: {', '.join(names)}")
