r"""How far the float64 evaluation of a bound can be from its exact value.

Every bound of this floor is a sum that the exact real numbers would make valid, evaluated in
float64 with unit roundoff u = 2^-53. The margin computed here is at least the difference, and
every bound is moved outwards by it before it is used, so that rounding never makes a false bound.

Derivation. Let m be the largest number of terms of one sum (inputs of a layer, plus one for the
bias), L the number of layers, and Z the magnitudes of the chain over the box:

    Z_0 = max(|low|, |high|),   Z_k = |W_k| Z_(k-1) + |b_k|.

1. For every x of the box |z_k| <= Z_k, and every interval or linear bound kept here is clipped to
   interval bounds, which lie within +-Z_k (1 + O(m L u)) as well.
2. A bound of a row a of z_k is computed backwards: c = a, then for j = k-1 ... 1 the coefficients
   c_j = c' D with slopes D in [0, 1], constants (t, b) added, and c' = c_j W_j. Since slopes are at
   most 1, |c_j| <= |a| |W_k| ... |W_(j+1)| =: P_j up to a factor 1 + O(m L u), and P_j Z_j <= Z_a,
   the magnitude of the row itself, for every j.
3. A sum of products of m terms errs by at most g_m = m u / (1 - m u) times the sum of the
   magnitudes of its terms, in whatever order it is added and with or without fused operations
   (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). The steps of one layer
   are: c' (error g_m P_j |W_j|, acting on |h| <= Z_(j-1)), c' b (g_m P_j |b_j|), c D (u per entry,
   acting on Z_j), c t (g_m P_j Z_j as |t| <= Z_j). Each is at most g_m Z_a. The slope of the upper
   line, u / (u - l), and its intercept, -l u / (u - l), are each off by at most 4 u relatively, so
   that the computed line misses relu by at most 8 u Z_j: again no more than 8 u Z_a. Adding up the
   constants costs 3 L u Z_a, and the last step, over the box, 3 g_(m+2) Z_a, midpoint and
   half-width rounded.
4. Together at most L (5 g_m + 8 u) Z_a + 3 L u Z_a + 3 g_(m+2) Z_a <= 16 (L + 1) (m + 8) u Z_a as
   long as m L u < 1e-6, where Z_a itself is computed with a relative error below 1e-6. Multipliers
   of phases enter as further coefficients; for those, see `verification`, which adds their own
   magnitude.
5. Underflow adds at most 2^-1074 an operation, covered by the smallest margin of 1e-280.
   Overflow gives an infinite or undefined bound, which is never accepted: it is compared as
   "above the margin", and that is false.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.proof.chains import AffineChain

__all__ = ["magnitudes", "rounding_factor", "rounding_margins"]

_ROUNDOFF = 2.0**-53
_SMALLEST = 1e-280


def magnitudes(
    chain: AffineChain,
    low: Float[Tensor, "*boxes features"],
    high: Float[Tensor, "*boxes features"],
) -> tuple[Float[Tensor, "*boxes _neurons"], ...]:
    """Z_k = |W_k| Z_(k-1) + |b_k|, how large the sums of each layer can be over a box.

    Args:
        chain: the network.
        low: smallest value of each feature, of one box or of several.
        high: largest value of each feature.

    Returns:
        One entry for each layer, the outputs last.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.proof import affine_chain
        >>> from carelab.proof.rounding import magnitudes
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> [len(z) for z in magnitudes(affine_chain(model), -torch.ones(2), torch.ones(2))]
        [3, 2]
    """
    size = torch.maximum(low.abs(), high.abs()).to(chain.weights[0])
    sizes = []
    for weight, bias in zip(chain.weights, chain.biases, strict=True):
        size = size @ weight.abs().T + bias.abs()
        sizes.append(size)
    return tuple(sizes)


def rounding_factor(chain: AffineChain) -> float:
    """16 (L + 1) (m + 8) u, the error of a bound relative to the magnitude of its row.

    Args:
        chain: the network.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.proof import affine_chain
        >>> from carelab.proof.rounding import rounding_factor
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> rounding_factor(affine_chain(model)) == 16 * 3 * (4 + 8) * 2**-53
        True
    """
    terms = 1 + max(max(weight.shape) for weight in chain.weights)
    return 16 * (len(chain.weights) + 1) * (terms + 8) * _ROUNDOFF


def rounding_margins(
    chain: AffineChain,
    low: Float[Tensor, "*boxes features"],
    high: Float[Tensor, "*boxes features"],
) -> tuple[Float[Tensor, "*boxes _neurons"], ...]:
    """How far bounds of each layer's sums, computed in float64, can be off over a box.

    A margin of a box holds for all boxes inside it.

    Args:
        chain: the network.
        low: smallest value of each feature, of one box or of several.
        high: largest value of each feature.

    Returns:
        One entry for each layer, the outputs last; see this module's head for the derivation.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.proof import affine_chain, rounding_margins
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> margins = rounding_margins(affine_chain(model), -torch.ones(2), torch.ones(2))
        >>> bool(margins[-1].max() < 1e-12)
        True
    """
    factor = rounding_factor(chain)
    return tuple(factor * size + _SMALLEST for size in magnitudes(chain, low, high))
