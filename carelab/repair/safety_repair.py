"""Repairs of controllers, whose lowest score is their advice: CARE's swarm, and by gradient."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import check_inputs, fingerprint, logits, ordered_modules
from carelab.properties import OutputRegion, OutputRegions, violation_rate
from carelab.records import Neuron, Performance, Repair, Samples
from carelab.repair.edits import apply_repair, edits_between
from carelab.repair.front import search_repair
from carelab.repair.objectives import Anchors, Objective
from carelab.repair.searches import gradient_search
from carelab.repair.spaces import weight_space
from carelab.repair.swarm import check_swarm, particle_swarm, swarm_repair
from carelab.repair.variants import factor_variants

__all__ = ["as_classifier", "care_safety", "repair_safety"]

Safety = OutputRegion | OutputRegions


def care_safety(
    model: nn.Module,
    violating: Samples,
    satisfying: Samples,
    prop: Safety,
    guilty: Sequence[Neuron],
    *,
    alpha: float = 0.2,
    factor_bounds: tuple[float, float] = (-10.0, 10.0),
    particles: int = 20,
    iterations: int = 100,
    method: str = "care",
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    """CARE's factors of the guilty neurons: least (1 - alpha) violating + alpha not satisfying.

    Violating is the share of the counterexamples that still violate, not satisfying that of the
    satisfying points that no longer satisfy: CARE's accuracy for safety. Whether the advice at the
    satisfying points is still the same does not enter.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        violating: counterexamples whose violation is to stop; never test points.
        satisfying: points that are to satisfy the property as before; never test points.
        prop: the property.
        guilty: the neurons whose activations are scaled.
        alpha: weight of the satisfying points, in [0, 1].
        factor_bounds: smallest and largest factor; they hold 1, the identity.
        particles: size of the swarm.
        iterations: iterations at most.
        method: the name that the record carries.
        progress: show a bar.
        generator: seeds the swarm.

    Returns:
        The repair; the accuracy of its `Performance` is the share of the satisfying points that
        satisfy.

    Raises:
        ValueError: no point of a kind, no neuron, or a knob out of range.

    Source: CARE, section 3.3 with the safety settings of section 5.4.

    Example:
        >>> import torch, carelab as cl
        >>> g, box = torch.Generator().manual_seed(0), (torch.zeros(2), torch.ones(2))
        >>> m, rows = cl.networks.mlp(2, (4,), 3, generator=g), cl.records.Samples(
        ...     inputs=torch.rand(9, 2))
        >>> prop = cl.properties.never_lowest(0, 3, low=box[0], high=box[1])
        >>> fixed = cl.repair.care_safety(m, rows, rows, prop, cl.networks.hidden_neurons(m)[:1],
        ...     generator=g)
    """
    if len(violating) == 0 or len(satisfying) == 0 or not guilty:
        raise ValueError(
            f"violating, satisfying, guilty: got {len(violating)}, {len(satisfying)}, "
            f"{len(guilty)}; allowed: at least one of each"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: got {alpha}; allowed: 0 to 1")
    check_swarm(factor_bounds, particles, iterations)
    check_inputs(model, violating.inputs)
    started = time.perf_counter()
    run_bad = factor_variants(model, violating.inputs, guilty)
    run_good = factor_variants(model, satisfying.inputs, guilty)

    def cost(factors: Tensor) -> Tensor:
        left = prop.rate(run_bad(factors).unsqueeze(1), violating)
        lost = prop.rate(run_good(factors).unsqueeze(1), satisfying)
        return ((1 - alpha) * left + alpha * lost).double().cpu()

    def performance(network: nn.Module) -> Performance:
        return Performance(
            accuracy=1 - violation_rate(network, satisfying, prop),
            violation_rate=violation_rate(network, violating, prop),
        )

    return swarm_repair(
        model,
        guilty,
        cost,
        performance,
        partial(particle_swarm, particles=particles, iterations=iterations, progress=progress),
        property_name=prop.name,
        factor_bounds=factor_bounds,
        method=method,
        started=started,
        generator=generator,
    )


def repair_safety(
    model: nn.Module,
    guilty: Sequence[Neuron],
    violating: Samples,
    guarded: Sequence[Samples],
    kept: Sequence[Samples],
    prop: Safety,
    *,
    incoming: bool = False,
    clearance: float = 5e-4,
    sharpness: int = 8,
    weight: float = 10.0,
    steps: int = 400,
    learning_rate: float = 3e-3,
    batch_size: int = 256,
    method: str = "ours",
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    """Weights of the guilty neurons for which the property holds and the advice stays, by gradient.

    Adam moves the outgoing columns of the neurons, and their incoming rows where asked, down

        mean over groups of CE(advice before, advice after) + weight x mean over groups of
        max(0, clearance - margin) / 0.01,

    the first over the points to be kept, the second over counterexamples and guarded points. The
    advice is softmin(2**sharpness x scores): the scores where advice is close count most. Points
    to be kept that violate are left out: their advice may have to change.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        guilty: the neurons whose weights may change, post-activation, each once.
        violating: counterexamples whose violation is to stop; never test points.
        guarded: groups of points that must not violate either, such as uniform ones of the box.
        kept: groups of points whose advice is to stay, such as uniform ones of the whole domain.
        prop: the property.
        incoming: incoming rows and biases may change too.
        clearance: margin, in scores, that points are to have; a larger one repairs more of what
            was not seen, and changes more.
        sharpness: base-2 logarithm of the factor of the scores in the advice.
        weight: of the property against the advice.
        steps: steps of Adam.
        learning_rate: its largest step size.
        batch_size: points of each group in a step.
        method: the name that the record carries.
        progress: show a bar.
        generator: draws the batches.

    Returns:
        The repair; the accuracy of its `Performance` is the share of the first group of kept
        points with the same advice as before.

    Raises:
        ValueError: no counterexample, no group of kept points, a group that always violates, or
            what the search refuses.

    Example:
        >>> import torch, carelab as cl
        >>> g, box = torch.Generator().manual_seed(0), (torch.zeros(2), torch.ones(2))
        >>> m, rows = cl.networks.mlp(2, (4,), 3, generator=g), cl.records.Samples(
        ...     inputs=torch.rand(99, 2))
        >>> prop = cl.properties.never_lowest(int(m(rows.inputs).argmin(1).mode()[0]), 3)
        >>> cl.repair.repair_safety(m, cl.networks.hidden_neurons(m), rows, [], [cl.records.Samples(
        ...     inputs=2 - rows.inputs)], prop, steps=2, generator=g).status
        'improved'
    """
    if len(violating) == 0 or not kept or not clearance >= 0:
        raise ValueError(
            f"violating, kept, clearance: got {len(violating)} points, {len(kept)} groups, "
            f"{clearance}; allowed: at least one point and one group, 0 or more"
        )
    classifier = as_classifier(model, sharpness)
    judged = _ClearProperty(prop=prop, factor=-(2.0**-sharpness), clearance=clearance)
    anchors = [_anchors(classifier, samples, judged) for samples in kept]
    space = weight_space(classifier, guilty, incoming=incoming)
    labels = anchors[0].chances.argmax(dim=1)
    objective = Objective(
        prop=judged,
        labelled=Samples(inputs=anchors[0].inputs, labels=labels),
        guarded=[violating, *guarded],
        anchors=anchors,
        accuracy=0.0,
        fidelity=1.0,
        violation=weight,
        sharpness=1.0,
    )
    found = search_repair(
        classifier,
        space,
        objective,
        partial(gradient_search, steps=steps, learning_rate=learning_rate),
        method=method,
        batch_size=batch_size,
        cache_prefix=True,
        progress=progress,
        generator=generator,
    )
    return _of_scores(found, model, apply_repair(classifier, found), sharpness)


def as_classifier(model: nn.Module, sharpness: int = 8) -> nn.Module:
    """The network with outputs -2**sharpness x score: its highest output is the lowest score.

    A power of two changes no digit of a weight, so that the same with -sharpness gives the network
    again bit for bit.

    Args:
        model: a sequential network that ends with a linear layer.
        sharpness: base-2 logarithm of the factor, -20 to 20.

    Raises:
        ValueError: a network that ends with something else, or a factor out of range.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.repair.safety_repair import as_classifier
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> x = torch.rand(5, 2)
        >>> bool((as_classifier(model)(x).argmax(1) == model(x).argmin(1)).all())
        True
    """
    if not -20 <= sharpness <= 20:
        raise ValueError(f"sharpness: got {sharpness}; allowed: -20 to 20")
    turned = deepcopy(model)
    _, last = ordered_modules(turned)[-1]
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"model: ends with {type(last).__name__}; allowed: a linear layer that gives the scores"
        )
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(-(2.0**sharpness))
    return turned


def _anchors(classifier: nn.Module, samples: Samples, judged: _ClearProperty) -> Anchors:
    """The points that do not violate, with the advice to be kept there."""
    outputs = logits(classifier, samples.inputs)
    inside = judged.prop.inside(samples.inputs)
    rows = ~(inside & (judged.margin(outputs.unsqueeze(0), samples) <= 0))
    if not bool(rows.any()):
        raise ValueError("kept: got a group that violates everywhere; allowed: some that do not")
    return Anchors(inputs=samples.inputs[rows], chances=outputs[rows].softmax(dim=1))


def _of_scores(found: Repair, model: nn.Module, classifier: nn.Module, sharpness: int) -> Repair:
    """The repair of the network itself, from that of the classifier made of it."""
    repaired = as_classifier(classifier, -sharpness)
    edits = edits_between(model, repaired)
    return replace(
        found,
        network=fingerprint(model),
        repaired=fingerprint(repaired),
        edits=edits,
        status="improved" if edits else "unchanged",
    )


_FAR = 0.01  # scores; the unit of the hinge


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _ClearProperty:
    """A property of scores, judged on outputs that are scores / factor, with a hinge as score."""

    prop: Safety
    factor: float
    clearance: float

    @property
    def name(self) -> str:
        return self.prop.name

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "1 batch ..."]:
        return inputs.unsqueeze(0)

    def score(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return (self.clearance - self.margin(outputs, samples)).clamp(min=0) / _FAR

    def margin(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return self.prop.margin(outputs * self.factor, samples)

    def rate(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        return self.prop.rate(outputs * self.factor, samples)
