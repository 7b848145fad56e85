"""What the explorer knows of each neuron: its effect, its curve, its activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal import activations, contrast_error
from carelab.networks import check_evaluation_mode, hidden_layers, hidden_neurons, split, width
from carelab.properties import Property
from carelab.records import CausalEffects, Evidence, Neuron, Samples

__all__ = ["Portrait", "check_showable", "levels", "portrait", "shown_neurons"]

_NORMAL = 1.96  # two-sided quantile of a 95 % interval
_BINS = 24
# Samples whose gradient chooses what is shown of a large network.
_GRADIENT_ROWS = 256


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Portrait:
    """One neuron: its interventional-expectation curve and its activations.

    Args:
        neuron: the neuron, or channel.
        values: the values it is held at (steps).
        expectation: mean score under do(neuron = value) (steps).
        error: its standard error (steps).
        unmodified: mean score without intervention.
        samples: how many samples the means run over.
        edges: ends of the histogram's bins (bins + 1).
        behaving: share of the behaving samples in each bin (bins); of a channel its mean counts.
        misbehaving: share of the misbehaving samples in each bin (bins).
    """

    neuron: Neuron
    values: Float[Tensor, " steps"]
    expectation: Float[Tensor, " steps"]
    error: Float[Tensor, " steps"]
    unmodified: float
    samples: int
    edges: Float[Tensor, " edges"]
    behaving: Float[Tensor, " bins"]
    misbehaving: Float[Tensor, " bins"]

    @property
    def interval(self) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
        """Ends of the 95 % interval of the curve."""
        reach = _NORMAL * self.error
        return self.expectation - reach, self.expectation + reach


def check_showable(model: nn.Module) -> None:
    """Refuse, in one sentence for the reader, a network that cannot be explored.

    Args:
        model: the network.

    Raises:
        ValueError: a network that is not sequential, in training mode, without hidden neurons, or
            with weights that are not finite.

    Example:
        >>> import torch
        >>> from carelab.show.explorer import check_showable
        >>> check_showable(torch.nn.Sequential(torch.nn.Linear(2, 2)).eval())
        Traceback (most recent call last):
        ValueError: model: has no hidden neuron; allowed: an activation between two weight layers
    """
    check_evaluation_mode(model)
    if not hidden_layers(model):
        raise ValueError(
            "model: has no hidden neuron; allowed: an activation between two weight layers"
        )
    for name, weight in model.named_parameters():
        broken = int((~torch.isfinite(weight)).sum())
        if broken:
            raise ValueError(
                f"model: {name} holds {broken} weights that are not finite (NaN or infinite), so "
                "no effect can be told; allowed: finite weights"
            )


def shown_neurons(
    model: nn.Module, evidence: Evidence, prop: Property, *, most: int = 600
) -> tuple[Neuron, ...]:
    """All hidden neurons, or where there are more than `most` those that seem to matter most.

    Chosen by |dy/dh h|, the size of the first-order change of the score y when the activation h
    goes to 0, averaged over misbehaving samples: one pass for all neurons. Each layer keeps its
    first one at least.

    Args:
        model: a sequential network in evaluation mode.
        evidence: its violating samples are used.
        prop: the property whose score is y.
        most: how many neurons can be shown.

    Returns:
        The neurons, layer by layer, in their order.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.show.explorer import shown_neurons
        >>> model = networks.mlp(3, (9, 4), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> len(shown_neurons(model, evidence, fair, most=5))
        5
    """
    neurons = hidden_neurons(model)
    if len(neurons) <= most:
        return neurons
    size = _gradient_sizes(model, evidence.violating.take(slice(0, _GRADIENT_ROWS)), prop)
    order = size.argsort(descending=True, stable=True).tolist()
    best: dict[str, int] = {}
    for at in order:
        best.setdefault(neurons[at].layer, at)
    kept = list(dict.fromkeys([*best.values(), *order]))[: max(most, len(best))]
    return tuple(neurons[at] for at in sorted(kept))


def levels(
    model: nn.Module, samples: Samples, neurons: Sequence[Neuron]
) -> Float[Tensor, "neurons batch"]:
    """Activation of each neuron at every sample; of a channel the mean over its positions.

    Args:
        model: a sequential network in evaluation mode.
        samples: the samples.
        neurons: the neurons.

    Returns:
        The activations (neurons, batch), float64.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.show.explorer import levels
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> levels(model, rows, networks.hidden_neurons(model)).shape
        torch.Size([4, 9])
    """
    found: dict[str, Tensor] = {}
    for layer in dict.fromkeys(neuron.layer for neuron in neurons):
        recorded = activations(model, samples.inputs, [layer])[layer]
        means = recorded.flatten(2).mean(dim=2) if recorded.ndim > 2 else recorded
        found[layer] = means.double()
    return torch.stack([found[neuron.layer][:, neuron.index] for neuron in neurons])


def portrait(
    effects: CausalEffects,
    neuron: Neuron,
    behaving: Float[Tensor, " batch"],
    misbehaving: Float[Tensor, " others"],
) -> Portrait:
    """Curve and activations of one neuron.

    Args:
        effects: effects of some neurons, this one among them.
        neuron: the neuron.
        behaving: its activation at inputs that behave, as `levels` gives it.
        misbehaving: its activation at inputs that misbehave.

    Raises:
        ValueError: a neuron that the effects do not hold.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> from carelab.show.explorer import portrait
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> one = portrait(effects, effects.neurons[2], torch.rand(5), torch.rand(7))
        >>> len(one.edges)
        25
    """
    if neuron not in effects.neurons:
        raise ValueError(f"neuron: got {neuron}; allowed: one of the {len(effects.neurons)} shown")
    at = effects.neurons.index(neuron)
    steps = effects.values.shape[1]
    # Only this neuron's curve: the errors of all of them would take longer than the rest.
    own = CausalEffects(
        neurons=(neuron,),
        values=effects.values[at : at + 1],
        expectation=effects.expectation[at : at + 1],
        unmodified=effects.unmodified,
        covariance=effects.covariance[at : at + 1],
        mean_covariance=effects.mean_covariance[at : at + 1, at : at + 1],
        samples=effects.samples,
    )
    groups = [group.double() for group in (behaving, misbehaving)]
    low = min(float(group.min()) for group in groups)
    high = max(float(group.max()) for group in groups)
    edges = torch.linspace(low, high if high > low else low + 1, _BINS + 1, dtype=torch.float64)
    shares = [torch.histogram(group, edges).hist / len(group) for group in groups]
    return Portrait(
        neuron=neuron,
        values=own.values[0],
        expectation=own.expectation[0],
        error=contrast_error(own, torch.eye(steps, steps + 1, dtype=torch.float64))[0],
        unmodified=own.unmodified,
        samples=own.samples,
        edges=edges,
        behaving=shares[0],
        misbehaving=shares[1],
    )


def _gradient_sizes(
    model: nn.Module, samples: Samples, prop: Property
) -> Float[Tensor, " neurons"]:
    """|dy/dh h| of every hidden neuron, averaged over the samples."""
    probes = prop.probes(samples.inputs)
    current, rest = probes.flatten(0, 1), model
    seen: list[Tensor] = []
    for layer in hidden_layers(model):
        before, rest = split(rest, layer)
        current = before(current)
        if not seen:
            current = current.detach().requires_grad_()
        seen.append(current)
    outputs = rest(current).unflatten(0, probes.shape[:2])
    gradients = torch.autograd.grad(prop.score(outputs, samples).sum(), seen)
    sizes: list[Tensor] = []
    for hidden, gradient, layer in zip(seen, gradients, hidden_layers(model), strict=True):
        each = (hidden * gradient).detach().abs().unflatten(0, probes.shape[:2]).sum(dim=0)
        sizes.append(each.flatten(2).sum(dim=2).mean(dim=0) if each.ndim > 2 else each.mean(dim=0))
        assert len(sizes[-1]) == width(model, layer)
    return torch.cat(sizes)
