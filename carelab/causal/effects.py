"""Interventional expectations of all neurons of a network, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal.interventions import check_unit
from carelab.causal.outcomes import IntervenedBlock, intervened_scores
from carelab.causal.recording import run_recording
from carelab.networks import check_evaluation_mode, check_inputs, hidden_neurons
from carelab.properties import Property
from carelab.records import CausalEffects, Neuron, Samples, Unit

__all__ = [
    "average_causal_effect",
    "contrast_error",
    "curve_mean",
    "neuron_effects",
    "unmodified_outcome",
]

# Inputs a pass where only the range of activations is wanted.
_RANGE_ROWS = 1024


def neuron_effects(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    *,
    neurons: Sequence[Neuron] | None = None,
    steps: int = 16,
    range_samples: Samples | None = None,
    batch_size: int = 32_768,
    progress: bool = False,
) -> CausalEffects:
    """E[y | do(neuron = v)] over the samples, for every neuron and `steps` values v of each.

    y is the property's score; all its probes run under the same intervention. The values are
    evenly spaced from the lowest to the highest activation of the neuron over the samples. The
    part of the network before a layer runs once; only what follows is run again for each neuron
    and value, and the first linear map after it is updated by one column instead of multiplied.

    Args:
        model: a sequential network in evaluation mode.
        samples: the samples that the expectation runs over.
        prop: the property whose score is the outcome.
        neurons: which neurons; by default all hidden ones, post-activation.
        steps: values of each neuron, at least 2; CARE: 16 for fairness, 4 for backdoors, safety.
        range_samples: samples over which the lowest and highest activation are taken, where they
            differ from `samples` (CARE: clean and triggered inputs together).
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show a bar.

    Returns:
        The effects, in the order of the neurons.

    Raises:
        ValueError: no sample or neuron, too few steps, an unknown neuron, inputs of the wrong
            width, a network in training mode, or one that is not sequential.

    Source: CARE, section 3.2 and equation 3 (interventional expectation).

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> effects.expectation.shape
        torch.Size([4, 16])
    """
    chosen = tuple(hidden_neurons(model) if neurons is None else neurons)
    _check(model, samples, chosen, steps, batch_size)
    ranged = samples if range_samples is None else range_samples
    values = _value_grid(model, ranged, chosen, steps)
    rows: dict[Unit, int] = {neuron: row for row, neuron in enumerate(chosen)}

    def constants(units: Sequence[Unit], activations: Tensor, where: slice) -> Tensor:
        return values[[rows[unit] for unit in units]]

    blocks = intervened_scores(
        model,
        samples,
        prop,
        chosen,
        constants,
        steps=steps,
        batch_size=batch_size,
        progress=progress,
    )
    return _summarise(blocks, chosen, values, len(samples))


def average_causal_effect(
    effects: CausalEffects,
    *,
    baseline: Callable[[CausalEffects], Float[Tensor, " neurons"]] | None = None,
) -> tuple[Float[Tensor, "neurons steps"], Float[Tensor, "neurons steps"]]:
    """ACE(neuron, v) = E[y | do(neuron = v)] - baseline(neuron), with its standard error.

    Args:
        effects: the interventional expectations.
        baseline: `curve_mean` (default) or `unmodified_outcome`.

    Returns:
        The effects and their standard errors, both (neurons, steps), in units of the outcome.

    Raises:
        ValueError: another baseline, for which no error is known.

    Source: Chattopadhyay et al., ICML 2019, definition 2; CARE, section 3.2.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> ace, error = causal.average_causal_effect(effects)
    """
    chosen = baseline or curve_mean
    steps = effects.values.shape[1]
    contrasts = torch.eye(steps, steps + 1, dtype=torch.float64)
    if chosen is curve_mean:
        contrasts[:, :steps] -= 1 / steps
    elif chosen is unmodified_outcome:
        contrasts[:, steps] = -1
    else:
        raise ValueError(
            f"baseline: got {getattr(chosen, '__name__', chosen)!r}; "
            "allowed: curve_mean, unmodified_outcome"
        )
    effect = effects.expectation - chosen(effects)[:, None]
    return effect, contrast_error(effects, contrasts)


def curve_mean(effects: CausalEffects) -> Float[Tensor, " neurons"]:
    """Mean of E[y | do(neuron = v)] over the values v: the usual baseline of the ACE.

    Args:
        effects: the interventional expectations.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> causal.curve_mean(effects).shape
        torch.Size([4])
    """
    return effects.expectation.mean(dim=1)


def unmodified_outcome(effects: CausalEffects) -> Float[Tensor, " neurons"]:
    """Mean outcome of the network without intervention, for every neuron alike.

    Args:
        effects: the interventional expectations.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> causal.unmodified_outcome(effects).tolist() == [effects.unmodified] * 4
        True
    """
    return effects.expectation.new_full((len(effects.neurons),), effects.unmodified)


def contrast_error(
    effects: CausalEffects, contrasts: Float[Tensor, "contrasts steps_1"]
) -> Float[Tensor, "neurons contrasts"]:
    """Standard error sqrt(c' C c / n) of linear contrasts of each neuron's curve.

    Args:
        effects: the interventional expectations and their covariance C.
        contrasts: one contrast c a row; the last entry weighs the unmodified outcome.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> mean_error = causal.contrast_error(effects, torch.tensor([[1 / 16] * 16 + [0.0]]))
    """
    weights = contrasts.to(effects.covariance)
    variance = torch.einsum("cs,nst,ct->nc", weights, effects.covariance, weights)
    return (variance.clamp(min=0) / effects.samples).sqrt()


def _value_grid(
    model: nn.Module, samples: Samples, neurons: Sequence[Neuron], steps: int
) -> Float[Tensor, "neurons steps"]:
    """Evenly spaced values from the lowest to the highest activation of each neuron."""
    layers = dict.fromkeys(neuron.layer for neuron in neurons)
    first, _ = run_recording(model, samples.inputs[:1], layers)
    for neuron in neurons:
        check_unit(neuron, first[neuron.layer].shape[1:])
    low = {layer: output[0] for layer, output in first.items()}
    high = dict(low)
    for block in samples.inputs.split(_RANGE_ROWS):
        for layer, output in run_recording(model, block, layers)[0].items():
            low[layer] = torch.minimum(low[layer], output.amin(dim=0))
            high[layer] = torch.maximum(high[layer], output.amax(dim=0))
    start = torch.stack([low[neuron.layer][neuron.place].amin() for neuron in neurons])
    end = torch.stack([high[neuron.layer][neuron.place].amax() for neuron in neurons])
    share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)
    return start[:, None] * (1 - share) + end[:, None] * share


def _check(
    model: nn.Module, samples: Samples, neurons: Sequence[Neuron], steps: int, batch_size: int
) -> None:
    check_evaluation_mode(model)
    if len(samples) == 0:
        raise ValueError("samples: got none; allowed: at least one sample")
    if not neurons or len(set(neurons)) < len(neurons):
        raise ValueError(f"neurons: got {len(neurons)}; allowed: at least one, and each only once")
    if steps < 2 or batch_size < 1:
        raise ValueError(
            f"steps, batch_size: got {steps}, {batch_size}; allowed: at least 2 steps, 1 row"
        )
    check_inputs(model, samples.inputs)


def _summarise(
    blocks: Iterator[IntervenedBlock],
    neurons: tuple[Neuron, ...],
    values: Float[Tensor, "neurons steps"],
    samples: int,
) -> CausalEffects:
    count, steps = values.shape
    sums = torch.zeros(count, steps + 1, dtype=torch.float64)
    products = torch.zeros(count, steps + 1, steps + 1, dtype=torch.float64)
    joint = torch.zeros(count, count, dtype=torch.float64)
    for _, same_samples in groupby(blocks, key=lambda block: block.samples.start):
        changes: dict[int, Tensor] = {}
        for block in same_samples:
            untouched = block.untouched.expand(len(block.rows), 1, -1)
            outcome = torch.cat([block.scores, untouched], dim=1).to("cpu", torch.float64)
            sums[block.rows] += outcome.sum(dim=-1)
            products[block.rows] += outcome @ outcome.transpose(1, 2)
            change = (outcome[:, :-1] - outcome[:, -1:]).mean(dim=1)
            changes.update(zip(block.rows.tolist(), change, strict=True))
        together = torch.stack([changes[row] for row in range(count)])
        joint.addmm_(together, together.T)
    mean = sums / samples
    drop = mean[:, :-1].mean(dim=1) - mean[:, -1]
    unbiased = samples / max(1, samples - 1)
    outer = mean[:, :, None] * mean[:, None, :]
    return CausalEffects(
        neurons=neurons,
        values=values.cpu(),
        expectation=mean[:, :-1],
        unmodified=float(mean[0, -1]),
        covariance=(products / samples - outer) * unbiased,
        mean_covariance=(joint / samples - drop[:, None] * drop) * unbiased / samples,
        samples=samples,
    )
