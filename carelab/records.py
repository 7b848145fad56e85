"""The frozen records that travel between the floors of the package."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "CausalEffects",
    "Dataset",
    "Edit",
    "Evidence",
    "Feature",
    "Interval",
    "Neuron",
    "Performance",
    "Ranking",
    "Repair",
    "Samples",
    "Unit",
    "UnitEffects",
    "WholeLayer",
]


@dataclass(frozen=True, order=True, slots=True)
class Neuron:
    """One hidden unit: an index into the output of a named module.

    The module decides what is meant: a ``Linear`` layer's output is the
    pre-activation, the output of the activation after it the post-activation.
    In a feature map the index alone is a whole channel; with a position it is
    the one number at that row and column. Neurons compare and hash by value,
    so that they can be keys.

    Args:
        layer: name of the module, as in ``model.named_modules()``.
        index: position along the neuron axis (axis 1) of its output, from 0.
        position: position along the axes after it (height, width), or empty: all of them.

    Example:
        >>> from carelab.records import Neuron
        >>> str(Neuron("relu1", 3)), str(Neuron("relu1", 3, (0, 5)))
        ('relu1[3]', 'relu1[3, 0, 5]')
    """

    layer: str
    index: int
    position: tuple[int, ...] = ()

    @property
    def place(self) -> tuple[int, ...]:
        """Where the unit stands in the output of its layer, after the batch axis."""
        return (self.index, *self.position)

    def __str__(self) -> str:
        """The neuron as plots and messages write it."""
        return f"{self.layer}[{', '.join(str(number) for number in self.place)}]"


@dataclass(frozen=True, order=True, slots=True)
class WholeLayer:
    """All neurons of a layer as one unit, to be replaced together.

    Args:
        layer: name of the module, as in ``model.named_modules()``.

    Example:
        >>> from carelab.records import WholeLayer
        >>> str(WholeLayer("relu1")), WholeLayer("relu1").place
        ('relu1', ())
    """

    layer: str

    @property
    def place(self) -> tuple[int, ...]:
        """Where the unit stands in the output of its layer, after the batch axis: everywhere."""
        return ()

    def __str__(self) -> str:
        """The layer as plots and messages write it."""
        return self.layer


Unit = Neuron | WholeLayer


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Samples:
    """Rows of inputs, with their labels where they are known.

    Args:
        inputs: one row per sample (batch, features) or image (batch, channels, height, width).
        labels: the true class of each row, or None where no truth exists (drawn inputs).
    """

    inputs: Float[Tensor, "batch ..."]
    labels: Int[Tensor, " batch"] | None = None

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.inputs)

    def take(self, rows: Tensor | slice) -> Samples:
        """The samples at the given rows (indices, a mask or a slice)."""
        return Samples(
            inputs=self.inputs[rows], labels=None if self.labels is None else self.labels[rows]
        )

    def joined(self, others: Samples) -> Samples:
        """These samples, then the others; with labels where both have them."""
        labels = None
        if self.labels is not None and others.labels is not None:
            labels = torch.cat([self.labels, others.labels])
        return Samples(inputs=torch.cat([self.inputs, others.inputs]), labels=labels)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Evidence:
    """What a localiser may look at: inputs that misbehave, and inputs to compare them with.

    Args:
        violating: inputs that show the fault.
        references: row by row the same inputs without the fault's cause: with another value of
            the sensitive feature, without the trigger, moved out of the unsafe box.
        passing: inputs that behave as they should, drawn as the data are; no row belongs to
            another.
    """

    violating: Samples
    references: Samples
    passing: Samples

    def __post_init__(self) -> None:
        """Refuses references that do not pair with the violating inputs, and empty parts."""
        if len(self.violating) != len(self.references):
            raise ValueError(
                f"references: got {len(self.references)} for {len(self.violating)} violating "
                "samples; allowed: one for each, row by row"
            )
        if len(self.violating) == 0 or len(self.passing) == 0:
            raise ValueError(
                f"violating, passing: got {len(self.violating)} and {len(self.passing)} samples; "
                "allowed: at least one of each"
            )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Feature:
    """One feature of a table, as the network sees it.

    Args:
        name: the name in the table, such as "age".
        columns: the input columns that code it: one, or several for a one-hot code.
        values: the values it can take, one a row (values, columns).
        continuous: every number between the smallest and the largest value is possible too.
        labels: what each row of `values` means, or empty.
    """

    name: str
    columns: tuple[int, ...]
    values: Float[Tensor, "values columns"]
    continuous: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Dataset:
    """A data set in three disjoint parts, with its provenance.

    Args:
        name: its name in the registry, such as "adf-census".
        source: the official address, or "generated by carelab".
        sha256: checksum of the file (or of the generated table) that was used.
        licence: the licence its source states.
        classes: what each label means.
        train: rows for training and for repair.
        selection: rows for choosing (layers, counts, early stopping); never for measuring.
        test: rows for measuring; no training, choice or repair sees them.
        features: the features in order, which together cover every input column once; images
            have none.
        sensitive: names of the features that must not decide.
    """

    name: str
    source: str
    sha256: str
    licence: str
    classes: tuple[str, ...]
    train: Samples
    selection: Samples
    test: Samples
    features: tuple[Feature, ...] = ()
    sensitive: tuple[str, ...] = ()

    def feature(self, name: str) -> Feature:
        """The feature of that name; a ValueError lists the known names."""
        for feature in self.features:
            if feature.name == name:
                return feature
        known = ", ".join(feature.name for feature in self.features)
        raise ValueError(
            f"name: got {name!r}, which is no feature of {self.name}; allowed: {known}"
        )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CausalEffects:
    """Interventional expectations of many neurons, with the covariances behind their errors.

    For neuron i and step s, ``expectation[i, s]`` = E[y | do(neuron_i = values[i, s])] over the
    samples. The last row and column of ``covariance`` belong to the outcome without intervention,
    so the standard error of any contrast of a neuron's curve with itself or with the untouched
    network is exact: sqrt(c' C c / n).

    Args:
        neurons: the neurons, in the order of the first axis everywhere below.
        values: the values set by do() (neurons, steps).
        expectation: mean outcome under each (neurons, steps).
        unmodified: mean outcome without intervention.
        covariance: sample covariance of the outcomes (neurons, steps + 1, steps + 1).
        mean_covariance: covariance of the neurons' mean changes, already divided by the number
            of samples (neurons, neurons); the mean change of a neuron is the mean of its row of
            `expectation` minus `unmodified`.
        samples: how many samples the means run over.
    """

    neurons: tuple[Neuron, ...]
    values: Float[Tensor, "neurons steps"]
    expectation: Float[Tensor, "neurons steps"]
    unmodified: float
    covariance: Float[Tensor, "neurons steps_1 steps_1"]
    mean_covariance: Float[Tensor, "neurons neurons"]
    samples: int


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class UnitEffects:
    """One number for each unit, estimated from samples, with the covariance of the estimates.

    Args:
        measure: what the numbers are, such as "indirect effect" or "gradient x activation".
        units: the units, in the order of every axis below.
        effect: the estimates (units).
        covariance: covariance of the estimates themselves, already divided by the number of
            samples (units, units); zero where a number does not come from samples.
        samples: how many samples the estimates come from.
    """

    measure: str
    units: tuple[Unit, ...]
    effect: Float[Tensor, " units"]
    covariance: Float[Tensor, "units units"]
    samples: int

    @property
    def standard_error(self) -> Float[Tensor, " units"]:
        """Standard error of each estimate, in units of the effect."""
        return self.covariance.diagonal().clamp(min=0).sqrt()


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Ranking:
    """Units in the order of their guilt, and which of them cannot be told apart.

    Args:
        measure: what they were ranked by.
        units: the units, most guilty first.
        guilt: the number of each (units).
        standard_error: its standard error (units).
        first: the best rank that the samples allow each unit, from 1 (units).
        last: the worst rank that they allow it (units); equal to `first` where the place is sure.
        level: confidence of each comparison of two units, or of each unit's set of ranks, as
            `causal.rank_units` was asked for.
    """

    measure: str
    units: tuple[Unit, ...]
    guilt: Float[Tensor, " units"]
    standard_error: Float[Tensor, " units"]
    first: Int[Tensor, " units"]
    last: Int[Tensor, " units"]
    level: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Interval:
    """A mean over seeds with its 95 % interval.

    Args:
        mean: mean of the values.
        low: lower end of the interval.
        high: upper end of the interval.
        n: how many values the mean runs over.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """How a network does: on the task, and on the property.

    Args:
        accuracy: fraction of the labelled samples classified right.
        violation_rate: fraction of the given counterexamples that violate the property.
    """

    accuracy: float
    violation_rate: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Edit:
    """Slices of one parameter that a repair overwrote.

    Args:
        parameter: its name, as in ``model.named_parameters()``.
        axis: the axis that `indices` count along.
        indices: the slices that changed.
        before: the old slices, bit for bit; `indices` run along `axis`.
        after: the new ones, of the same shape.
    """

    parameter: str
    axis: int
    indices: tuple[int, ...]
    before: Float[Tensor, "*slices"]
    after: Float[Tensor, "*slices"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Repair:
    """What a repair changed, enough to apply it again and to undo it bit for bit.

    Args:
        method: name of the repair, such as "care".
        property_name: name of the property that was repaired.
        neurons: the guilty neurons.
        factors: the factor of each (neurons), or none where the repair is no scaling.
        before: performance of the network given, on the repair's own data.
        after: performance of the repaired network, on the same data.
        history: best cost after each iteration of the search (iterations).
        seconds: wall time of the search.
        seed: initial seed of the generator that drove it.
        network: sha256 of the given network's weights (`networks.fingerprint`).
        repaired: sha256 of the repaired network's weights.
        edits: the weights that were overwritten, old and new.
        status: "improved", or "unchanged" where the search found nothing better.
    """

    method: str
    property_name: str
    neurons: tuple[Neuron, ...]
    factors: Float[Tensor, " factors"]
    before: Performance
    after: Performance
    history: Float[Tensor, " iterations"]
    seconds: float
    seed: int
    network: str
    repaired: str
    edits: tuple[Edit, ...] = field(repr=False)
    status: str

    @property
    def drawdown(self) -> float:
        """Accuracy before minus accuracy after, as a fraction; positive is worse."""
        return self.before.accuracy - self.after.accuracy
