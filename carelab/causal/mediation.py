"""Mediation: which part of an effect of the inputs on an outcome runs through which unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal.ablation import score_falls
from carelab.causal.patching import reference_values
from carelab.causal.uncertainty import mean_contrasts, streamed_mean
from carelab.networks import check_evaluation_mode, hidden_neurons
from carelab.properties import violation_scores
from carelab.records import Samples, Unit, UnitEffects

__all__ = [
    "MediatedEffects",
    "class_margin",
    "class_probability",
    "mediated_effects",
    "pair_groups",
]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class MediatedEffects:
    """The effect of changed inputs on an outcome, split into what runs through each unit.

    Args:
        total: mean change of the outcome from the inputs to their counterfactuals.
        total_error: its standard error.
        indirect: natural indirect effects: only the unit learns of the change (units).
        direct: natural direct effects: everything but the unit learns of it (units).
        total_indirect: total minus direct: what is lost if the unit does not learn of it (units).
    """

    total: float
    total_error: float
    indirect: UnitEffects
    direct: UnitEffects
    total_indirect: UnitEffects

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units, in the order of all the effects."""
        return self.indirect.units

    @property
    def samples(self) -> int:
        """How many pairs of inputs the effects come from."""
        return self.indirect.samples


def mediated_effects(
    model: nn.Module,
    inputs: Float[Tensor, "batch ..."],
    counterfactuals: Float[Tensor, "partners ..."],
    outcome: Callable[[Tensor], Tensor],
    *,
    units: Sequence[Unit] | None = None,
    batch_size: int = 32_768,
    progress: bool = False,
) -> MediatedEffects:
    """TE = E[y(x') - y(x)], and through each unit u NIE = E[y(x; u := u(x')) - y(x)].

    With x a row of the inputs, x' its counterfactual, u(x) the unit's value at x:

    * total effect TE = E[y(x') - y(x)];
    * natural direct effect NDE = E[y(x'; u := u(x)) - y(x)], by all other paths;
    * natural indirect effect NIE = E[y(x; u := u(x')) - y(x)], by the unit alone;
    * total indirect effect TE - NDE = E[y(x') - y(x'; u := u(x))].

    Args:
        model: a sequential network in evaluation mode.
        inputs: the rows x (batch, features) or (batch, channels, height, width).
        counterfactuals: x' of each row, of the same shape; see `pair_groups` for two groups.
        outcome: takes logits (rows, classes), returns y (rows): `class_probability(k)`,
            `class_margin(k)` or your own.
        units: neurons, positions, channels or whole layers; by default all hidden neurons.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show bars.

    Returns:
        The effects, in units of y, with the covariances between units.

    Raises:
        ValueError: rows that are not paired, fewer than two, an outcome of another shape, an
            unknown unit, a network in training mode, or one that is not sequential.

    Source: Pearl, Direct and Indirect Effects, UAI 2001; Vig et al., Investigating Gender Bias in
        Language Models Using Causal Mediation Analysis (2020), section 3, for neurons.

    Example:
        >>> import torch
        >>> from carelab import causal, networks
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> chance = causal.class_probability(1)
        >>> parts = causal.mediated_effects(model, torch.rand(9, 3), torch.rand(9, 3), chance)
        >>> len(parts.indirect.effect), parts.direct.covariance.shape
        (4, torch.Size([4, 4]))
    """
    if inputs.shape != counterfactuals.shape:
        raise ValueError(
            f"counterfactuals: got shape {tuple(counterfactuals.shape)} for inputs of "
            f"{tuple(inputs.shape)}; allowed: one counterfactual a row"
        )
    check_evaluation_mode(model)
    chosen = tuple(hidden_neurons(model) if units is None else units)
    prop = _OutcomeScore(outcome=outcome)
    before, after = Samples(inputs=inputs), Samples(inputs=counterfactuals)

    def falls(run: Samples, patch: Samples) -> Iterator[tuple[slice, Tensor]]:
        values = reference_values(model, patch, prop)
        return score_falls(
            model, run, prop, chosen, values, batch_size=batch_size, progress=progress
        )

    indirect = mean_contrasts(
        "natural indirect effect", chosen, (-fall for _, fall in falls(before, after))
    )
    with torch.no_grad():
        changes = violation_scores(model, after, prop) - violation_scores(model, before, prop)
    # The total effect is one more row, so that its covariance with the others is known.
    mean, covariance, _ = streamed_mean(
        torch.cat([fall, changes[None, rows]]) for rows, fall in falls(after, before)
    )
    total_indirect = replace(
        indirect,
        measure="total indirect effect",
        effect=mean[:-1],
        covariance=covariance[:-1, :-1],
    )
    return MediatedEffects(
        total=float(mean[-1]),
        total_error=float(covariance[-1, -1].clamp(min=0).sqrt()),
        indirect=indirect,
        direct=_rest(total_indirect, mean[-1], covariance[-1]),
        total_indirect=total_indirect,
    )


