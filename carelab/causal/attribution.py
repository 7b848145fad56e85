"""Captum's gradient attributions of the violation score to units: localisers to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal.interventions import check_unit
from carelab.causal.shapley import probe_pairs
from carelab.causal.uncertainty import mean_contrasts
from carelab.networks import check_evaluation_mode, check_inputs, hidden_neurons
from carelab.properties import Property
from carelab.records import Evidence, Samples, Unit, UnitEffects

__all__ = ["gradient_activation_effects", "integrated_gradient_effects"]

# (the score as a function of probes (batch, probes, ...) and row numbers, the module of a layer,
# probes, their references, row numbers) -> attributions (batch x probes, *shape of the layer)
_Attribution = Callable[[nn.Module, nn.Module, Tensor, Tensor, Tensor], Tensor]


def gradient_activation_effects(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    batch_size: int = 1024,
) -> UnitEffects:
    """Mean over violating samples of dy/dh h: first-order fall of the score when h goes to 0.

    y is the property's score; the products are summed over its probes and over the numbers that a
    unit consists of (a channel, a whole layer). Signed: positive where the unit raises the score.

    Args:
        model: a sequential network in evaluation mode.
        evidence: its violating samples are used.
        prop: the property whose score is attributed.
        units: the units; by default all hidden neurons, post-activation.
        batch_size: samples a pass; bounds the memory.

    Raises:
        ValueError: an unknown unit, one sample alone, inputs of the wrong width, or a network in
            training mode.

    Source: ``captum.attr.LayerGradientXActivation``; Shrikumar et al. 2016 (gradient x input).

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.attribution import gradient_activation_effects
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> effects = gradient_activation_effects(model, evidence, fair)
    """

    def attribute(
        score: nn.Module, layer: nn.Module, probes: Tensor, references: Tensor, rows: Tensor
    ) -> Tensor:
        method = LayerGradientXActivation(score, layer)
        return method.attribute(probes, additional_forward_args=(rows,))

    return _effects("gradient x activation", attribute, model, evidence, prop, units, batch_size)


def integrated_gradient_effects(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    steps: int = 16,
    batch_size: int = 128,
) -> UnitEffects:
    """Mean over violating samples of (h - h') times the mean of dy/dh on the way from h' to h.

    h is the layer's output, h' that of the reference (`probe_pairs`), the way is the straight
    line of the whole layer, by Gauss-Legendre quadrature. Over one layer that everything passes
    through, the attributions add up to y(h) - y(h'). Signed, summed over probes and over the
    numbers that a unit consists of.

    Args:
        model: a sequential network in evaluation mode.
        evidence: its violating samples and their references are used.
        prop: the property whose score is attributed.
        units: the units; by default all hidden neurons, post-activation.
        steps: points on the way, at least 1.
        batch_size: samples a pass, each at all steps; bounds the memory.

    Raises:
        ValueError: an unknown unit, no step, one sample alone, inputs of the wrong width, or a
            network in training mode.

    Source: Sundararajan, Taly, Yan, ICML 2017, equation 3, applied to a layer as in
        ``captum.attr.LayerIntegratedGradients``.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.attribution import integrated_gradient_effects
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> effects = integrated_gradient_effects(model, evidence, fair, steps=4)
    """
    if steps < 1:
        raise ValueError(f"steps: got {steps}; allowed: 1 or more")

    def attribute(
        score: nn.Module, layer: nn.Module, probes: Tensor, references: Tensor, rows: Tensor
    ) -> Tensor:
        method = LayerIntegratedGradients(score, layer)
        return method.attribute(
            probes, baselines=references, additional_forward_args=(rows,), n_steps=steps
        )

    return _effects("integrated gradients", attribute, model, evidence, prop, units, batch_size)


class _Score(nn.Module):
    """The property's score as captum wants it: probes (batch, probes, ...) to one number each.

    Captum takes the first axis for the samples and multiplies it by its steps, so that probes
    come second and each row says by its number which sample it belongs to.
    """

    def __init__(self, model: nn.Module, prop: Property, samples: Samples) -> None:
        super().__init__()
        self.model, self.prop, self.samples = model, prop, samples

    def forward(self, probes: Tensor, rows: Tensor) -> Tensor:
        outputs = self.model(probes.flatten(0, 1)).unflatten(0, probes.shape[:2])
        return self.prop.score(outputs.transpose(0, 1), self.samples.take(rows))


def _effects(
    measure: str,
    attribute: _Attribution,
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    units: Sequence[Unit] | None,
    batch_size: int,
) -> UnitEffects:
    chosen = tuple(hidden_neurons(model) if units is None else units)
    check_evaluation_mode(model)
    check_inputs(model, evidence.violating.inputs)
    if not chosen or batch_size < 1:
        raise ValueError(
            f"units, batch_size: got {len(chosen)} units, {batch_size}; allowed: at least 1 each"
        )
    modules = dict(model.named_modules())
    for unit in chosen:
        if unit.layer not in modules or not unit.layer:
            known = ", ".join(name for name in modules if name)
            raise ValueError(f"layer: got {unit.layer!r}; allowed: {known}")
    # Captum's hooks read the module of the layer, so the score runs the very same network.
    score = _Score(model, prop, evidence.violating).eval()
    layers = {unit.layer: modules[unit.layer] for unit in chosen}
    return mean_contrasts(
        measure, chosen, _blocks(attribute, score, layers, evidence, prop, chosen, batch_size)
    )


def _blocks(
    attribute: _Attribution,
    score: nn.Module,
    layers: Mapping[str, nn.Module],
    evidence: Evidence,
    prop: Property,
    units: Sequence[Unit],
    batch_size: int,
) -> Iterator[Float[Tensor, "units batch"]]:
    own, reference = probe_pairs(evidence, prop)
    for rows in torch.arange(own.shape[1]).split(batch_size):
        # Copies, on which captum may ask for gradients.
        probes = own[:, rows].transpose(0, 1).clone().requires_grad_()
        references = reference[:, rows].transpose(0, 1).clone().requires_grad_()
        found = {
            layer: attribute(score, module, probes, references, rows)
            .detach()
            .unflatten(0, probes.shape[:2])
            .sum(dim=1)
            for layer, module in layers.items()
        }
        for unit in units:
            check_unit(unit, found[unit.layer].shape[1:])
        yield torch.stack(
            [
                found[unit.layer][(slice(None), *unit.place)].reshape(len(rows), -1).sum(dim=1)
                for unit in units
            ]
        )
