"""Group fairness: demographic parity and equalised odds, measured by fairlearn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from jaxtyping import Bool, Float, Int
from torch import Tensor

from carelab.records import Feature, Samples

__all__ = ["GroupFairness", "demographic_parity", "equalized_odds"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GroupFairness:
    """Groups of a sensitive feature get the positive label at the same rate.

    With g(x) the group of x, y its label and p(x) the probability of class 1:

    * score: weight[g(x), y] p(x); its mean over the samples the weights were made from is the
      signed gap between the favoured and the unfavoured group, so that the score tells how much
      each sample adds to the gap (negative where it narrows it);
    * margin: tolerance - score; the mean margin is negative when the gap exceeds the tolerance;
    * rate: fairlearn's difference, on the predicted labels, over all groups.

    Args:
        columns: input columns of the sensitive feature.
        groups: its values, one group a row; a row of a table belongs to the nearest.
        weights: what a sample of each group and label counts in the signed gap (groups, labels).
        compared: the groups that the rate compares; the others lack a label it needs.
        difference: fairlearn's metric for the rate.
        tolerance: gap that is still accepted, as a fraction.
        name: what the property is called.
    """

    columns: tuple[int, ...]
    groups: Float[Tensor, "groups columns"]
    weights: Float[Tensor, "groups labels"]
    compared: Bool[Tensor, " groups"]
    difference: Callable[..., float]
    tolerance: float
    name: str

    def probes(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "1 batch features"]:
        """The inputs themselves."""
        return inputs.unsqueeze(0)

    def score(
        self, outputs: Float[Tensor, "*runs 1 batch 2"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """What each sample adds to the signed gap between the groups."""
        group, label = _membership(samples, self.columns, self.groups)
        weight = self.weights.to(outputs)[group, label]
        return weight * torch.sigmoid(outputs[..., 0, :, 1] - outputs[..., 0, :, 0])

    def margin(
        self, outputs: Float[Tensor, "*runs 1 batch 2"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """The tolerance minus what each sample adds to the gap."""
        return self.tolerance - self.score(outputs, samples)

    def rate(
        self, outputs: Float[Tensor, "*runs 1 batch 2"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        """Fairlearn's difference between the compared groups, on the predicted labels."""
        group, label = _membership(samples, self.columns, self.groups)
        rows = self.compared.to(group.device)[group]
        truth, groups = label[rows].cpu().numpy(), group[rows].cpu().numpy()
        predictions = outputs.argmax(dim=-1).squeeze(-2)[..., rows]
        gaps = [
            self.difference(truth, prediction.cpu().numpy(), sensitive_features=groups)
            for prediction in predictions.reshape(-1, predictions.shape[-1])
        ]
        return outputs.new_tensor(gaps).reshape(predictions.shape[:-1])


def demographic_parity(
    samples: Samples, feature: Feature, *, tolerance: float = 0.05
) -> GroupFairness:
    """Demographic parity: P(label 1 | group) is the same for every group.

    The favoured and the unfavoured group are those with the highest and the lowest share of
    label 1 in the samples.

    Args:
        samples: labelled rows that give the groups' sizes.
        feature: the sensitive feature.
        tolerance: gap that is still accepted, as a fraction.

    Raises:
        ValueError: samples without labels, labels other than 0 and 1, or fewer than two groups.

    Source: ``fairlearn.metrics.demographic_parity_difference``.

    Example:
        >>> import torch
        >>> from carelab import data, properties
        >>> census = data.embedded_census(generator=torch.Generator().manual_seed(0))
        >>> properties.demographic_parity(census.train, census.feature("sex")).name
        'demographic parity (sex)'
    """
    shares = _shares(samples, feature)
    compared = shares.sum(dim=1) > 0
    favoured, unfavoured = _furthest_apart(shares, compared, feature)
    weights = torch.zeros_like(shares)
    weights[favoured] = 1 / shares[favoured].sum()
    weights[unfavoured] = -1 / shares[unfavoured].sum()
    return GroupFairness(
        columns=feature.columns,
        groups=feature.values,
        weights=weights,
        compared=compared,
        difference=demographic_parity_difference,
        tolerance=tolerance,
        name=f"demographic parity ({feature.name})",
    )


def equalized_odds(samples: Samples, feature: Feature, *, tolerance: float = 0.05) -> GroupFairness:
    """Equalised odds: P(predicted 1 | label, group) is the same for every group.

    The score's mean is the average of the true-positive-rate gap and the false-positive-rate
    gap; the rate is fairlearn's, the larger of the two.

    Args:
        samples: labelled rows that give the sizes of the groups.
        feature: the sensitive feature.
        tolerance: gap that is still accepted, as a fraction.

    Raises:
        ValueError: samples without labels, labels other than 0 and 1, or fewer than two groups
            in which both labels occur; groups that lack a label are left out.

    Source: ``fairlearn.metrics.equalized_odds_difference``.

    Example:
        >>> import torch
        >>> from carelab import data, properties
        >>> census = data.embedded_census(generator=torch.Generator().manual_seed(0))
        >>> properties.equalized_odds(census.train, census.feature("sex")).name
        'equalised odds (sex)'
    """
    shares = _shares(samples, feature)
    compared = (shares > 0).all(dim=1)
    favoured, unfavoured = _furthest_apart(shares, compared, feature)
    weights = torch.zeros_like(shares)
    weights[favoured] = 0.5 / shares[favoured]
    weights[unfavoured] = -0.5 / shares[unfavoured]
    return GroupFairness(
        columns=feature.columns,
        groups=feature.values,
        weights=weights,
        compared=compared,
        difference=equalized_odds_difference,
        tolerance=tolerance,
        name=f"equalised odds ({feature.name})",
    )


def _membership(
    samples: Samples, columns: tuple[int, ...], groups: Float[Tensor, "groups columns"]
) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
    if samples.labels is None:
        raise ValueError("samples: got no labels; allowed: labelled samples, for group fairness")
    values = samples.inputs[:, list(columns)]
    group = torch.cdist(values, groups.to(values)).argmin(dim=1)
    return group, samples.labels


def _shares(samples: Samples, feature: Feature) -> Float[Tensor, "groups 2"]:
    """Share of the samples with each group and label."""
    group, label = _membership(samples, feature.columns, feature.values)
    if int(label.min()) < 0 or int(label.max()) > 1:
        raise ValueError(
            f"samples: got labels {sorted(set(label.tolist()))}; allowed: 0 and 1, for group "
            "fairness"
        )
    counts = torch.zeros(len(feature.values), 2, dtype=samples.inputs.dtype)
    counts.index_put_((group, label), torch.ones(len(label), dtype=counts.dtype), accumulate=True)
    return counts / len(label)


def _furthest_apart(
    shares: Float[Tensor, "groups 2"], compared: Bool[Tensor, " groups"], feature: Feature
) -> tuple[int, int]:
    """The compared groups with the highest and the lowest share of label 1."""
    candidates = compared.nonzero().flatten().tolist()
    if len(candidates) < 2:
        raise ValueError(
            f"samples: got {len(candidates)} group of {feature.name!r} that can be compared; "
            "allowed: at least two, in which every label needed occurs"
        )
    positive = {group: float(shares[group, 1] / shares[group].sum()) for group in candidates}
    favoured = max(candidates, key=positive.__getitem__)
    unfavoured = min((group for group in candidates if group != favoured), key=positive.__getitem__)
    return favoured, unfavoured
