"""What a fairness repair achieved, on everything that matters, with samples kept apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from carelab.data import sample_box
from carelab.networks import accuracy, predict
from carelab.properties import (
    IndividualFairness,
    demographic_parity,
    drop_rows,
    equalized_odds,
    guided_violations,
    observed_violations,
    random_violations,
    violation_rate,
)
from carelab.records import Dataset, Feature, Samples

__all__ = ["FairnessMeasures", "FairnessTrial", "fairness_trial", "measure_fairness"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class FairnessTrial:
    """The samples of one fairness experiment: what the repair sees, and what only measures.

    Repair rows and the rows that given instances stem from are training rows; test rows and the
    rows that fresh instances stem from are test rows. (Where a table repeats itself, equal rows
    may stand in both.)

    Args:
        repair: labelled rows that the repair may see.
        given: discriminatory instances that the repair may see.
        fresh: discriminatory instances found from the test rows; none is among the given.
        rows: labelled test rows.
        box: inputs drawn uniformly from the feature box.
    """

    repair: Samples
    given: Samples
    fresh: Samples
    rows: Samples
    box: Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class FairnessMeasures:
    """How fair and how good a network is; every entry is a fraction in [0, 1].

    Args:
        accuracy: of the test rows, those classified right.
        unfair_rate_given: of the given discriminatory instances, those whose label still flips.
        unfair_rate_fresh: the same of discriminatory instances that no repair saw.
        unfair_rate_rows: of the test rows, those whose label flips.
        unfair_rate_box: of inputs drawn uniformly from the feature box, those whose label flips.
        demographic_parity_gap: fairlearn's difference between the groups, on the test rows.
        equalized_odds_gap: the same for equalised odds.
        predictions_changed: of the test rows, those labelled otherwise than by the original.
    """

    accuracy: float
    unfair_rate_given: float
    unfair_rate_fresh: float
    unfair_rate_rows: float
    unfair_rate_box: float
    demographic_parity_gap: float
    equalized_odds_gap: float
    predictions_changed: float


def fairness_trial(
    model: nn.Module,
    dataset: Dataset,
    prop: IndividualFairness,
    *,
    instances: int = 1000,
    box: int = 20_000,
    repair_rows: int = 5000,
    progress: bool = False,
    generator: torch.Generator,
) -> FairnessTrial:
    """Draws the samples of one fairness experiment.

    A third each of the given instances are training rows, inputs drawn from the feature box, and
    inputs that the guided search found from training rows. Fresh ones are made in the same way
    from test rows, with their own draws; a fresh instance that was also given is dropped.

    Args:
        model: the network under test, in evaluation mode.
        dataset: the data set.
        prop: the property.
        instances: discriminatory instances to look for, given and fresh each, at least 3; there
            are fewer where the rows do not hold a third of them.
        box: inputs drawn from the feature box.
        repair_rows: training rows that the repair may see, at most.
        progress: show bars.
        generator: draws everything.

    Raises:
        ValueError: a size below 1, or a network without any discriminatory instance to be found.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=2000, generator=g)
        >>> start = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> model = cl.networks.fit(start, table.train, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> trial = cl.repair.fairness_trial(model, table, fair, instances=30, generator=g)
    """
    if instances < 3 or min(box, repair_rows) < 1:
        raise ValueError(
            f"instances, box, repair_rows: got {instances}, {box}, {repair_rows}; "
            "allowed: at least 3, 1, 1"
        )
    found = [
        _instances(model, seeds, dataset, prop, instances, progress, generator)
        for seeds in (dataset.train, dataset.test)
    ]
    given, fresh = found[0], drop_rows(found[1], found[0])
    if len(given) == 0 or len(fresh) == 0:
        raise ValueError(
            f"model: no discriminatory instance was found for {prop.name}; "
            "there is nothing to repair, or the search needs more seeds"
        )
    picked = torch.randperm(len(dataset.train), generator=generator)[:repair_rows]
    return FairnessTrial(
        repair=dataset.train.take(picked),
        given=given,
        fresh=fresh,
        rows=dataset.test,
        box=sample_box(dataset, box, generator=generator),
    )


def _instances(
    model: nn.Module,
    seeds: Samples,
    dataset: Dataset,
    prop: IndividualFairness,
    count: int,
    progress: bool,
    generator: torch.Generator,
) -> Samples:
    """Discriminatory instances from three sources: rows, the box, and a search from the rows."""
    third = count // 3
    observed = observed_violations(model, seeds, prop)
    picked = torch.randperm(len(observed), generator=generator)[:third]
    drawn = random_violations(model, dataset, prop, third, progress=progress, generator=generator)
    guided = guided_violations(
        model, seeds, dataset, prop, third, progress=progress, generator=generator
    )
    inputs = torch.cat([observed.take(picked).inputs, drawn.inputs, guided.inputs])
    return Samples(inputs=inputs.unique(dim=0))


def measure_fairness(
    model: nn.Module,
    original: nn.Module,
    trial: FairnessTrial,
    prop: IndividualFairness,
    feature: Feature,
) -> FairnessMeasures:
    """All measures of one network on the samples of a trial.

    Args:
        model: the network to measure.
        original: the network before any repair.
        trial: the samples.
        prop: the property.
        feature: the sensitive feature, whose values are the groups of the group measures.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=2000, generator=g)
        >>> start = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> model = cl.networks.fit(start, table.train, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> trial = cl.repair.fairness_trial(model, table, fair, instances=30, generator=g)
        >>> both = cl.repair.measure_fairness(model, model, trial, fair, table.feature("sex"))
    """
    changed = predict(model, trial.rows.inputs) != predict(original, trial.rows.inputs)
    return FairnessMeasures(
        accuracy=accuracy(model, trial.rows),
        unfair_rate_given=violation_rate(model, trial.given, prop),
        unfair_rate_fresh=violation_rate(model, trial.fresh, prop),
        unfair_rate_rows=violation_rate(model, trial.rows, prop),
        unfair_rate_box=violation_rate(model, trial.box, prop),
        demographic_parity_gap=violation_rate(
            model, trial.rows, demographic_parity(trial.rows, feature)
        ),
        equalized_odds_gap=violation_rate(model, trial.rows, equalized_odds(trial.rows, feature)),
        predictions_changed=float(changed.double().mean()),
    )
