"""What a safety repair achieved: violations that are left, and behaviour that is still there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.data import uniform_points
from carelab.networks import check_inputs, logits
from carelab.properties import (
    OutputRegion,
    OutputRegions,
    SafetySamples,
    region_box,
    violation_rate,
)
from carelab.records import Samples

__all__ = [
    "SafetyMeasures",
    "fidelity",
    "measure_safety",
    "measure_safety_of",
    "weights_changed",
]

Box = tuple[Float[Tensor, " features"], Float[Tensor, " features"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetyMeasures:
    """How safe a network is and how much of the original's behaviour it kept.

    Advice is the lowest score. Rates are fractions; those of points that do not exist are None.

    Args:
        violation_rate: of the test counterexamples, those that still violate.
        repair_success_rate: of the counterexamples that the repair saw, those that no longer do.
        kept: of the satisfying test points, those that still satisfy.
        advisories_kept_satisfying: of the same points, those with the same advice as before.
        fidelity_domain: of uniform points of the whole domain, those with the same advice.
        fidelity_box: the same in the property's box.
        fidelity_constant: of the points of the domain, those on which the best network that
            always advises the same agrees with the original: what fidelity is worth.
        largest_change: of any score at the points of the domain and of the box, in the network's
            own outputs.
        weights_changed: of all weights and biases, those that differ.
    """

    violation_rate: float | None
    repair_success_rate: float | None
    kept: float | None
    advisories_kept_satisfying: float | None
    fidelity_domain: float
    fidelity_box: float
    fidelity_constant: float
    largest_change: float
    weights_changed: float

    @property
    def generalization(self) -> float | None:
        """Of counterexamples that the repair did not see, those that no longer violate."""
        return None if self.violation_rate is None else 1 - self.violation_rate


def fidelity(
    model: nn.Module,
    original: nn.Module,
    low: Float[Tensor, " features"],
    high: Float[Tensor, " features"],
    *,
    points: int = 1_000_000,
    batch_size: int = 65_536,
    generator: torch.Generator,
) -> float:
    """Share of uniform points of a box at which both networks advise the same: the lowest score.

    Args:
        model: the network to compare, in evaluation mode.
        original: the network before any repair, in evaluation mode.
        low: smallest value of each input (features).
        high: largest value of each input (features).
        points: how many are drawn, at least 1.
        batch_size: points a pass, at least 1.
        generator: draws the points.

    Raises:
        ValueError: no point, a batch of none, a box that is empty or not finite, or networks of
            different inputs or outputs.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> g = torch.Generator().manual_seed(0)
        >>> model, low = networks.mlp(2, (4,), 3, generator=g), torch.zeros(2)
        >>> repair.fidelity(model, model, low, low + 1, points=100, generator=g)
        1.0
    """
    compared = _compare([model], original, (low, high), points, batch_size, generator)
    return compared[0].agreeing / points


def measure_safety(
    model: nn.Module,
    original: nn.Module,
    trial: SafetySamples,
    prop: OutputRegion | OutputRegions,
    domain: Box,
    *,
    points: int = 1_000_000,
    batch_size: int = 65_536,
    generator: torch.Generator,
) -> SafetyMeasures:
    """All measures of a network after a safety repair, on points that no repair saw.

    Args:
        model: the network to measure, in evaluation mode.
        original: the network before any repair, in evaluation mode.
        trial: the counterexamples and satisfying points.
        prop: the property, with one finite box.
        domain: smallest and largest value of each input in the whole domain (features each).
        points: uniform points drawn from the domain, and again from the property's box.
        batch_size: points a pass, at least 1.
        generator: draws the points.

    Raises:
        ValueError: what `fidelity` refuses, or networks of different layers.

    Example:
        >>> import torch, carelab as cl
        >>> g, low, high = torch.Generator().manual_seed(0), torch.zeros(2), torch.ones(2)
        >>> m = cl.networks.mlp(2, (4,), 3, generator=g)
        >>> prop = cl.properties.forbidden_class(0, 3, low=low, high=high)
        >>> trial = cl.properties.safety_samples(m, prop, violating=(3, 1, 3), satisfying=(3, 1, 3),
        ...     draws=200, generator=g)
        >>> cl.repair.measure_safety(m, m, trial, prop, (low, high), points=50, generator=g).kept
        1.0
    """
    return measure_safety_of(
        {"": model},
        original,
        trial,
        prop,
        domain,
        points=points,
        batch_size=batch_size,
        generator=generator,
    )[""]


def measure_safety_of(
    models: Mapping[str, nn.Module],
    original: nn.Module,
    trial: SafetySamples,
    prop: OutputRegion | OutputRegions,
    domain: Box,
    *,
    points: int = 1_000_000,
    batch_size: int = 65_536,
    generator: torch.Generator,
) -> dict[str, SafetyMeasures]:
    """The measures of several networks, by name, all at the same points.

    Args:
        models: the networks to measure, in evaluation mode.
        original: as for `measure_safety`, and so are all others.
        trial: the counterexamples and satisfying points.
        prop: the property.
        domain: the whole domain.
        points: uniform points of the domain and of the box.
        batch_size: points a pass.
        generator: draws the points.

    Raises:
        ValueError: what `measure_safety` refuses.

    Example:
        >>> import torch, carelab as cl
        >>> g, low, high = torch.Generator().manual_seed(0), torch.zeros(2), torch.ones(2)
        >>> m = cl.networks.mlp(2, (4,), 3, generator=g)
        >>> prop = cl.properties.forbidden_class(0, 3, low=low, high=high)
        >>> trial = cl.properties.safety_samples(m, prop, violating=(3, 1, 3), satisfying=(3, 1, 3),
        ...     draws=200, generator=g)
        >>> found = cl.repair.measure_safety_of(
        ...     {"itself": m}, m, trial, prop, (low, high), points=50, generator=g)
    """
    boxes = (domain, region_box(prop))
    compared = [
        _compare(list(models.values()), original, box, points, batch_size, generator)
        for box in boxes
    ]
    measured = {}
    for (name, model), in_domain, in_box in zip(models.items(), *compared, strict=True):
        satisfying = trial.test.satisfying
        measured[name] = SafetyMeasures(
            violation_rate=_rate(model, trial.test.violating, prop),
            repair_success_rate=_complement(_rate(model, trial.repair.violating, prop)),
            kept=_complement(_rate(model, satisfying, prop)),
            advisories_kept_satisfying=_same_advice(model, original, satisfying),
            fidelity_domain=in_domain.agreeing / points,
            fidelity_box=in_box.agreeing / points,
            fidelity_constant=in_domain.most_frequent / points,
            largest_change=max(in_domain.largest_change, in_box.largest_change),
            weights_changed=weights_changed(model, original),
        )
    return measured


def weights_changed(model: nn.Module, original: nn.Module) -> float:
    """Share of all weights and biases that differ between two networks of the same layers.

    Args:
        model: one network.
        original: the other.

    Raises:
        ValueError: networks of different layers, or without weights.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> one = [records.Neuron("relu1", 0)]
        >>> changed, _ = repair.scale_neurons(model, one, torch.zeros(1))
        >>> round(repair.weights_changed(changed, model) * 17)
        2
    """
    after, before = list(model.parameters()), list(original.parameters())
    if [p.shape for p in after] != [p.shape for p in before] or not before:
        raise ValueError("model, original: got different layers or none; allowed: the same layout")
    pairs = zip(after, before, strict=True)
    differing = sum(int((new != old).sum()) for new, old in pairs)
    return differing / sum(p.numel() for p in before)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    """Counts over the points of a box, and the largest change of a score there."""

    agreeing: int
    most_frequent: int  # how often the original gives the advice that it gives most often
    largest_change: float


def _compare(
    models: Sequence[nn.Module],
    original: nn.Module,
    box: Box,
    points: int,
    batch_size: int,
    generator: torch.Generator,
) -> list[_Comparison]:
    """What each network does at the same points."""
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; allowed: 1 or more")
    agreeing, changes = [0] * len(models), [0.0] * len(models)
    counts = torch.zeros(0, dtype=torch.long)
    for inputs in _drawn(original, box, points, batch_size, generator):
        before = logits(original, inputs)
        advice = before.argmin(dim=1)
        here = torch.bincount(advice, minlength=before.shape[1]).cpu()
        counts = here if len(counts) == 0 else counts + here
        for place, model in enumerate(models):
            after = logits(model, inputs)
            if before.shape != after.shape:
                raise ValueError(
                    f"model, original: got {after.shape[1]} and {before.shape[1]} outputs; "
                    "allowed: as many of each"
                )
            agreeing[place] += int((after.argmin(dim=1) == advice).sum())
            changes[place] = max(changes[place], float((after - before).abs().max()))
    return [
        _Comparison(agreeing=agree, most_frequent=int(counts.max()), largest_change=change)
        for agree, change in zip(agreeing, changes, strict=True)
    ]


def _drawn(
    model: nn.Module, box: Box, points: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """The points of a box in blocks, of the network's number type and on its device."""
    if points < 1:
        raise ValueError(f"points: got {points}; allowed: 1 or more")
    weights = next(model.parameters(), torch.zeros(()))
    low, high = box[0].cpu(), box[1].cpu()
    for start, end in pairwise([*range(0, points, batch_size), points]):
        drawn = uniform_points(low, high, end - start, dtype=weights.dtype, generator=generator)
        inputs = drawn.inputs.to(weights.device)
        check_inputs(model, inputs)
        yield inputs


def _rate(model: nn.Module, samples: Samples, prop: OutputRegion | OutputRegions) -> float | None:
    return violation_rate(model, samples, prop) if len(samples) else None


def _complement(rate: float | None) -> float | None:
    return None if rate is None else 1 - rate


def _same_advice(model: nn.Module, original: nn.Module, samples: Samples) -> float | None:
    if len(samples) == 0:
        return None
    before, after = (logits(one, samples.inputs).argmin(dim=1) for one in (original, model))
    return float((before == after).double().mean())
