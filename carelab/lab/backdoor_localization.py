"""Which units of a backdoored network are guilty: the layer, and how many of its units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from carelab.causal import patching_effects, rank_units
from carelab.lab.backdoor_defence import Defence, Knowledge
from carelab.networks import (
    feature_positions,
    hidden_layers,
    hidden_neurons,
    logits,
    ordered_modules,
)
from carelab.properties import Property
from carelab.records import Neuron, Ranking, Repair, Samples, UnitEffects
from carelab.repair import apply_repair, prunable_layers

__all__ = [
    "PAIRS",
    "Localized",
    "Repaired",
    "editable_units",
    "localize",
    "pairs",
    "repair_best_layer",
]

PAIRS = 200  # triggered images that effects are measured on
# What is tried in a layer, the gentlest first: share of its units, and largest step of the search.
_TRIALS = ((0.05, 0.003), (0.05, 0.01), (0.1, 0.01))
# The last trial: share of all units, since layers may be small, and step. Saturated units, of
# sigmoids above all, move with large steps only.
_LAST = (0.1, 0.03)
# Costs on selection images, chance that moved or is left: one with which nothing more is tried, and
# one with which no earlier layer is.
_ENOUGH, _GOOD = 0.01, 0.1


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Localized:
    """Where the backdoor is.

    Args:
        ranking: all editable units by how far patching them lowers the chance of the attack's
            class.
        positions: the same effect of each number of the last feature map; None without a map.
    """

    ranking: Ranking
    positions: UnitEffects | None


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Repaired:
    """The repair of the best layer.

    Args:
        repair: the repair; its neurons are the guilty units.
        learning_rate: largest step of its search.
        candidates: cost on selection images of each repair that was tried, by layer, share of its
            units and step: chance that moved on clean images, plus chance that the attack's class
            kept.
    """

    repair: Repair
    learning_rate: float
    candidates: Mapping[str, float]


def localize(model: nn.Module, defence: Defence, knowledge: Knowledge) -> Localized:
    """All units, and all places of the last feature map, by what patching them does.

    Args:
        model: the network.
        defence: the defender's images.
        knowledge: what the defender found out about the attack.

    Example:
        >>> import torch
        >>> from carelab.lab import backdoor_defence, backdoor_localization
        >>> from carelab.lab.backdoor_cases import backdoor_case
        >>> case, g = backdoor_case("digits", epochs=1), torch.Generator().manual_seed(0)
        >>> defence = backdoor_defence.prepare_defence(case, "a", generator=g)
        >>> known = backdoor_defence.known_attack(case.model, defence, 10, generator=g)
        >>> len(backdoor_localization.localize(case.model, defence, known).ranking.units)
        112
    """
    moved, victims = (
        samples.take(slice(0, PAIRS)) for samples in pairs(defence, knowledge, defence.clean)
    )
    patched = partial(patching_effects, model, moved, knowledge.prop, references=victims)
    places = _last_map(model, moved)
    return Localized(
        ranking=rank_units(patched(units=editable_units(model))),
        positions=patched(units=places) if places else None,
    )


def repair_best_layer(
    model: nn.Module,
    ranking: Ranking,
    defence: Defence,
    knowledge: Knowledge,
    unlearn: Callable[..., Repair],
) -> Repaired:
    """The guiltiest units of a layer repaired, from the last layer back until it works.

    What is repaired in the last layer leaves most of the network as it is; an earlier one is tried
    where selection images show that this is not enough. In each layer few units and small steps
    come first, then more as long as that helps, two trials on at once where much is left; the best
    of all that was tried is kept.

    Args:
        model: the network.
        ranking: its editable units, guiltiest first.
        defence: the defender's images.
        knowledge: what the defender found out about the attack.
        unlearn: the repair of the units it is given, with a `learning_rate`.

    Example:
        >>> from carelab.lab.backdoor_localization import repair_best_layer
        >>> repair_best_layer.__name__
        'repair_best_layer'
    """
    # A reconstructed trigger is the least that works; to forget the attacker's, which is stronger,
    # takes more than the smallest steps.
    trials = _TRIALS[1:] if knowledge.reconstructions else _TRIALS
    tried: list[tuple[float, float, Repair]] = []
    candidates: dict[str, float] = {}
    for layer in reversed(hidden_layers(model)):
        own = [one for one in ranking.units if isinstance(one, Neuron) and one.layer == layer]
        left = [(f"{share:.0%}", share * len(own), rate) for share, rate in trials]
        left.append((f"{_LAST[0]:.0%} of all", int(_LAST[0] * len(ranking.units)), _LAST[1]))
        least = math.inf
        while own and left:
            name, count, rate = left.pop(0)
            repair = unlearn(own[: max(1, round(count))], learning_rate=rate)
            cost = _selection_cost(model, apply_repair(model, repair), defence, knowledge)
            tried.append((cost, rate, repair))
            candidates[f"{layer}, {name}, step {rate:g}"] = cost
            if cost <= _ENOUGH or cost >= least:
                break
            least = cost
            if cost > _GOOD:
                left = left[1:] or left
        if tried and min(cost for cost, _, _ in tried) <= _GOOD:
            break
    _, rate, repair = min(tried, key=lambda one: one[0])
    return Repaired(repair=repair, learning_rate=rate, candidates=candidates)


def pairs(defence: Defence, knowledge: Knowledge, clean: Samples) -> tuple[Samples, Samples]:
    """Triggered images and the same without, or as close as the defender can come to that.

    Args:
        defence: the defender's images.
        knowledge: what the defender found out about the attack.
        clean: the clean ones to start from.

    Example:
        >>> import torch
        >>> from carelab.lab import backdoor_defence, backdoor_localization
        >>> from carelab.lab.backdoor_cases import backdoor_case
        >>> case, g = backdoor_case("digits", epochs=1), torch.Generator().manual_seed(0)
        >>> defence = backdoor_defence.prepare_defence(case, "a", generator=g)
        >>> known = backdoor_defence.known_attack(case.model, defence, 10, generator=g)
        >>> moved, victims = backdoor_localization.pairs(defence, known, defence.selection)
        >>> len(moved) == len(victims)
        True
    """
    victims = knowledge.victims(clean)
    if knowledge.triggers:
        moved = replace(victims, inputs=knowledge.triggers[0](victims.inputs))
        return moved, victims
    assert defence.known is not None
    count = min(len(defence.known), len(victims))
    return defence.known.take(slice(0, count)), victims.take(slice(0, count))


def editable_units(model: nn.Module) -> tuple[Neuron, ...]:
    """Hidden units with weights of their own: one weight layer writes them, one reads them.

    Args:
        model: a sequential network.

    Example:
        >>> import torch
        >>> from carelab.lab.backdoor_localization import editable_units
        >>> from carelab.networks import paper_network
        >>> len(editable_units(paper_network("digits", generator=torch.Generator())))
        112
    """
    return hidden_neurons(model, layers=prunable_layers(model))


def _selection_cost(
    model: nn.Module, repaired: nn.Module, defence: Defence, knowledge: Knowledge
) -> float:
    """Chance that moves on clean selection images, plus what the attack's class keeps of it.

    Of chances, since a few hundred images that the network was trained on hardly change class.
    """
    clean = defence.selection.inputs
    before, after = (logits(one, clean).softmax(dim=1) for one in (model, repaired))
    left = [0.0]
    if knowledge.triggers:
        moved, _ = pairs(defence, knowledge, defence.selection)
        left.append(_mean_score(repaired, moved, knowledge.prop))
    if defence.known_selection is not None and len(defence.known_selection):
        left.append(_mean_score(repaired, defence.known_selection, knowledge.prop))
    return float((after - before).abs().sum(dim=1).mean() / 2) + max(left)


def _mean_score(model: nn.Module, samples: Samples, prop: Property) -> float:
    return float(prop.score(logits(model, samples.inputs)[None], samples).mean())


def _last_map(model: nn.Module, samples: Samples) -> tuple[Neuron, ...]:
    """Every number of the feature map that is flattened, or none where images are."""
    names = [name for name, _ in ordered_modules(model)]
    kinds = [type(module) for _, module in ordered_modules(model)]
    at = kinds.index(nn.Flatten) if nn.Flatten in kinds else 0
    return feature_positions(model, names[at - 1], samples.inputs.shape[1:]) if at else ()
