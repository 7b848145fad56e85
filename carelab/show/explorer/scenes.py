"""What is explored: a network, its property, the samples behind each read-out and each effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from carelab.properties import Property
from carelab.records import Evidence, Samples
from carelab.show.explorer.sides import InputSide

__all__ = [
    "Answer",
    "Gauge",
    "Scene",
    "accuracy_gauge",
    "highest",
    "kept_gauge",
    "lowest",
    "some_of",
    "violation_gauge",
]

# Which class a network answers, from its outputs (..., classes).
Answer = Callable[[Tensor], Tensor]


def highest(outputs: Float[Tensor, "*rows classes"]) -> Int[Tensor, "*rows"]:
    """The class of the highest output, as classifiers answer.

    Args:
        outputs: the outputs of a network.

    Example:
        >>> import torch
        >>> from carelab.show.explorer import highest
        >>> highest(torch.tensor([[0.0, 2.0, 1.0]])).tolist()
        [1]
    """
    return outputs.argmax(dim=-1)


def lowest(outputs: Float[Tensor, "*rows classes"]) -> Int[Tensor, "*rows"]:
    """The class of the lowest output, as networks that score costs answer (ACAS Xu).

    Args:
        outputs: the outputs of a network.

    Example:
        >>> import torch
        >>> from carelab.show.explorer import lowest
        >>> lowest(torch.tensor([[0.0, 2.0, -1.0]])).tolist()
        [2]
    """
    return outputs.argmin(dim=-1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Gauge:
    """One number that is read out while neurons change; a fraction of held-out samples.

    Args:
        name: its key, such as "accuracy".
        label: what it says on the screen.
        samples: the samples, which no effect, ranking or repair sees.
        probes: at which inputs the network is run for them, as a property's probes.
        rate: the fraction, from the outputs there (probes, batch, classes).
        higher_is_better: whether a rise is good news.
    """

    name: str
    label: str
    samples: Samples
    probes: Callable[[Tensor], Tensor]
    rate: Callable[[Tensor], float]
    higher_is_better: bool


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Scene:
    """Everything that an explorer shows.

    Args:
        title: the network and its data, in a few words.
        note: where the data come from.
        model: a sequential network in evaluation mode.
        prop: the property whose score the causal effects are about.
        gauges: the read-outs.
        evidence: samples that misbehave, their references, and samples that behave; rankings and
            the repair see these, never those of the gauges.
        curves: samples over which the curves E[y | do(neuron = value)] run, of the evidence.
        keep: samples whose answers a repair should keep, with these answers as labels.
        answer: which class the network answers.
        side: the input side, or None.
        method: the ranking to start with, a name in `causal.LOCALIZERS`.
        layer: the layer whose neurons may be guilty, or "": all layers.
        count: guilty neurons to start with; at most so many as there are.
        alpha: weight of the kept answers in the repair's search, in [0, 1].
        factor_bounds: smallest and largest factor of the repair's search.
    """

    title: str
    note: str
    model: nn.Module
    prop: Property
    gauges: tuple[Gauge, ...]
    evidence: Evidence
    curves: Samples
    keep: Samples
    answer: Answer = highest
    side: InputSide | None = None
    method: str = "mediation_drop"
    layer: str = ""
    count: int = 10
    alpha: float = 0.9
    factor_bounds: tuple[float, float] = (0.0, 2.0)


def accuracy_gauge(
    samples: Samples, prop: Property | None = None, *, answer: Answer = highest
) -> Gauge:
    """Fraction of labelled held-out samples that are answered right.

    Args:
        samples: the samples, with labels.
        prop: a property that is judged on the same samples; where its first probe is the input
            itself, the two share one run.
        answer: which class the network answers.

    Raises:
        ValueError: no sample, or samples without labels.

    Example:
        >>> import torch
        >>> from carelab.records import Samples
        >>> from carelab.show.explorer import accuracy_gauge
        >>> rows = Samples(inputs=torch.zeros(2, 1), labels=torch.tensor([0, 1]))
        >>> accuracy_gauge(rows).rate(torch.tensor([[[3.0, 0.0], [2.0, 1.0]]]))
        0.5
    """
    labels = samples.labels
    if labels is None or len(samples) == 0:
        raise ValueError(
            f"samples: got {len(samples)}{'' if labels is not None else ' without labels'}; "
            "allowed: at least one, with labels"
        )
    return Gauge(
        name="accuracy",
        label="accuracy",
        samples=samples,
        probes=_shared_probes(samples, prop),
        rate=lambda outputs: _share(answer(outputs[0]) == labels),
        higher_is_better=True,
    )


def kept_gauge(
    samples: Samples,
    answers: Int[Tensor, " batch"],
    prop: Property | None = None,
    *,
    label: str = "answers as before",
    answer: Answer = highest,
) -> Gauge:
    """Fraction of held-out samples that are answered as the original network answers them.

    Args:
        samples: the samples.
        answers: what the original network answers (batch).
        prop: as for `accuracy_gauge`.
        label: what it says on the screen.
        answer: which class the network answers.

    Example:
        >>> import torch
        >>> from carelab.records import Samples
        >>> from carelab.show.explorer import kept_gauge
        >>> gauge = kept_gauge(Samples(inputs=torch.zeros(2, 1)), torch.tensor([0, 1]))
        >>> gauge.rate(torch.tensor([[[3.0, 0.0], [2.0, 1.0]]]))
        0.5
    """
    return Gauge(
        name="kept",
        label=label,
        samples=samples,
        probes=_shared_probes(samples, prop),
        rate=lambda outputs: _share(answer(outputs[0]) == answers),
        higher_is_better=True,
    )


def violation_gauge(samples: Samples, prop: Property, *, label: str = "violation rate") -> Gauge:
    """The property's rate over held-out samples.

    Args:
        samples: the samples.
        prop: the property.
        label: what it says on the screen.

    Example:
        >>> import torch
        >>> from carelab.properties import TargetClass
        >>> from carelab.records import Samples
        >>> from carelab.show.explorer import violation_gauge
        >>> gauge = violation_gauge(Samples(inputs=torch.zeros(2, 1)), TargetClass(target=1))
        >>> gauge.rate(torch.tensor([[[3.0, 0.0], [2.0, 5.0]]]))
        0.5
    """
    return Gauge(
        name="violation",
        label=label,
        samples=samples,
        probes=prop.probes,
        rate=lambda outputs: float(prop.rate(outputs, samples)),
        higher_is_better=False,
    )


def some_of(samples: Samples, most: int, *, generator: torch.Generator) -> Samples:
    """At most so many of the samples, drawn without replacement.

    Args:
        samples: the samples.
        most: how many.
        generator: draws them.

    Example:
        >>> import torch
        >>> from carelab.records import Samples
        >>> from carelab.show.explorer.scenes import some_of
        >>> len(some_of(Samples(inputs=torch.zeros(9, 1)), 4, generator=torch.Generator()))
        4
    """
    return samples.take(torch.randperm(len(samples), generator=generator)[:most])


def one_probe(inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "1 batch ..."]:
    """The inputs themselves, as the only probe.

    Args:
        inputs: the inputs.
    """
    return inputs.unsqueeze(0)


def _shared_probes(samples: Samples, prop: Property | None) -> Callable[[Tensor], Tensor]:
    if prop is None:
        return one_probe
    first = samples.inputs[:2]
    return prop.probes if torch.equal(prop.probes(first)[0], first) else one_probe


def _share(right: Tensor) -> float:
    return float(right.double().mean())
