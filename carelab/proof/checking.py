"""Check a certificate without search, by other means than those that found it.

What is shared with the search is the reading of the weights (`affine_chain`) and of the file. The
rest is another way to the same end:

* that the parts cover the box is read off the list of cuts, with exact comparisons;
* that a part is proved is shown by weak duality of the Lagrangian (Dvijotham et al., UAI 2018),
  evaluated in numpy, and not by lines around each ReLU: for any numbers nu whatsoever,

      a . z_k >= const + sum over neurons of  min over z in [l, u] of (c relu(z) - nu z)
                       + min over the box of c_0 . x,

  where c = W' nu of the layer after. The minimum lies at l, 0 or u, so there is no line whose
  validity could be in doubt, and rounded nu are as good as any;
* rounding is bounded as the sums are made (a running error bound, Higham, section 3.3), from the
  magnitudes of this part of the box, and not from an estimate made beforehand;
* a counterexample is evaluated in exact rational arithmetic.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from carelab.networks import fingerprint
from carelab.proof.certificates import Certificate, load_certificate
from carelab.proof.chains import AffineChain, affine_chain
from carelab.proof.covering import Parts, parts_of
from carelab.proof.duality import Dual, Layers, lagrangian_bounds
from carelab.proof.polytopes import Polytope, polytopes
from carelab.proof.verdicts import SplitTree
from carelab.properties import OutputRegion, OutputRegions

__all__ = ["CertificateCheck", "check_certificate", "exact_outputs"]

_Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CertificateCheck:
    """What a certificate that passed its check shows.

    Args:
        status: "proved" or "refuted", now known to be so.
        parts: how many parts of the box were bounded again.
        slack: smallest of their bounds, after its rounding error; for a counterexample, how deep
            its outputs are in the polytope.
        seconds: wall time of the check.
    """

    status: str
    parts: int
    slack: float
    seconds: float


def check_certificate(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, ...] | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> CertificateCheck:
    """What a certificate file shows of a network and a property, once everything in it is checked.

    Args:
        model: the network that it should be about.
        prop: the property that it should be about.
        path: the file.
        shape: shape of one input where a ``Conv2d`` comes first.
        batch_size: parts bounded at a time.
        progress: show a bar.

    Returns:
        The checked claim; a certificate that fails gives no result but an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, one about another network or property, parts that do not
            cover the box, a part that is not proved, or a counterexample that is none.

    Source: Dvijotham et al., A Dual Approach to Scalable Verification, UAI 2018, section 4.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks, proof, properties
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> prop = properties.never_lowest(0, 2, low=torch.zeros(2), high=torch.ones(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     proof.save_certificate(proof.verify(model, prop), prop, f"{folder}/a.safetensors")
        ...     proof.check_certificate(model, prop, f"{folder}/a.safetensors").status
        'refuted'
    """
    started = perf_counter()
    certificate = load_certificate(path)
    found = fingerprint(model)
    if certificate.network != found:
        raise ValueError(
            f"path: {path} is about the network {certificate.network[:12]}, not about this one, "
            f"{found[:12]}"
        )
    chain = affine_chain(model, shape=shape)
    asked = polytopes(prop, chain)
    if not _same(certificate.polytopes, asked):
        raise ValueError(
            f"path: {path} is about the property {certificate.property_name!r} with other numbers "
            f"than {prop.name!r}; allowed: the same polytopes and boxes"
        )
    try:
        if certificate.status == "refuted":
            parts, slack = 0, _checked_counterexample(certificate, chain)
        else:
            parts, slack = _checked_proof(certificate, chain, batch_size, progress)
    except ValueError as error:
        raise ValueError(f"path: {path} is no valid certificate: {error}") from None
    return CertificateCheck(
        status=certificate.status, parts=parts, slack=slack, seconds=perf_counter() - started
    )


def exact_outputs(chain: AffineChain, point: torch.Tensor) -> tuple[Fraction, ...]:
    """Outputs of the network for one input, in rational numbers, without any rounding.

    Args:
        chain: the network.
        point: the input (features).

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 1, generator=torch.Generator()))
        >>> exact = proof.exact_outputs(chain, torch.ones(2))
        >>> abs(float(exact[0]) - float(chain(torch.ones(1, 2)))) < 1e-12
        True
    """
    values = [Fraction(number) for number in point.double().tolist()]
    for weight, bias, relu in zip(
        chain.weights, chain.biases, (*chain.rectified, False), strict=True
    ):
        sums = [
            sum(
                (Fraction(w) * value for w, value in zip(row, values, strict=True)),
                Fraction(constant),
            )
            for row, constant in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        values = [max(total, Fraction(0)) for total in sums] if relu else sums
    return tuple(values)


def _same(claimed: tuple[Polytope, ...], asked: tuple[Polytope, ...]) -> bool:
    return len(claimed) == len(asked) and all(
        torch.equal(getattr(one, name).cpu(), getattr(other, name).cpu())
        for one, other in zip(claimed, asked, strict=True)
        for name in Polytope.__slots__
    )


def _checked_counterexample(certificate: Certificate, chain: AffineChain) -> float:
    """How deep the counterexample's outputs are in a polytope whose box holds it."""
    point = certificate.counterexample
    if point is None or len(point) != chain.features:
        raise ValueError("its counterexample does not fit the network")
    outputs = exact_outputs(chain, point)
    depths = []
    for part in certificate.polytopes:
        if bool(((point < part.low) | (point > part.high)).any()):
            continue
        misses = [
            sum((Fraction(a) * y for a, y in zip(row, outputs, strict=True)), -Fraction(limit))
            for row, limit in zip(part.matrix.tolist(), part.limits.tolist(), strict=True)
        ]
        depths.append(-max(misses))
    if not depths or max(depths) < 0:
        raise ValueError("its counterexample lies in no box of the property, or is safe")
    return float(max(depths))


