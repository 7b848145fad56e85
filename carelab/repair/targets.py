"""What the network would say if it could not see the sensitive feature: targets of a repair."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from carelab.networks import check_inputs, logits
from carelab.properties import IndividualFairness
from carelab.records import Samples

__all__ = ["blind_targets"]


def blind_targets(
    model: nn.Module, train: Samples, prop: IndividualFairness, *, generator: torch.Generator
) -> Callable[[Float[Tensor, "batch features"]], Float[Tensor, "batch classes"]]:
    """Class probabilities sum over s of P(s | x without s) N(x_s), the same for every s.

    Among all functions that do not read the sensitive feature s, this is the one closest to the
    network in expected squared error: what the network knows, with s averaged out. P(s | rest)
    is learned from the training rows by gradient-boosted trees. Where other features tell s
    (a wife is a woman), so do the targets: they are individually fair, but no cure for proxies,
    which is why group measures belong beside every result.

    Args:
        model: the network, in evaluation mode.
        train: rows from which P(s | rest) is learned; never test rows.
        prop: the property: sensitive columns and their values.
        generator: seeds the trees.

    Returns:
        A function from inputs to probabilities.

    Raises:
        ValueError: no row, or inputs of the wrong width.

    Source: ours; the conditional mean is the usual best predictor in squared error.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> targets = cl.repair.blind_targets(model, table.train, fair, generator=g)
        >>> targets(table.test.inputs[:3]).shape
        torch.Size([3, 2])
    """
    if len(train) == 0:
        raise ValueError("train: got no row; allowed: at least one")
    check_inputs(model, train.inputs)
    columns = list(prop.columns)
    others = [number for number in range(train.inputs.shape[1]) if number not in columns]
    observed = _nearest_value(train.inputs[:, columns], prop.values)
    trees = HistGradientBoostingClassifier(
        max_iter=40,
        # Early stopping would split off rows class by class, and a rare value has one row alone.
        early_stopping=False,
        random_state=int(torch.randint(2**31, (), generator=generator)),
    )
    several = len(observed.unique()) > 1
    if several:
        trees.fit(train.inputs[:, others].double().cpu().numpy(), observed.cpu().numpy())

    def targets(inputs: Tensor) -> Tensor:
        chances = torch.zeros(len(inputs), len(prop.values), dtype=inputs.dtype)
        if several:
            predicted = trees.predict_proba(inputs[:, others].double().cpu().numpy())
            chances[:, trees.classes_] = torch.from_numpy(predicted).to(chances)
        else:
            chances[:, observed[0]] = 1
        probes = prop.probes(inputs)[1:]
        outputs = logits(model, probes.flatten(0, 1)).unflatten(0, probes.shape[:2])
        return torch.einsum("bs,sbc->bc", chances.to(outputs), outputs.softmax(dim=-1))

    return targets


def _nearest_value(
    shown: Float[Tensor, "batch columns"], values: Float[Tensor, "values columns"]
) -> Int[Tensor, " batch"]:
    """Which of the property's values stands for what each row shows."""
    return torch.cdist(shown.double(), values.to(shown).double()).argmin(dim=1)
