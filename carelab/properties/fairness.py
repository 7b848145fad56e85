"""Individual fairness: the label must not depend on a sensitive feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.records import Dataset, Feature, Samples

__all__ = ["IndividualFairness", "individual_fairness"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class IndividualFairness:
    """The label of x stays the same whatever value the sensitive feature is given.

    With x_s = x in which the sensitive columns are set to s, and N the softmax probabilities:

    * score: y(x) = max over s and classes of |N(x) - N(x_s)|, in [0, 1];
    * margin: min over s of (logit of x's label at x_s - the largest other logit there);
    * rate: fraction of samples whose label flips for at least one s.

    Several sensitive features at once are their columns together with all their joint values.

    Args:
        columns: input columns of the sensitive feature or features.
        values: what these columns are set to, one joint value a row (values, columns).
        name: what the property is called.

    Source: CARE, section 4.1; the original takes the probability of one class, which for two
        classes is the same.

    Example:
        >>> import torch
        >>> from carelab.properties import IndividualFairness
        >>> fair = IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> fair.probes(torch.tensor([[5.0, 0.0]])).tolist()
        [[[5.0, 0.0]], [[5.0, 0.0]], [[5.0, 1.0]]]
    """

    columns: tuple[int, ...]
    values: Float[Tensor, "values columns"]
    name: str = "individual fairness"

    def __post_init__(self) -> None:
        """Refuses columns without values, and values that cannot differ."""
        if not self.columns or self.values.shape[1] != len(self.columns):
            raise ValueError(
                f"values: got {self.values.shape[1]} columns for {len(self.columns)} sensitive "
                "columns; allowed: at least one sensitive column and one value for each"
            )
        if len(self.values) < 2:
            raise ValueError(
                f"values: got {len(self.values)}; allowed: at least two, or nothing can flip"
            )

    def probes(
        self, inputs: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "probes batch features"]:
        """The inputs themselves, then once with each value of the sensitive columns."""
        highest = max(self.columns)
        if highest >= inputs.shape[1] or min(self.columns) < 0:
            raise ValueError(
                f"inputs: got {inputs.shape[1]} features; {self.name} reads column {highest}, "
                "so more are needed"
            )
        probes = inputs.repeat(len(self.values) + 1, 1, 1)
        values = self.values.to(inputs)
        probes[1:, :, list(self.columns)] = values[:, None, :]
        return probes

    def score(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Largest change of a class probability over the sensitive values."""
        if outputs.shape[-1] == 2:  # half the exponentials, and both classes change alike
            chance = torch.sigmoid(outputs[..., 1] - outputs[..., 0])
            own = chance[..., 0, :]
            return torch.maximum(chance.amax(dim=-2) - own, own - chance.amin(dim=-2))
        chance = outputs.softmax(dim=-1)
        return (chance[..., 1:, :, :] - chance[..., :1, :, :]).abs().amax(dim=(-3, -1))

    def margin(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """Smallest lead, over the sensitive values, of the label that x itself gets."""
        label = outputs[..., :1, :, :].argmax(dim=-1, keepdim=True)
        label = label.expand(*outputs.shape[:-1], 1)
        own = outputs.gather(-1, label)
        others = outputs.scatter(-1, label, -torch.inf).amax(dim=-1, keepdim=True)
        return (own - others).squeeze(-1).amin(dim=-2)

    def rate(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        """Fraction of samples whose label flips."""
        label = outputs.argmax(dim=-1)
        flips = (label[..., 1:, :] != label[..., :1, :]).any(dim=-2)
        return flips.to(outputs.dtype).mean(dim=-1)


def individual_fairness(
    dataset: Dataset, names: str | Sequence[str], *, most_values: int = 16
) -> IndividualFairness:
    """Individual fairness of one or several features, with the values that the data show.

    A feature's values are the distinct ones among the training rows. Where a feature has more
    than `most_values` of them, evenly spaced ones stand for all, smallest and largest included.

    Args:
        dataset: the data set.
        names: the sensitive feature, or several that may change at once.
        most_values: at most so many values a feature, at least 2.

    Raises:
        ValueError: an unknown or repeated feature, none, or one that never varies in the data.

    Example:
        >>> import torch
        >>> from carelab import data, properties
        >>> census = data.embedded_census(generator=torch.Generator().manual_seed(0))
        >>> len(properties.individual_fairness(census, "sex").values)
        2
    """
    chosen = [names] if isinstance(names, str) else list(names)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"names: got {chosen}; allowed: at least one feature, each once")
    if most_values < 2:
        raise ValueError(f"most_values: got {most_values}; allowed: 2 or more")
    features = [dataset.feature(name) for name in chosen]
    observed = [_observed_values(dataset, feature, most_values) for feature in features]
    joint = [torch.cat(values) for values in product(*observed)]
    return IndividualFairness(
        columns=tuple(column for feature in features for column in feature.columns),
        values=torch.stack(joint),
        name=f"individual fairness ({', '.join(chosen)})",
    )


def _observed_values(
    dataset: Dataset, feature: Feature, most: int
) -> Float[Tensor, "values columns"]:
    values = dataset.train.inputs[:, list(feature.columns)].unique(dim=0)
    if len(values) < 2:
        raise ValueError(
            f"names: feature {feature.name!r} has one value in all training rows of "
            f"{dataset.name}; allowed: a feature that varies"
        )
    if len(values) > most:
        kept = torch.linspace(0, len(values) - 1, most).round().long()
        values = values[kept]
    return values
