"""Scenes of labelled data: individual fairness, and any property of one's own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from carelab.networks import predict
from carelab.properties import IndividualFairness, Property, random_violations, violates
from carelab.records import Dataset, Evidence, Samples
from carelab.show.explorer.portraits import check_showable
from carelab.show.explorer.rows import RowSide
from carelab.show.explorer.scenes import (
    Scene,
    accuracy_gauge,
    kept_gauge,
    some_of,
    violation_gauge,
)

__all__ = ["fairness_scene", "table_scene"]

# Samples behind effects and searches: enough for narrow intervals, few enough to wait for.
_EVIDENCE = 500
_KEPT = 1000
_SHOWN_ROWS = 40
# Multiplications of the one full pass that the read-outs need: some seconds of one core.
_MOST_WORK = 10**11
_FEWEST_ROWS = 100


def fairness_scene(
    model: nn.Module,
    dataset: Dataset,
    prop: IndividualFairness,
    *,
    rows: int = 5000,
    evidence: int = _EVIDENCE,
    title: str = "",
    generator: torch.Generator,
) -> Scene:
    """Individual fairness: test rows are read out, training rows show where labels flip.

    Args:
        model: a sequential network in evaluation mode.
        dataset: the data set that it works on.
        prop: the property.
        rows: test rows of the read-outs, at most.
        evidence: training rows of each kind, at most: that flip, and that do not.
        title: what the explorer is headed with; by default the data set's name.
        generator: draws rows, and inputs where no training row flips.

    Returns:
        The scene, its rows to leaf through being test rows that flip, then others.

    Raises:
        ValueError: a network that cannot be explored, or one that treats every input fairly.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import fairness_scene
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> model = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> fairness_scene(model, table, fair, generator=g).side.kind
        'row'
    """
    scene = table_scene(
        model, dataset, prop, rows=rows, evidence=evidence, title=title, generator=generator
    )
    held_out = scene.gauges[0].samples
    flips = violates(model, held_out, prop)
    order = torch.cat([flips.nonzero()[:, 0][:_SHOWN_ROWS], (~flips).nonzero()[:, 0][:10]])
    side = RowSide(
        rows=held_out.take(order), features=dataset.features, prop=prop, classes=dataset.classes
    )
    gauges = [
        replace(gauge, label="unfair rows") if gauge.name == "violation" else gauge
        for gauge in scene.gauges
    ]
    return replace(scene, side=side, gauges=tuple(gauges))


def table_scene(
    model: nn.Module,
    dataset: Dataset,
    prop: Property,
    *,
    rows: int = 5000,
    evidence: int = _EVIDENCE,
    title: str = "",
    generator: torch.Generator,
) -> Scene:
    """Any property on labelled data: no input side, everything else as for fairness.

    Args:
        model: a sequential network in evaluation mode.
        dataset: the data set that it works on.
        prop: the property, also one of your own.
        rows: test rows of the read-outs, at most.
        evidence: training rows of each kind, at most.
        title: what the explorer is headed with; by default the data set's name.
        generator: draws rows.

    Raises:
        ValueError: a network that cannot be explored, or one that violates nowhere.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import table_scene
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> model = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> [gauge.name for gauge in table_scene(model, table, fair, generator=g).gauges]
        ['accuracy', 'violation', 'kept']
    """
    check_showable(model)
    held_out = some_of(
        dataset.test, _affordable(model, dataset.test, prop, rows), generator=generator
    )
    train = some_of(dataset.train, 20 * evidence, generator=generator)
    bad = violates(model, train, prop)
    violating, passing = train.take(bad).take(slice(0, evidence)), train.take(~bad)
    if len(violating) < 2 and isinstance(prop, IndividualFairness):
        violating = random_violations(model, dataset, prop, evidence, generator=generator)
    if len(violating) < 2 or len(passing) == 0:
        raise ValueError(
            f"model: {len(violating)} training rows violate {prop.name} and {len(passing)} do not; "
            "allowed: a network with at least 2 and 1 of them, or there is nothing to explore"
        )
    return Scene(
        title=title or dataset.name,
        note=f"{dataset.name}, {dataset.source}, sha256 {dataset.sha256[:12]}",
        model=model,
        prop=prop,
        gauges=(
            accuracy_gauge(held_out, prop),
            violation_gauge(held_out, prop),
            kept_gauge(held_out, predict(model, held_out.inputs), prop),
        ),
        evidence=Evidence(
            violating=violating,
            references=_references(violating, passing, prop),
            passing=passing.take(slice(0, evidence)),
        ),
        curves=violating,
        keep=train.take(slice(0, _KEPT)),
    )


def _affordable(model: nn.Module, samples: Samples, prop: Property, rows: int) -> int:
    """How many rows a very large network can be read out on while a reader waits."""
    work = sum(weight.numel() for weight in model.parameters())
    work *= len(prop.probes(samples.inputs[:1]))
    return min(rows, max(_FEWEST_ROWS, _MOST_WORK // max(1, work)))


def _references(violating: Samples, passing: Samples, prop: Property) -> Samples:
    """The same inputs without the cause where the property can set it, else inputs that behave."""
    probes = prop.probes(violating.inputs)
    if len(probes) > 1:
        return Samples(inputs=probes[-1])
    return passing.take(torch.arange(len(violating)) % len(passing))