def _checked_proof(
    certificate: Certificate, chain: AffineChain, batch_size: int, progress: bool
) -> tuple[int, float]:
    """How many parts there are, and the smallest of their bounds, all of them positive."""
    layers = Layers(
        weights=tuple(weight.cpu().numpy() for weight in chain.weights),
        biases=tuple(bias.cpu().numpy() for bias in chain.biases),
        rectified=chain.rectified,
    )
    total, slack = 0, float("inf")
    for number, (part, tree) in enumerate(
        zip(certificate.polytopes, certificate.trees, strict=True)
    ):
        covering = parts_of(tree, part.low.numpy(), part.high.numpy(), sum(chain.hidden))
        dual = _dual(tree, covering, part)
        for start in tqdm(
            range(0, len(covering.low), batch_size), disable=not progress, leave=False
        ):
            rows = slice(start, start + batch_size)
            bounds = lagrangian_bounds(
                layers,
                part.matrix.numpy(),
                part.limits.numpy(),
                covering.take(rows),
                dual.take(rows),
            )
            # "Not above 0" also catches a bound that is undefined.
            failed = np.flatnonzero(~(bounds > 0))
            if len(failed):
                raise ValueError(
                    f"part {start + int(failed[0])} of polytope {number} is not proved, its bound "
                    f"is {bounds[failed[0]]:.3g}"
                )
            slack = min(slack, float(bounds.min()))
        total += len(covering.low)
    return total, slack


def _dual(tree: SplitTree, covering: Parts, part: Polytope) -> Dual:
    """The dual values of each part, refused where they are not of the shape or sign they need."""
    values = tree.values
    count, neurons = covering.phases.shape
    if values.weights.shape != (count, len(part.limits)) or values.slopes.shape != (count, neurons):
        raise ValueError(f"its dual values are not those of {count} parts")
    weights = values.weights.numpy()
    if bool((weights < 0).any()) or not bool((weights.sum(axis=1) > 0).all()):
        raise ValueError("a part weighs the rows with negative numbers, or with zeros only")
    multipliers = None
    if values.multipliers is not None:
        multipliers = values.multipliers.double().numpy()
    return Dual(
        weights=weights, slopes=values.slopes.numpy().astype(np.float64), multipliers=multipliers
    )