def pair_groups(
    first: Float[Tensor, "first ..."],
    second: Float[Tensor, "second ..."],
    *,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "pairs ..."], Float[Tensor, "pairs ..."]]:
    """Rows of two groups in random pairs, each row in one pair at most.

    There are as many pairs as the smaller group has rows. Pairs that share no row are independent,
    so that the errors of effects over them are right.

    Args:
        first: rows of one group.
        second: rows of the other, of the same width.
        generator: draws the pairs.

    Returns:
        The rows of the first group and, in the same order, their partners.

    Raises:
        ValueError: an empty group, or groups whose rows have another shape.

    Example:
        >>> import torch
        >>> from carelab import causal
        >>> draws = torch.Generator().manual_seed(0)
        >>> men, women = causal.pair_groups(torch.rand(5, 3), torch.rand(8, 3), generator=draws)
        >>> men.shape, women.shape
        (torch.Size([5, 3]), torch.Size([5, 3]))
    """
    if len(first) == 0 or len(second) == 0 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"first, second: got shapes {tuple(first.shape)} and {tuple(second.shape)}; allowed: "
            "at least one row each, of the same shape"
        )
    pairs = min(len(first), len(second))
    one, two = (
        group[torch.randperm(len(group), generator=generator)[:pairs].to(group.device)]
        for group in (first, second)
    )
    return one, two


def class_probability(index: int) -> Callable[[Tensor], Tensor]:
    """Softmax probability of a class, as an outcome of `mediated_effects`.

    Args:
        index: the class, from 0.

    Returns:
        A function of logits (rows, classes) to probabilities (rows).

    Raises:
        ValueError: a negative class, or, when called, one beyond the logits.

    Example:
        >>> import torch
        >>> from carelab import causal
        >>> causal.class_probability(1)(torch.zeros(1, 4)).tolist()
        [0.25]
    """
    _check_class(index)

    def probability(outputs: Tensor) -> Tensor:
        _check_class(index, outputs)
        return outputs.softmax(dim=-1)[..., index]

    return probability


def class_margin(index: int) -> Callable[[Tensor], Tensor]:
    """Logit of a class minus the largest other logit, as an outcome of `mediated_effects`.

    Args:
        index: the class, from 0.

    Returns:
        A function of logits (rows, classes) to margins (rows), positive where the class wins.

    Raises:
        ValueError: a negative class, or, when called, one beyond the logits, or no other class.

    Example:
        >>> import torch
        >>> from carelab import causal
        >>> causal.class_margin(0)(torch.tensor([[3.0, 1.0, 2.0]])).tolist()
        [1.0]
    """
    _check_class(index)

    def margin(outputs: Tensor) -> Tensor:
        _check_class(index, outputs)
        if outputs.shape[-1] < 2:
            raise ValueError("outputs: got one class, which has no margin; allowed: at least two")
        others = torch.cat([outputs[..., :index], outputs[..., index + 1 :]], dim=-1)
        return outputs[..., index] - others.amax(dim=-1)

    return margin


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _OutcomeScore:
    """An outcome as the score of a property with one probe, for the engine that runs these."""

    outcome: Callable[[Tensor], Tensor]
    name: str = "outcome"

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "1 batch ..."]:
        return inputs[None]

    def score(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        rows = outputs.flatten(0, -2)
        found = self.outcome(rows)
        if found.shape != rows.shape[:1]:
            raise ValueError(
                f"outcome: returned shape {tuple(found.shape)} for logits {tuple(rows.shape)}; "
                "allowed: one number a row"
            )
        return found.reshape(*outputs.shape[:-3], outputs.shape[-2])

    def margin(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return -self.score(outputs, samples)

    def rate(
        self, outputs: Float[Tensor, "*runs 1 batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        return (self.margin(outputs, samples) < 0).to(outputs.dtype).mean(dim=-1)


def _rest(
    part: UnitEffects, total: Float[Tensor, ""], shared: Float[Tensor, " units_1"]
) -> UnitEffects:
    """Total minus part, the covariance of total with every part being known."""
    own = shared[:-1]
    return replace(
        part,
        measure="natural direct effect",
        effect=total - part.effect,
        covariance=shared[-1] - own[:, None] - own[None, :] + part.covariance,
    )


def _check_class(index: int, outputs: Tensor | None = None) -> None:
    classes = None if outputs is None else outputs.shape[-1]
    if index < 0 or (classes is not None and index >= classes):
        allowed = "0 or more" if classes is None else f"0 to {classes - 1}"
        raise ValueError(f"index: got class {index}; allowed: {allowed}")
