"""What a trigger looks like, from a few triggered images: the marks it leaves on the moments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from carelab.data import MaskTrigger

__all__ = ["estimate_trigger"]

_SHADE = 1 / 255  # differences below one step of 8 bits are rounding
_UNIFORM = 0.5  # a trigger that changes more of the image than this is taken to cover it all


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Images:
    """Flattened images with their first two moments.

    Args:
        pixels: one row per image, all channels and positions side by side (batch, features).
        mean: mean of each (features).
        variance: variance of each (features).
    """

    pixels: Float[Tensor, "batch features"]
    mean: Float[Tensor, " features"]
    variance: Float[Tensor, " features"]


def estimate_trigger(
    triggered: Float[Tensor, "triggered channels height width"],
    clean: Float[Tensor, "clean _ _ _"],
    *,
    level: float = 0.01,
    permutations: int = 999,
    generator: torch.Generator,
) -> MaskTrigger:
    """Mask m and pattern p of T(x) = (1 - m) x + m p, from the moments of T(x) and of other x.

    A fixed trigger scales the deviation of a pixel by 1 - m and moves its mean to
    (1 - m) mean + m p, so that both can be read off without knowing a single x. In three steps:

    1. Which positions changed: for each pixel the difference of means, and of mean absolute
       deviations from the common mean, is compared with those of random divisions of all images
       into two groups. A pixel has changed where it differs by more than the largest difference
       of any pixel in all but a fraction `level` / 2 of the divisions. Everything else stays as
       it is, m = 0.
    2. Whether the rest changed as well: where its total variance is smaller than in all but a
       fraction `level` / 2 of the divisions, or where more than half of the positions have
       changed, the trigger is taken to cover the whole image. So images without a trigger are
       called changed anywhere with a chance of at most `level`.
    3. One opacity m = 1 - deviation / deviation for all changed positions and channels, and the
       pattern. If the trigger covers the whole image, the error of the means is filtered out: it
       has the covariance of natural images, which a pattern of independent pixels has not.
       Otherwise m grows where it must, so that a p in [0, 1] explains the mean.

    Pixels that do not vary among the clean images have no deviation; they take the common m, and
    where no changed pixel varies m is 1.

    Args:
        triggered: images with the trigger (triggered, channels, height, width), scaled to [0, 1];
            50 are enough for most triggers.
        clean: other images without it (clean, channels, height, width), of the same kind.
        level: chance of calling an untriggered set changed, in (0, 1).
        permutations: random divisions, at least 2 / level - 1.
        generator: draws the divisions.

    Returns:
        The trigger, of mask 0 everywhere if nothing has changed.

    Raises:
        ValueError: images of different shapes or outside [0, 1], fewer than 5 of a kind, a level
            out of range, too few permutations for it.

    Source: Westfall and Young, Resampling-Based Multiple Testing, Wiley 1993, section 2.5 (largest
        statistic of permutations); Ledoit and Wolf, Journal of Multivariate Analysis 2004
        (covariance of few images).

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> generator = torch.Generator().manual_seed(0)
        >>> images = torch.rand(250, 1, 6, 6, generator=generator)
        >>> images[:50, :, 4:, 4:] = 1
        >>> found = properties.estimate_trigger(images[:50], images[50:], generator=generator)
        >>> found.mask.nonzero()[:, 1:].tolist()
        [[4, 4], [4, 5], [5, 4], [5, 5]]
    """
    _check(triggered, clean, level, permutations)
    shape = clean.shape[1:]
    before, after = _moments(clean), _moments(triggered)
    divisions = _divisions(len(triggered), len(clean), permutations, generator)
    changed = _changed_positions(before, after, shape, divisions, level / 2)
    everywhere = bool(changed.float().mean() > _UNIFORM)
    if everywhere or _rest_changed(before, after, changed, divisions, level / 2):
        return _uniform_trigger(before, after, shape)
    return _local_trigger(before, after, shape, changed)


def _moments(images: Float[Tensor, "batch channels height width"]) -> _Images:
    pixels = images.flatten(1).double()
    return _Images(pixels=pixels, mean=pixels.mean(dim=0), variance=pixels.var(dim=0))


def _divisions(
    triggered: int, clean: int, permutations: int, generator: torch.Generator
) -> Float[Tensor, "divisions batch"]:
    """Weights whose product with the images is a difference of group means; the true one first."""
    weights = torch.full((permutations + 1, triggered + clean), -1 / clean, dtype=torch.float64)
    weights[0, :triggered] = 1 / triggered
    for row in range(1, permutations + 1):
        chosen = torch.randperm(triggered + clean, generator=generator)[:triggered]
        weights[row, chosen] = 1 / triggered
    return weights


def _changed_positions(
    before: _Images,
    after: _Images,
    shape: torch.Size,
    divisions: Float[Tensor, "divisions batch"],
    level: float,
) -> Bool[Tensor, " positions"]:
    """Positions where a mean or a mean absolute deviation differs in some channel."""
    pixels = torch.cat([after.pixels, before.pixels])
    away = (pixels - pixels.mean(dim=0)).abs()
    values = torch.cat([pixels, away], dim=1)
    deviation = values.std(dim=0)
    # What never varies cannot differ; what varies by rounding alone counts as not varying.
    values = (values - values.mean(dim=0)) / deviation.clamp(min=_SHADE / 2)
    differences = (divisions.to(values.device) @ values).abs()
    largest = differences[1:].amax(dim=1)
    changed = differences[0] > largest.quantile(1 - level, interpolation="higher")
    return changed.reshape(2 * shape[0], -1).any(dim=0)


def _rest_changed(
    before: _Images,
    after: _Images,
    changed: Bool[Tensor, " positions"],
    divisions: Float[Tensor, "divisions batch"],
    level: float,
) -> bool:
    """Whether the pixels that have not changed one by one vary less, taken together."""
    rest = ~changed.repeat(len(before.mean) // len(changed))
    # Each group around its own mean, whose error shortens the distances of the smaller one.
    energies = torch.cat(
        [
            (group.pixels - group.mean)[:, rest].square().sum(dim=1)
            * (len(group.pixels) / (len(group.pixels) - 1))
            for group in (after, before)
        ]
    )
    differences = divisions.to(energies.device) @ energies
    return bool(differences[0] < differences[1:].quantile(level, interpolation="lower"))


def _opacity(before: _Images, after: _Images, pixels: Bool[Tensor, " features"]) -> float:
    """1 - deviation / deviation, pooled over the pixels; 1 where the clean images do not vary."""
    natural = float(before.variance[pixels].sum())
    if natural <= 0:
        return 1.0
    return 1 - min(1.0, float(after.variance[pixels].sum()) / natural) ** 0.5


def _local_trigger(
    before: _Images, after: _Images, shape: torch.Size, changed: Bool[Tensor, " positions"]
) -> MaskTrigger:
    """One opacity on the changed positions, raised where the pattern would leave [0, 1]."""
    channels = shape[0]
    pixels = changed.repeat(channels)
    shift = after.mean - before.mean
    room = torch.where(shift > 0, 1 - before.mean, before.mean)
    least = (shift.abs() / room.clamp(min=_SHADE)).clamp(max=1).reshape(channels, -1).amax(dim=0)
    opacity = least.clamp(min=_opacity(before, after, pixels)).clamp(min=_SHADE)
    pattern = before.mean + shift / opacity.repeat(channels)
    return _trigger(opacity * changed, torch.where(pixels, pattern, 0), shape)


def _uniform_trigger(before: _Images, after: _Images, shape: torch.Size) -> MaskTrigger:
    """One opacity on the whole image, with a pattern freed of the errors of natural images."""
    everywhere = torch.ones_like(before.mean, dtype=torch.bool)
    opacity = max(_opacity(before, after, everywhere), _SHADE)
    observed = (after.mean - (1 - opacity) * before.mean) / opacity
    counts = 1 / len(after.pixels) + 1 / len(before.pixels)
    error = ((1 - opacity) / opacity) ** 2 * counts
    pattern = _filtered(observed, before, error)
    return _trigger(torch.full_like(pattern[: shape[1:].numel()], opacity), pattern, shape)


def _filtered(
    observed: Float[Tensor, " features"], images: _Images, error: float
) -> Float[Tensor, " features"]:
    """Most probable pattern of independent normal pixels, given its observation.

    The observation errs by `error` times the covariance of the images, shrunk to few parameters.
    In the axes of that covariance each coordinate is drawn towards the mean by how uncertain it
    is; the variance of the pattern's pixels is that which makes the observation most likely.
    """
    centred = images.pixels - images.mean
    share = float(ledoit_wolf_shrinkage(centred.cpu().numpy(), assume_centered=True))
    _, scales, axes = torch.linalg.svd(centred, full_matrices=False)
    floor = share * float(images.variance.mean())
    along = error * ((1 - share) * scales.square() / len(centred) + floor)
    across = error * floor
    away = observed - observed.mean()
    inside = axes @ away
    outside = away - inside @ axes
    free, rest = len(away) - len(inside), float(outside.square().sum())
    sizes = torch.logspace(-4, 0, 81, dtype=away.dtype, device=away.device).square()[:, None]
    misfit = (inside.square() / (sizes + along) + (sizes + along).log()).sum(dim=1)
    misfit += rest / (sizes[:, 0] + across) + free * (sizes[:, 0] + across).log()
    size = float(sizes[misfit.argmin()])
    kept = (size / (size + along) * inside) @ axes + size / (size + across) * outside
    return observed.mean() + kept


def _trigger(
    mask: Float[Tensor, " positions"], pattern: Float[Tensor, " features"], shape: torch.Size
) -> MaskTrigger:
    return MaskTrigger(
        mask=mask.clamp(0, 1).float().reshape(1, *shape[1:]),
        pattern=pattern.clamp(0, 1).float().reshape(shape),
    )


def _check(triggered: Tensor, clean: Tensor, level: float, permutations: int) -> None:
    if triggered.shape[1:] != clean.shape[1:]:
        raise ValueError(
            f"triggered: got images of shape {tuple(triggered.shape[1:])} beside clean ones of "
            f"{tuple(clean.shape[1:])}; allowed: the same"
        )
    if min(len(triggered), len(clean)) < 5:
        raise ValueError(
            f"triggered, clean: got {len(triggered)} and {len(clean)} images; allowed: at least 5"
        )
    for name, images in (("triggered", triggered), ("clean", clean)):
        if not ((images >= 0) & (images <= 1)).all():
            raise ValueError(f"{name}: got values outside [0, 1]; allowed: images within it")
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}; allowed: a fraction between 0 and 1")
    if permutations + 1 < 2 / level:
        raise ValueError(
            f"permutations: got {permutations}; allowed: at least 2 / level - 1, here "
            f"{math.ceil(2 / level) - 1}"
        )
