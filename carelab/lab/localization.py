"""The localisation experiment: every localiser on one network whose guilty neurons are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from sklearn.metrics import average_precision_score
from torch import Tensor

from carelab.causal.choice import Choice, choose_units
from carelab.causal.kill_curves import passing_means, removed_performance
from carelab.causal.localizers import LOCALIZERS, Localizer
from carelab.data import PlantedFault
from carelab.networks import fingerprint, predict
from carelab.properties import Property, drop_rows, planted_property, violates
from carelab.records import (
    Evidence,
    Neuron,
    Performance,
    Samples,
    Unit,
    UnitEffects,
)

__all__ = [
    "ChoiceRun",
    "LocalizationRun",
    "LocalizerScore",
    "average_precision",
    "choice_run",
    "localization_run",
    "planted_evidence",
    "worst_order",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalizerScore:
    """How well one localiser found the guilty neurons of one network.

    Carriers, clean neurons from which the planted path reads its cause, are neither guilty nor
    innocent; they are left out of the ranking everywhere but in the second measure.

    Args:
        average_precision: area under precision against recall of the ranking, in [0, 1].
        with_carriers: the same with carriers in the ranking, as innocents.
        precision_at_k: of the first k neurons, those that are guilty; k is their true number.
        decoys_above: of all pairs of a decoy and a guilty neuron, those ranked the wrong way.
        decoy_above: 1 where any decoy is ranked above any guilty neuron, else 0.
        violation_after: of the test inputs that show the fault, those that still violate when
            the first k neurons are held at their mean over passing samples.
        accuracy_lost: accuracy on the test rows that this removal costs; negative is a gain.
        seconds: wall time of the localiser.
    """

    average_precision: float
    with_carriers: float
    precision_at_k: float
    decoys_above: float
    decoy_above: float
    violation_after: float
    accuracy_lost: float
    seconds: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LocalizationRun:
    """All localisers on one network with a planted fault.

    Args:
        kind: kind of the fault.
        strength: its strength.
        task: what the clean network was trained for.
        seed: the seed it was made from.
        network: sha256 of the network's weights (`networks.fingerprint`).
        neurons: how many neurons were ranked.
        guilty: how many of them are guilty; removals take so many.
        samples: how many violating samples the localisers saw.
        before: performance on the test samples of the network as it is.
        guilty_removed: the same with the truly guilty neurons removed: what the best order gives.
        scores: how each localiser did.
    """

    kind: str
    strength: str
    task: str
    seed: int
    network: str
    neurons: int
    guilty: int
    samples: int
    before: Performance
    guilty_removed: Performance
    scores: Mapping[str, LocalizerScore]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ChoiceRun:
    """The automatic choice of layer and number of units on one network with a planted fault.

    Args:
        kind: kind of the fault.
        strength: its strength.
        choice: what was chosen, and why, from training and selection data.
        before: performance on the test samples of the network as it is.
        after: the same with the chosen units held at their mean over passing samples.
        guilty_share: of the chosen units, those that are guilty; 0 where none was chosen.
    """

    kind: str
    strength: str
    choice: Choice
    before: Performance
    after: Performance
    guilty_share: float


def planted_evidence(fault: PlantedFault, prop: Property, *, most: int = 300) -> Evidence:
    """What a localiser may look at in the experiment: training inputs only, without the truth.

    Passing samples are training rows that the network classifies right and that do not show the
    fault.

    Args:
        fault: the network and its samples.
        prop: the fault's property.
        most: at most so many violating and so many passing samples.

    Raises:
        ValueError: a network without any violating or any passing sample.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab.localization import planted_evidence
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = cl.data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> fault = cl.data.plant(ground, "strong", generator=g)
        >>> evidence = planted_evidence(fault, cl.properties.planted_property(fault))
        >>> len(evidence.violating) == len(evidence.references)
        True
    """
    rows = fault.train
    behaves = predict(fault.model, rows.inputs).eq(_labels(rows))
    if len(prop.probes(rows.inputs[:1])) > 1:
        behaves &= ~violates(fault.model, rows, prop)
    passing = drop_rows(rows.take(behaves), fault.violating)
    return Evidence(
        violating=fault.violating.take(slice(0, most)),
        references=fault.references.take(slice(0, most)),
        passing=passing.take(slice(0, most)),
    )


def worst_order(
    effects: UnitEffects, guilty: Sequence[Unit], *, without: Sequence[Unit] = ()
) -> tuple[Unit, ...]:
    """The units from most to least guilty, a guilty one last among those ranked alike.

    Ties thus count against a localiser: one that says nothing gets the worst of all orders.

    Args:
        effects: the ranking.
        guilty: the truly guilty units.
        without: units to leave out.

    Example:
        >>> import torch
        >>> from carelab import records
        >>> from carelab.lab.localization import worst_order
        >>> units, one = (records.Neuron("relu1", 0), records.Neuron("relu1", 1)), torch.ones(2)
        >>> flat = records.UnitEffects(
        ...     measure="none", units=units, effect=one, covariance=torch.eye(2), samples=9
        ... )
        >>> [str(unit) for unit in worst_order(flat, units[:1])]
        ['relu1[1]', 'relu1[0]']
    """
    truth, effect = set(guilty), effects.effect.tolist()
    places = sorted(
        range(len(effect)), key=lambda place: (-effect[place], effects.units[place] in truth)
    )
    order = (effects.units[place] for place in places)
    return tuple(unit for unit in order if unit not in without)


def average_precision(order: Sequence[Unit], guilty: Sequence[Unit]) -> float:
    """Mean, over the guilty units, of the precision at the place where each is found.

    Args:
        order: the units, most guilty first.
        guilty: the truly guilty units, all among them.

    Raises:
        ValueError: no guilty unit, or one that is not ranked.

    Source: ``sklearn.metrics.average_precision_score`` on an order without ties.

    Example:
        >>> from carelab.lab.localization import average_precision
        >>> from carelab.records import Neuron
        >>> units = [Neuron("relu1", index) for index in range(4)]
        >>> average_precision(units, [units[0], units[3]])
        0.75
    """
    missing = [str(unit) for unit in guilty if unit not in order]
    if missing or not guilty:
        raise ValueError(
            f"guilty: got {', '.join(missing) or 'none'}; allowed: at least one unit, all ranked"
        )
    truth = [unit in set(guilty) for unit in order]
    return float(average_precision_score(truth, np.arange(len(order), 0, -1)))


def localization_run(
    fault: PlantedFault,
    *,
    localizers: Mapping[str, Localizer] = LOCALIZERS,
    most: int = 300,
    generator: torch.Generator,
) -> LocalizationRun:
    """Every localiser on one network, scored against the truth.

    Localisers see training inputs only; what the removal of the first k neurons does is measured
    on test inputs.

    Args:
        fault: the network and what is known of it.
        localizers: the localisers by name.
        most: violating and passing samples that they see, at most each.
        generator: for localisers that draw.

    Raises:
        ValueError: no localiser.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab.localization import localization_run
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = cl.data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> fault = cl.data.plant(ground, "strong", generator=g)
        >>> run = localization_run(fault, most=50, generator=g)
        >>> run.scores["selective_patching"].average_precision > 0.5
        True
    """
    if not localizers:
        raise ValueError("localizers: got none; allowed: at least one")
    prop = planted_property(fault)
    evidence = planted_evidence(fault, prop, most=most)

    def removed(units: Sequence[Unit]) -> Performance:
        held = passing_means(fault.model, evidence, units)
        return removed_performance(fault.model, held, prop, fault.test_violating, fault.test)

    before = removed_performance(fault.model, {}, prop, fault.test_violating, fault.test)
    scores, neurons = {}, 0
    for name, localizer in localizers.items():
        started = time.perf_counter()
        effects = localizer(fault.model, evidence, prop, generator=generator)
        seconds = time.perf_counter() - started
        neurons = len(effects.units)
        scores[name] = _score(effects, fault, removed, before, seconds)
    return LocalizationRun(
        kind=fault.kind,
        strength=fault.strength,
        task=fault.task,
        seed=fault.seed,
        network=fingerprint(fault.model),
        neurons=neurons,
        guilty=len(fault.guilty),
        samples=len(evidence.violating),
        before=before,
        guilty_removed=removed(fault.guilty),
        scores=scores,
    )


def choice_run(
    fault: PlantedFault,
    *,
    localizers: Mapping[str, Localizer] | None = None,
    most: int = 300,
    generator: torch.Generator,
) -> ChoiceRun:
    """The automatic choice on one network, measured on test inputs.

    Args:
        fault: the network and what is known of it.
        localizers: the localisers to choose among, by name; by default that of `choose_units`.
        most: violating and passing samples that they see, at most each.
        generator: for localisers that draw.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab.localization import choice_run
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = cl.data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> fault = cl.data.plant(ground, "strong", generator=g)
        >>> run = choice_run(fault, generator=g)
        >>> run.after.violation_rate < run.before.violation_rate
        True
    """
    prop = planted_property(fault)
    evidence = planted_evidence(fault, prop, most=most)
    choice = choose_units(
        fault.model,
        evidence,
        prop,
        fault.selection_violating,
        fault.selection,
        localizers=localizers,
        generator=generator,
    )
    held = passing_means(fault.model, evidence, choice.units)
    measured = (prop, fault.test_violating, fault.test)
    return ChoiceRun(
        kind=fault.kind,
        strength=fault.strength,
        choice=choice,
        before=removed_performance(fault.model, {}, *measured),
        after=removed_performance(fault.model, held, *measured),
        guilty_share=len(set(choice.units) & set(fault.guilty)) / max(1, len(choice.units)),
    )


def _labels(rows: Samples) -> Int[Tensor, " batch"]:
    if rows.labels is None:
        raise ValueError("fault: got training rows without labels; allowed: labelled rows")
    return rows.labels


def _score(
    effects: UnitEffects,
    fault: PlantedFault,
    removed: Callable[[Sequence[Unit]], Performance],
    before: Performance,
    seconds: float,
) -> LocalizerScore:
    order = worst_order(effects, fault.guilty, without=fault.carriers)
    first = order[: len(fault.guilty)]
    wrong = _wrong_pairs(order, fault.decoys, fault.guilty)
    after = removed(first)
    return LocalizerScore(
        average_precision=average_precision(order, fault.guilty),
        with_carriers=average_precision(worst_order(effects, fault.guilty), fault.guilty),
        precision_at_k=len(set(first) & set(fault.guilty)) / len(first),
        decoys_above=float(wrong.double().mean()),
        decoy_above=float(wrong.any()),
        violation_after=after.violation_rate,
        accuracy_lost=before.accuracy - after.accuracy,
        seconds=seconds,
    )


def _wrong_pairs(
    order: Sequence[Unit], decoys: Sequence[Neuron], guilty: Sequence[Neuron]
) -> Bool[Tensor, "decoys guilty"]:
    """Whether each decoy is ranked above each guilty neuron."""
    place = {unit: at for at, unit in enumerate(order)}
    return torch.tensor([[place[one] < place[other] for other in guilty] for one in decoys])
