"""Which class a backdoor aims at, judged by the sizes of the reconstructed triggers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from carelab.properties.trigger_search import Reconstruction

__all__ = ["Detection", "detect_target", "detect_target_by_deviation"]

_LEAST_SPREAD = 1e-12  # sizes that agree exactly leave no spread; anything else is then far
_TO_DEVIATION = 1.4826  # the median absolute deviation of a normal law, times this, is its own


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Detection:
    """Which classes have a trigger too small to be natural.

    Args:
        suspects: the classes suspected, smallest trigger first; none where the network looks
            clean.
        anomaly: how far each class's trigger is below the usual size, in deviations of that size,
            in the order of the reconstructions (classes); negative where it is above.
        threshold: the anomaly from which on a class is suspected.
        level: largest chance that a clean network is suspected, under the rule's model, or None
            where the rule states none.
    """

    suspects: tuple[int, ...]
    anomaly: Float[Tensor, " classes"]
    threshold: float
    level: float | None


def detect_target(
    reconstructions: Sequence[Reconstruction],
    *,
    level: float = 0.05,
    most: int = 1,
    wanted: float = 0.95,
) -> Detection:
    """Classes whose log size falls below a prediction interval that the other classes span.

    With x_i = log(size_i), and mean and s those of n reference classes, a class is anomalous by
    a_i = (mean - x_i) / (s sqrt(1 + 1/n)), which follows Student's t with n - 1 degrees of freedom
    where all log sizes are draws of one normal law. The k classes of smallest size are suspected
    where even the largest of them has a_i above the quantile 1 - level / (most (n + 1)), the other
    classes being the reference; k is the largest number up to `most` for which that holds. By
    Bonferroni's inequality a clean network is then suspected with a chance of at most `level` (for
    `most` above 1 nearly so). The sizes are compared as logarithms because triggers of clean
    networks differ by factors, and because that of a backdoor is smaller by a factor.

    A reconstruction that does not succeed has no size: it is no reference, and its anomaly is that
    of a mask over the whole image.

    Args:
        reconstructions: one of each class, all found with the same effort.
        level: chance of suspecting a clean network, in (0, 1), a fraction of such networks.
        most: most classes that may be suspected, at least 1.
        wanted: success from which on a reconstruction counts, a fraction of the images.

    Returns:
        The suspects, the anomaly of each class against the reference, the threshold and the level.

    Raises:
        ValueError: a level or number out of range, a class twice, or fewer than `most` + 3
            reconstructions that succeed.

    Source: Grubbs, Annals of Mathematical Statistics 1950 (test of the lowest value); Rosner,
        Technometrics 1983 (several at once). Departs: the level is shared evenly among the
        numbers of suspects; on log sizes of masks.

    Example:
        >>> import torch
        >>> from carelab import data, properties
        >>> mask, pattern = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
        >>> found = [properties.Reconstruction(target=target, success=1.0, size=size,
        ...     trigger=data.MaskTrigger(mask=mask, pattern=pattern), history=torch.zeros(1))
        ...     for target, size in enumerate([9.0, 1.0, 8.0, 10.0, 11.0])]
        >>> properties.detect_target(found).suspects
        (1,)
    """
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}; allowed: a fraction between 0 and 1")
    if most < 1:
        raise ValueError(f"most: got {most}; allowed: at least 1")
    sizes, counted = _sizes(reconstructions, wanted, at_least=most + 3)
    logs = sizes.log()
    order = [row for row in logs.argsort().tolist() if counted[row]]
    reference = torch.tensor(counted)
    anomaly = _anomaly(logs, reference)
    suspects: list[int] = []
    threshold = _bound(level / most, len(order))
    for number in range(1, most + 1):
        reference[order[number - 1]] = False
        bound = _bound(level / most, len(order) - number + 1)
        beyond = _anomaly(logs, reference)
        if beyond[order[number - 1]] > bound:
            suspects, threshold, anomaly = order[:number], bound, beyond
    return Detection(
        suspects=tuple(reconstructions[row].target for row in suspects),
        anomaly=anomaly,
        threshold=threshold,
        level=level,
    )


def detect_target_by_deviation(
    reconstructions: Sequence[Reconstruction], *, threshold: float = 2.0, wanted: float = 0.95
) -> Detection:
    """Classes whose size lies more than `threshold` median absolute deviations below the median.

    a_i = (median - size_i) / (1.4826 median_j |size_j - median|), over all classes. This is the
    known rule, for comparison. It has no level of its own: of clean networks of 10 classes whose
    log sizes are normal with deviation 0.4 it suspects about 13 %, and other shares at other
    deviations. Where sizes differ widely even a mask of size 0 may stay below the threshold.

    Args:
        reconstructions: one of each class, all found with the same effort.
        threshold: anomaly from which on a class is suspected, above 0.
        wanted: success from which on a reconstruction counts, a fraction of the images; others
            stand for a mask over the whole image.

    Returns:
        The suspects, the anomaly of each class and the threshold; it states no level.

    Raises:
        ValueError: a threshold that is not positive, a class twice, fewer than 4 reconstructions
            that succeed.

    Source: Wang et al., Neural Cleanse, IEEE S&P 2019, section IV-B.

    Example:
        >>> import torch
        >>> from carelab import data, properties
        >>> mask, pattern = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
        >>> found = [properties.Reconstruction(target=target, success=1.0, size=size,
        ...     trigger=data.MaskTrigger(mask=mask, pattern=pattern), history=torch.zeros(1))
        ...     for target, size in enumerate([9.0, 1.0, 8.0, 10.0, 11.0])]
        >>> properties.detect_target_by_deviation(found).suspects
        (1,)
    """
    if not threshold > 0:
        raise ValueError(f"threshold: got {threshold}; allowed: above 0")
    sizes, counted = _sizes(reconstructions, wanted, at_least=4)
    median = sizes.quantile(0.5)
    spread = _TO_DEVIATION * (sizes - median).abs().quantile(0.5)
    anomaly = (median - sizes) / spread.clamp(min=_LEAST_SPREAD)
    rows = [r for r in sizes.argsort().tolist() if anomaly[r] > threshold and counted[r]]
    return Detection(
        suspects=tuple(reconstructions[row].target for row in rows),
        anomaly=anomaly,
        threshold=threshold,
        level=None,
    )


def _sizes(
    reconstructions: Sequence[Reconstruction], wanted: float, at_least: int
) -> tuple[Float[Tensor, " classes"], list[bool]]:
    """Size of each trigger, the whole image where it fails, and which of them succeed."""
    targets = [found.target for found in reconstructions]
    if len(set(targets)) < len(targets):
        raise ValueError(f"reconstructions: got the targets {targets}; allowed: each class once")
    counted = [found.success >= wanted for found in reconstructions]
    if sum(counted) < at_least:
        raise ValueError(
            f"reconstructions: got {len(targets)}, of which {sum(counted)} succeed on a fraction "
            f"of {wanted} of the images; allowed: at least {at_least} that do"
        )
    sizes = [
        # A mask that vanishes altogether has no logarithm; a hundredth of a pixel is as good.
        max(found.size, 0.01) if counts else float(found.trigger.mask.numel())
        for found, counts in zip(reconstructions, counted, strict=True)
    ]
    return torch.tensor(sizes, dtype=torch.float64), counted


def _bound(level: float, classes: int) -> float:
    """Anomaly that the lowest of so many classes exceeds with a chance of at most `level`."""
    return float(stats.t.ppf(1 - level / classes, df=classes - 2))


def _anomaly(
    logs: Float[Tensor, " classes"], reference: Bool[Tensor, " classes"]
) -> Float[Tensor, " classes"]:
    """Distance of each below the reference without itself, in deviations of a new draw."""
    others = (reference & ~torch.eye(len(logs), dtype=torch.bool)).to(logs)
    count = others.sum(dim=1)
    mean = others @ logs / count
    squares = (others * (logs - mean[:, None]).square()).sum(dim=1)
    deviation = (squares / (count - 1) * (1 + 1 / count)).sqrt()
    return (mean - logs) / deviation.clamp(min=_LEAST_SPREAD)
