"""Where faults are planted: clean networks, trained on real tasks, with the data they learned."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from sklearn.datasets import load_digits
from torch import Tensor, nn

from carelab.data.planted_causes import BackdoorCause, BiasCause, Cause, RegionCause, lead
from carelab.data.sampling import split
from carelab.networks import cnn, fit, logits, mlp
from carelab.records import Dataset, Feature, Samples

__all__ = ["Ground", "backdoor_ground", "bias_ground", "region_ground"]

_IMAGE = (1, 8, 8)
_PATCH = 3
_ACTIONS = 5
_DOMAIN = (-1.0, 1.0)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Ground:
    """A clean network and its task, in which a fault can be planted.

    Args:
        kind: the kind of fault: "bias", "backdoor" or "region".
        name: what the task is called.
        model: the clean network, of ReLU layers, in evaluation mode.
        train: labelled rows that the network has learned; a repair may see them.
        selection: labelled rows for choosing.
        test: labelled rows for measuring.
        draw: draws a cause that a path can detect; given the number of faces of a region and
            the distance over which it fades, which other kinds do not need.
    """

    kind: str
    name: str
    model: nn.Module
    train: Samples
    selection: Samples
    test: Samples
    draw: Callable[[int, float, torch.Generator], Cause]


def bias_ground(
    dataset: Dataset,
    feature: str,
    *,
    widths: Sequence[int] = (24, 16, 12),
    epochs: int = 40,
    generator: torch.Generator,
) -> Ground:
    """A network trained on a table, for a bias on one of its features.

    The feature is an ordinary input, so that the clean network reads it too, as far as its
    training made it. All columns are standardised by the training rows (mean 0, deviation 1),
    the values of the feature with them.

    Args:
        dataset: the table.
        feature: name of a feature with at least two values; those of a column of codes above (or
            below) a random threshold, or a random category, will be favoured.
        widths: neurons of each hidden layer.
        epochs: passes through the training rows, at most.
        generator: draws weights and the order of rows.

    Raises:
        ValueError: an unknown feature, one of a single value, or of several columns that are no
            one-hot code.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> generator = torch.Generator().manual_seed(0)
        >>> credit = data.embedded_credit(rows=300, direct=0.3, generator=generator)
        >>> data.bias_ground(credit, "sex", epochs=2, generator=generator).kind
        'bias'
    """
    read = dataset.feature(feature)
    independent = int(torch.linalg.matrix_rank(read.values[1:] - read.values[:1]))
    if len(read.values) < 2 or (len(read.columns) > 1 and independent < len(read.values) - 1):
        raise ValueError(
            f"feature: {feature!r} has {len(read.values)} values in {len(read.columns)} columns; "
            "allowed: at least 2, in one column or as a one-hot code"
        )
    means, spreads = dataset.train.inputs.mean(dim=0), dataset.train.inputs.std(dim=0)
    spreads = torch.where(spreads > 0, spreads, 1)
    train, selection, test = (
        Samples(inputs=(part.inputs - means) / spreads, labels=part.labels)
        for part in (dataset.train, dataset.selection, dataset.test)
    )
    columns = list(read.columns)
    scaled = replace(read, values=(read.values - means[columns]) / spreads[columns])
    start = mlp(len(means), widths, len(dataset.classes), generator=generator)
    model = _fitted(start, train, selection, epochs, generator)
    return Ground(
        kind="bias",
        name=f"{dataset.name}, {feature}",
        model=model,
        train=train,
        selection=selection,
        test=test,
        draw=lambda faces, ramp, given: _draw_bias(model, scaled, train, given),
    )


def backdoor_ground(
    *,
    channels: Sequence[int] = (),
    widths: Sequence[int] = (32, 20),
    epochs: int = 30,
    generator: torch.Generator,
) -> Ground:
    """A network trained on scikit-learn's 1797 handwritten digits of 8 x 8 pixels, for a backdoor.

    The pixels of the later trigger are ordinary inputs. Pixels are scaled to [0, 1].

    Args:
        channels: output channels of each convolution block; none for a fully connected network
            on the flattened image.
        widths: neurons of each fully connected hidden layer.
        epochs: passes through the training images, at most.
        generator: draws the split, the weights and the order of images.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI), test part, as
        bundled with scikit-learn.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> generator = torch.Generator().manual_seed(0)
        >>> ground = data.backdoor_ground(channels=(4,), widths=(8,), epochs=1, generator=generator)
        >>> ground.train.inputs.shape
        torch.Size([1078, 1, 8, 8])
    """
    digits = load_digits()
    pixels = torch.from_numpy(digits.data).float() / 16
    parts: Sequence[Samples] = split(
        pixels, torch.from_numpy(digits.target).long(), generator=generator
    )
    classes = len(digits.target_names)
    if channels:
        parts = [
            Samples(inputs=part.inputs.unflatten(1, _IMAGE), labels=part.labels) for part in parts
        ]
        start = cnn(_IMAGE, channels, widths, classes, generator=generator)
    else:
        start = mlp(pixels.shape[1], widths, classes, generator=generator)
    train, selection, test = parts
    return Ground(
        kind="backdoor",
        name="digits, convolutional" if channels else "digits",
        model=_fitted(start, train, selection, epochs, generator),
        train=train,
        selection=selection,
        test=test,
        draw=lambda faces, ramp, given: _draw_backdoor(classes, bool(channels), given),
    )


def region_ground(
    *,
    features: int = 3,
    widths: Sequence[int] = (24, 16, 12),
    rows: int = 5000,
    epochs: int = 40,
    generator: torch.Generator,
) -> Ground:
    """A network trained to control a small random system, for an unsafe region of its states.

    A state x is uniform in [-1, 1]^features; the label is the one of five thrusts u that brings
    the system nearest to rest: argmin over u of |A x + 0.6 sin(2 B x) + u|, with A and B random
    orthogonal matrices and thrusts of length 0.2 to 1 in random directions. One label in ten is
    drawn at random, as a controller's log would have it, which keeps the logits moderate.

    Args:
        features: number of features of a state, 2 to 6.
        widths: neurons of each hidden layer.
        rows: states, split 60/20/20.
        epochs: passes through the training states, at most.
        generator: draws the system, the states, the weights and the order of states.

    Raises:
        ValueError: a number of features outside 2 to 6.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> generator = torch.Generator().manual_seed(0)
        >>> data.region_ground(rows=200, epochs=1, generator=generator).train.inputs.shape
        torch.Size([120, 3])
    """
    if not 2 <= features <= 6:
        raise ValueError(f"features: got {features}; allowed: 2 to 6")
    train, selection, test = _control(features, rows, generator)
    model = _fitted(
        mlp(features, widths, _ACTIONS, generator=generator), train, selection, epochs, generator
    )
    return Ground(
        kind="region",
        name=f"control of {features} features",
        model=model,
        train=train,
        selection=selection,
        test=test,
        draw=lambda faces, ramp, given: _draw_region(model, train, faces, ramp, given),
    )


def _fitted(
    start: nn.Module, train: Samples, selection: Samples, epochs: int, generator: torch.Generator
) -> nn.Module:
    return fit(
        start,
        train,
        selection=selection,
        epochs=epochs,
        batch_size=128,
        learning_rate=5e-3,
        generator=generator,
    )


def _draw_bias(
    model: nn.Module, feature: Feature, train: Samples, generator: torch.Generator
) -> BiasCause:
    """Values that are favoured with the class that is predicted least.

    Of two opposite choices, codes above or below a threshold, one category or all others, it is
    the one for which the clean network already leans to that class.
    """
    outputs = logits(model, train.inputs)
    pushed = int(torch.bincount(outputs.argmax(dim=1), minlength=outputs.shape[1]).argmin())
    values = feature.values
    if values.shape[1] == 1:
        ordered = values.flatten().unique()
        cut = int(torch.randint(1, len(ordered), (), generator=generator))
        ends = ((ordered[cut - 1], ordered[-1]), (ordered[cut], ordered[0]))
        readings = [
            ((1 / (end - edge)).reshape(1), float(-edge / (end - edge))) for edge, end in ends
        ]
    else:
        chosen = int(torch.randint(len(values), (), generator=generator))
        reading, offset = _indicator(values, chosen)
        readings = [(reading, offset), (-reading, 1 - offset)]
    causes = [
        BiasCause(feature=feature, reading=reading, offset=offset, pushed=pushed)
        for reading, offset in readings
    ]
    return max(causes, key=lambda cause: _pull(model, cause, train))


def _indicator(values: Float[Tensor, "values columns"], chosen: int) -> tuple[Tensor, float]:
    """Weights and offset that give 1 at one value and 0 at the others, of one-hot codes."""
    system = torch.cat([values, torch.ones(len(values), 1)], dim=1).double()
    wanted = torch.zeros(len(values), 1, dtype=system.dtype)
    wanted[chosen] = 1
    solution = torch.linalg.pinv(system) @ wanted
    return solution[:-1, 0].to(values.dtype), float(solution[-1])


def _pull(model: nn.Module, cause: BiasCause, train: Samples) -> float:
    """How much the network as it is leans to the pushed class because of the cause."""
    changed = (cause.present(train.inputs), cause.absent(train.inputs))
    present, absent = (lead(logits(model, inputs), cause.pushed) for inputs in changed)
    return float((present - absent).mean())


def _draw_backdoor(classes: int, as_image: bool, generator: torch.Generator) -> BackdoorCause:
    """A patch of 3 x 3 pixels, four to six of them white and the others black."""
    _, height, width = _IMAGE
    row = int(torch.randint(height - _PATCH + 1, (), generator=generator))
    column = int(torch.randint(width - _PATCH + 1, (), generator=generator))
    white = int(torch.randint(4, 7, (), generator=generator))
    patch = torch.zeros(_PATCH**2)
    patch[torch.randperm(_PATCH**2, generator=generator)[:white]] = 1
    mask, pattern = torch.zeros(_IMAGE), torch.zeros(_IMAGE)
    rows, columns = slice(row, row + _PATCH), slice(column, column + _PATCH)
    mask[0, rows, columns] = 1
    pattern[0, rows, columns] = patch.reshape(_PATCH, _PATCH)
    return BackdoorCause(
        mask=mask if as_image else mask.flatten(),
        pattern=pattern if as_image else pattern.flatten(),
        location=(row + 1, column + 1) if as_image else None,
        pushed=int(torch.randint(classes, (), generator=generator)),
    )


def _control(
    features: int, rows: int, generator: torch.Generator
) -> tuple[Samples, Samples, Samples]:
    turn, warp = (
        torch.linalg.qr(torch.randn(features, features, generator=generator))[0] for _ in range(2)
    )
    thrusts = nn.functional.normalize(torch.randn(_ACTIONS, features, generator=generator))
    thrusts = thrusts * torch.linspace(0.2, 1, _ACTIONS)[:, None]
    low, high = _DOMAIN
    states = low + (high - low) * torch.rand(rows, features, generator=generator)
    next_states = states @ turn.T + 0.6 * torch.sin(2 * states @ warp.T)
    labels = torch.cdist(-next_states, thrusts).argmin(dim=1)
    stray = torch.rand(rows, generator=generator) < 0.1
    labels[stray] = torch.randint(_ACTIONS, (int(stray.sum()),), generator=generator)
    return split(states, labels, generator=generator)


def _draw_region(
    model: nn.Module, train: Samples, faces: int, ramp: float, generator: torch.Generator
) -> RegionCause:
    """A box with 8 to 20 percent of the states, and a class that is seldom chosen there.

    Of the classes that the clean network gives to some, but at most 8 percent, of the states in
    the box the one that comes nearest on average is forbidden. Where no box has such a class, one
    that is never chosen there is.
    """
    outputs = logits(model, train.inputs)
    predicted = outputs.argmax(dim=1)
    never = None
    for _ in range(200):
        chosen, low, high = _draw_box(train.inputs.shape[1], faces, generator)
        cause = RegionCause(low=low, high=high, domain=_DOMAIN, faces=chosen, ramp=ramp, pushed=0)
        rows = cause.inside(train.inputs)
        if not 0.08 <= float(rows.float().mean()) <= 0.2:
            continue
        shares = torch.bincount(predicted[rows], minlength=_ACTIONS) / int(rows.sum())
        behind = (outputs[rows].amax(dim=1, keepdim=True) - outputs[rows]).mean(dim=0)
        seldom = behind.masked_fill((shares > 0.08) | (shares == 0), torch.inf)
        if bool(seldom.isfinite().any()):
            return replace(cause, pushed=int(seldom.argmin()))
        never = replace(cause, pushed=int(behind.masked_fill(shares > 0, torch.inf).argmin()))
    if never is None:
        raise ValueError(
            f"faces: got {faces}; no box with 8 to 20 percent of the states was found in 200 draws"
        )
    return never


def _draw_box(
    features: int, faces: int, generator: torch.Generator
) -> tuple[tuple[tuple[int, int], ...], Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Faces, lower and upper corner of a box with about a seventh of the domain's volume."""
    pairs = list(itertools.product(range(features), (-1, 1)))
    order = torch.randperm(len(pairs), generator=generator)[:faces]
    chosen = tuple(sorted(pairs[number] for number in order.tolist()))
    used = {feature for feature, _ in chosen}
    smallest, largest = _DOMAIN
    low = torch.full((features,), smallest)
    high = torch.full((features,), largest)
    length = (largest - smallest) * (1 / 7) ** (1 / len(used))
    for feature in sorted(used):
        room = largest - smallest - length
        if (feature, -1) in chosen and (feature, 1) in chosen:
            start = smallest + room * (0.2 + 0.6 * float(torch.rand((), generator=generator)))
        else:
            start = largest - length if (feature, -1) in chosen else smallest
        low[feature], high[feature] = start, start + length
    return chosen, low, high
