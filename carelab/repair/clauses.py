"""What the outputs for each of several inputs have to meet: every clause, by one of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from carelab.proof import AffineChain, rounding_margins
from carelab.properties import OutputRegion, OutputRegions

__all__ = ["Clauses", "certainly", "label_clauses", "safe_clauses"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Clauses:
    """The outputs y for an input are right if in every clause some row . y > limit.

    An unsafe polytope is one clause (some row keeps the outputs out of it); a label is as many
    clauses as there are other classes, of one row each. A limit of inf is never passed, which
    fills up clauses of fewer rows; a limit of -inf always is.

    Args:
        rows: output coefficients (batch, clauses, rows, outputs), float64.
        limits: what each row has to be above (batch, clauses, rows), float64.

    Raises:
        ValueError: no clause, or one without rows.
    """

    rows: Float[Tensor, "batch clauses rows outputs"]
    limits: Float[Tensor, "batch clauses rows"]

    def __post_init__(self) -> None:
        """Refuses inputs that nothing is asked of, and clauses that nothing can meet."""
        if 0 in self.rows.shape[1:]:
            raise ValueError(
                f"rows: got shape {tuple(self.rows.shape)}; allowed: at least one clause, row and "
                "output"
            )

    def __len__(self) -> int:
        """For how many inputs there are clauses."""
        return len(self.rows)

    def take(self, inputs: Tensor | slice) -> Clauses:
        """The clauses of some of the inputs (indices, a mask or a slice)."""
        return Clauses(rows=self.rows[inputs], limits=self.limits[inputs])

    def margin(self, outputs: Float[Tensor, "batch outputs"]) -> Float[Tensor, " batch"]:
        """Smallest over clauses of the largest row . y - limit; above 0 where y is right."""
        held = torch.einsum("bcro,bo->bcr", self.rows, outputs.to(self.rows)) - self.limits
        return held.amax(dim=2).amin(dim=1)


def safe_clauses(
    prop: OutputRegion | OutputRegions, inputs: Float[Tensor, "batch features"]
) -> Clauses:
    """What a safety property asks of each input: out of every polytope whose box holds the input.

    Args:
        prop: the property.
        inputs: the inputs (batch, features); of one outside the box of a polytope, that polytope
            asks nothing.

    Returns:
        One clause for each polytope, on the inputs' device.

    Example:
        >>> import torch
        >>> from carelab import repair
        >>> from carelab.properties import never_lowest
        >>> repair.safe_clauses(never_lowest(0, 3), torch.zeros(7, 2)).rows.shape
        torch.Size([7, 1, 2, 3])
    """
    regions = prop.regions if isinstance(prop, OutputRegions) else (prop,)
    rows = pad_sequence([region.matrix.double() for region in regions], batch_first=True)
    limits = pad_sequence(
        [region.limits.double() for region in regions], batch_first=True, padding_value=torch.inf
    )
    asked = torch.stack([region.inside(inputs.double()) for region in regions], dim=1)
    return Clauses(
        rows=rows.to(inputs.device).expand(len(inputs), -1, -1, -1),
        limits=torch.where(asked.unsqueeze(2), limits.to(inputs.device), -torch.inf),
    )


def label_clauses(labels: Int[Tensor, " batch"], classes: int) -> Clauses:
    """The output of the label is the highest: y_label - y_j > 0 for every other class j.

    Args:
        labels: the class of each input.
        classes: number of outputs, at least 2.

    Raises:
        ValueError: fewer than two classes, or a label that is none of them.

    Example:
        >>> import torch
        >>> from carelab import repair
        >>> repair.label_clauses(torch.tensor([1]), 3).rows.squeeze().tolist()
        [[-1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]
    """
    if classes < 2 or bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(
            f"labels, classes: got {sorted(set(labels.tolist()))}, {classes}; allowed: labels from "
            "0 to classes - 1, at least 2 classes"
        )
    one = torch.eye(classes, dtype=torch.float64, device=labels.device)
    every = torch.arange(classes, device=labels.device).expand(len(labels), -1)
    others = every[every != labels.unsqueeze(1)].view(len(labels), classes - 1)
    rows = (one[labels].unsqueeze(1) - one[others]).unsqueeze(2)
    return Clauses(rows=rows, limits=rows.new_zeros(rows.shape[:3]))


def certainly(
    chain: AffineChain, inputs: Float[Tensor, "batch features"], clauses: Clauses
) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """At which inputs the network is right, and at which wrong, in exact arithmetic.

    Args:
        chain: the network.
        inputs: the inputs, flat (batch, features).
        clauses: what the outputs for each have to meet.

    Returns:
        Inputs that are right and inputs that are wrong for certain: rounding errors of the
        evaluation in float64 cannot change it. An input may be neither.

    Raises:
        ValueError: as many clauses as there are inputs, which is not so.

    Example:
        >>> import torch
        >>> from carelab import networks, proof, repair
        >>> from carelab.repair.clauses import certainly
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 2, generator=torch.Generator()))
        >>> right, wrong = certainly(
        ...     chain, torch.zeros(1, 2), repair.label_clauses(torch.tensor([0]), 2))
        >>> bool(right ^ wrong)
        True
    """
    if len(inputs) != len(clauses):
        raise ValueError(
            f"clauses: got those of {len(clauses)} inputs for {len(inputs)}; allowed: as many"
        )
    points = inputs.to(chain.weights[0])
    rows, limits = clauses.rows.to(points), clauses.limits.to(points)
    held = torch.einsum("bcro,bo->bcr", rows, chain(points)) - limits
    off = rounding_margins(chain, points, points)[-1]
    finite = torch.where(limits.isfinite(), limits.abs(), 0.0)
    # Twice the error of the outputs, since the sum over them is rounded too.
    spare = 2 * torch.einsum("bcro,bo->bcr", rows.abs(), off) + 1e-15 * finite
    right = (held - spare).amax(dim=2).amin(dim=1) > 0
    return right, (held + spare).amax(dim=2).amin(dim=1) <= 0
