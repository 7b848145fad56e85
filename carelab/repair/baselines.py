"""The trivial repairs that every other one has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from fairlearn.reductions import EqualizedOdds, ExponentiatedGradient
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from carelab.networks import accuracy, ordered_modules
from carelab.properties import IndividualFairness
from carelab.records import Dataset, Feature, Samples

__all__ = ["fairlearn_reduction", "hold_constant", "retrain_without"]


def hold_constant(model: nn.Module, samples: Samples, prop: IndividualFairness) -> nn.Module:
    """A copy of the network that reads a constant where the sensitive feature was.

    With W, b the first layer and c the constant: b := b + W[:, sensitive] c, W[:, sensitive] := 0.
    The label then cannot depend on the sensitive feature: every unfair rate is exactly 0. Of the
    property's values the constant that keeps most accuracy on the samples is taken.

    Args:
        model: a sequential network that begins with a linear layer; it is not changed.
        samples: labelled rows that choose the constant; never test rows.
        prop: individual fairness of the sensitive feature.

    Raises:
        ValueError: the network does not begin with a linear layer, or reads too few features.

    Source: none: the baseline that CARE's evaluation leaves out.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> blind = cl.repair.hold_constant(model, table.train, fair)
        >>> cl.properties.violation_rate(blind, table.test, fair)
        0.0
    """
    first, layer = ordered_modules(model)[0]
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"model: begins with {type(layer).__name__}; allowed: a linear layer first, "
            "into whose bias the constant can be folded"
        )
    if max(prop.columns) >= layer.in_features:
        raise ValueError(
            f"model: takes {layer.in_features} features; the property reads column "
            f"{max(prop.columns)}"
        )
    variants = []
    for value in prop.values:
        variant = deepcopy(model)
        held = variant.get_submodule(first)
        assert isinstance(held, nn.Linear)
        columns = list(prop.columns)
        with torch.no_grad():
            # In double precision: the fold itself must not cost accuracy.
            constant = held.weight[:, columns].double() @ value.to(held.weight.device).double()
            if held.bias is None:
                held.bias = nn.Parameter(constant.to(held.weight))
            else:
                held.bias.copy_((held.bias.double() + constant).to(held.weight))
            held.weight[:, columns] = 0
        variants.append(variant)
    return max(variants, key=lambda variant: accuracy(variant, samples))


def retrain_without(
    dataset: Dataset, prop: IndividualFairness, train: Callable[[Dataset], nn.Module]
) -> nn.Module:
    """A network trained anew that never sees the sensitive columns: they read 0 throughout.

    Args:
        dataset: the data set.
        prop: individual fairness of the sensitive feature.
        train: trains a network that begins with a linear layer on a data set.

    Returns:
        The trained network, its weights of the sensitive columns exactly 0.

    Source: "fairness through unawareness": Dwork et al., ITCS 2012, discuss its limits.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> start = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> blind = cl.repair.retrain_without(
        ...     table, fair, lambda hidden: cl.networks.fit(start, hidden.train, generator=g))
    """
    columns = list(prop.columns)

    def without(samples: Samples) -> Samples:
        inputs = samples.inputs.clone()
        inputs[:, columns] = 0
        return Samples(inputs=inputs, labels=samples.labels)

    hidden = replace(
        dataset,
        train=without(dataset.train),
        selection=without(dataset.selection),
        test=without(dataset.test),
    )
    trained = train(hidden)
    layer = ordered_modules(trained)[0][1]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight[:, columns] = 0
    return trained


def fairlearn_reduction(
    train: Samples,
    feature: Feature,
    estimator: BaseEstimator,
    *,
    tolerance: float = 0.02,
    iterations: int = 12,
) -> Callable[[Float[Tensor, "batch features"]], Int[Tensor, " batch"]]:
    """Labels of fairlearn's exponentiated-gradient reduction under equalised odds.

    It trains new classifiers on all columns, the sensitive one among them, whose error rates
    together are about the same in every group. What it returns is a random choice among them;
    here the more likely label is taken, so that equal inputs always get equal labels.

    Args:
        train: labelled training rows, two classes.
        feature: the sensitive feature, whose values are the groups.
        estimator: a scikit-learn classifier that takes sample weights; it is not changed.
        tolerance: allowed difference of the groups' error rates, as a fraction.
        iterations: classifiers trained at most.

    Returns:
        A function from inputs to labels; no network, so no neuron of it can be edited.

    Raises:
        ValueError: rows without labels.

    Source: Agarwal et al., ICML 2018; fairlearn.

    Example:
        >>> import torch, carelab as cl
        >>> from sklearn.linear_model import LogisticRegression
        >>> table = cl.data.embedded_census(rows=400, generator=torch.Generator().manual_seed(0))
        >>> label = cl.repair.fairlearn_reduction(
        ...     table.train, table.feature("sex"), LogisticRegression(max_iter=500), iterations=2)
        >>> label(table.test.inputs[:3]).shape
        torch.Size([3])
    """
    if train.labels is None:
        raise ValueError("train: got no labels; allowed: labelled samples")
    groups = train.inputs[:, list(feature.columns)].unique(dim=0, return_inverse=True)[1]
    # Columns of one scale: a linear model would otherwise stop before it has converged.
    scaler = StandardScaler().fit(_rows(train.inputs))
    reduction = ExponentiatedGradient(
        estimator, EqualizedOdds(difference_bound=tolerance), max_iter=iterations
    )
    with warnings.catch_warnings():
        # fairlearn 0.15 writes to a pandas series in a way that pandas 4 will no longer allow.
        warnings.simplefilter("ignore", DeprecationWarning)
        reduction.fit(
            scaler.transform(_rows(train.inputs)),
            train.labels.numpy(),
            sensitive_features=groups.numpy(),
        )

    def label(inputs: Tensor) -> Tensor:
        chance = np.asarray(reduction._pmf_predict(scaler.transform(_rows(inputs))))
        return torch.from_numpy(chance.argmax(axis=1))

    return label


def _rows(inputs: Float[Tensor, "batch features"]) -> np.ndarray:
    return inputs.double().cpu().numpy()
