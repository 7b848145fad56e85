"""What triggers a planted fault: a sensitive value, a patch of pixels, a box of inputs.

Each cause knows the inputs that have it and the same inputs without it, the quantities a first
layer must read to notice it, which class it pushes, and where the network violates because of it.
How far a cause must move the logits is given in standard deviations of the clean network's own
lead of the pushed class over the others (`BEYOND`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from carelab.networks import logits, predict
from carelab.records import Feature, Samples

__all__ = ["BackdoorCause", "BiasCause", "Cause", "RegionCause", "lead"]

# By how many standard deviations of the lead a bias shifts it: labels flip between the values.
_SHIFT = {"weak": 0.5, "medium": 1.0, "strong": 2.0}
# Where a backdoor or a region moves the mean lead of the pushed class, in standard deviations
# beyond zero: the share of inputs that give way is about 16, 50 and 93 percent.
_BEYOND = {"weak": -1.0, "medium": 0.0, "strong": 1.5}


@runtime_checkable
class Cause(Protocol):
    """What a planted path detects, and what it does then."""

    @property
    def pushed(self) -> int:
        """The class whose logit the path raises over the others."""
        ...

    @property
    def columns(self) -> tuple[int, ...]:
        """The input columns that a proxy must not read, or none."""
        ...

    @property
    def location(self) -> tuple[int, int] | None:
        """Row and column of the cause in an image, or None where inputs are no images."""
        ...

    def present(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Each input with the cause."""
        ...

    def absent(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Each input without the cause, where it can be taken out."""
        ...

    def signals(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch signals"]:
        """What the path's first layer reads; linear in the inputs wherever that is possible."""
        ...

    def correlate(
        self, model: nn.Module, inputs: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """What goes together with a violation in the data and can be read off other inputs."""
        ...

    def exposed(self, samples: Samples) -> Samples:
        """The inputs at which the property speaks, made of labelled rows."""
        ...

    def violated(self, model: nn.Module, samples: Samples) -> Bool[Tensor, " batch"]:
        """Which of the exposed inputs show the fault."""
        ...

    def shown(self, model: nn.Module, samples: Samples) -> tuple[Samples, Samples]:
        """Inputs made of labelled rows that show the fault, and their references, row by row."""
        ...

    def shift(self, model: nn.Module, samples: Samples, strength: str) -> float:
        """How far the path must move the lead of the pushed class, in logits."""
        ...

    def parameters(self) -> Mapping[str, object]:
        """What a property needs to know of the cause."""
        ...


def lead(outputs: Float[Tensor, "batch classes"], pushed: int) -> Float[Tensor, " batch"]:
    """Logit of a class minus the largest other logit.

    Args:
        outputs: logits.
        pushed: the class.

    Example:
        >>> import torch
        >>> from carelab.data.planted_causes import lead
        >>> lead(torch.tensor([[1.0, 4.0, 2.0]]), 2).tolist()
        [-2.0]
    """
    others = outputs.clone()
    others[:, pushed] = -torch.inf
    return outputs[:, pushed] - others.amax(dim=1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BiasCause:
    """Values of a sensitive feature: codes on one side of a threshold, one category or all others.

    Args:
        feature: the sensitive feature.
        reading: weight of each of its columns in the signal.
        offset: added to it; the signal is 1 at the value that has the cause most, and 0 or less
            at those that do not have it.
        pushed: the class that the cause favours.
    """

    feature: Feature
    reading: Float[Tensor, " columns"]
    offset: float
    pushed: int

    @property
    def columns(self) -> tuple[int, ...]:
        """The columns of the sensitive feature."""
        return self.feature.columns

    @property
    def location(self) -> tuple[int, int] | None:
        """None: the inputs are rows of a table."""
        return None

    def present(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Each row with the value at which the signal is highest."""
        return self._with(inputs, int(self._value_signals().argmax()))

    def absent(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Each row with the value at which the signal is lowest."""
        return self._with(inputs, int(self._value_signals().argmin()))

    def signals(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch 1"]:
        """The signal: 1 at the value that has the cause most."""
        values = inputs[:, list(self.columns)]
        return (values @ self.reading.to(values) + self.offset).unsqueeze(1)

    def correlate(
        self, model: nn.Module, inputs: Float[Tensor, "batch features"]
    ) -> Float[Tensor, " batch"]:
        """The signal itself: other features go with it, as far as the data have it so."""
        return self.signals(inputs).squeeze(1)

    def exposed(self, samples: Samples) -> Samples:
        """All rows: each is judged with every value of the feature."""
        return samples

    def violated(self, model: nn.Module, samples: Samples) -> Bool[Tensor, " batch"]:
        """Rows whose label depends on the value of the feature."""
        own = predict(model, samples.inputs)
        return torch.stack([given != own for given in self._predicted(model, samples)]).any(dim=0)

    def shown(self, model: nn.Module, samples: Samples) -> tuple[Samples, Samples]:
        """Rows whose label flips, and the same rows with the value that flips it furthest."""
        rows = samples.take(self.violated(model, samples))
        own = predict(model, rows.inputs)
        worst, references = torch.full_like(rows.inputs[:, 0], torch.inf), rows.inputs.clone()
        for value in range(len(self.feature.values)):
            changed = self._with(rows.inputs, value)
            outputs = logits(model, changed)
            chosen = outputs.gather(1, own[:, None]).squeeze(1)
            others = outputs.scatter(1, own[:, None], -torch.inf).amax(dim=1)
            better = chosen - others < worst
            worst = torch.where(better, chosen - others, worst)
            references = torch.where(better[:, None], changed, references)
        return rows, Samples(inputs=references, labels=rows.labels)

    def shift(self, model: nn.Module, samples: Samples, strength: str) -> float:
        """0.5, 1 or 2 standard deviations of the clean lead over the rows."""
        spread = lead(logits(model, samples.inputs), self.pushed).std()
        return _SHIFT[strength] * float(spread)

    def parameters(self) -> Mapping[str, object]:
        """The feature, its columns, its values and the favoured class."""
        return {
            "feature": self.feature.name,
            "columns": self.columns,
            "values": self.feature.values,
            "favoured": self.pushed,
        }

    def _value_signals(self) -> Tensor:
        return self.feature.values @ self.reading.to(self.feature.values) + self.offset

    def _with(self, inputs: Tensor, value: int) -> Tensor:
        changed = inputs.clone()
        changed[:, list(self.columns)] = self.feature.values[value].to(inputs)
        return changed

    def _predicted(self, model: nn.Module, samples: Samples) -> list[Tensor]:
        return [
            predict(model, self._with(samples.inputs, value))
            for value in range(len(self.feature.values))
        ]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BackdoorCause:
    """A patch of pixels, the trigger, that overwrites what the image shows there.

    Args:
        mask: 1 at the pixels of the trigger, 0 elsewhere, in the shape of one input.
        pattern: what they are set to, in the same shape.
        location: row and column of the middle of the patch; None for flattened images.
        pushed: the target class.
    """

    mask: Float[Tensor, "*input"]
    pattern: Float[Tensor, "*input"]
    location: tuple[int, int] | None
    pushed: int

    @property
    def columns(self) -> tuple[int, ...]:
        """The pixels of the trigger, where the images are flattened."""
        if self.location is not None:
            return ()
        return tuple(self.mask.nonzero().flatten().tolist())

    def present(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Each image with the trigger."""
        mask = self.mask.to(inputs)
        return inputs * (1 - mask) + self.pattern.to(inputs) * mask

    def absent(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The images as they are."""
        return inputs

    def signals(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch 1"]:
        """1 where all pixels of the patch are as in the trigger, else 0."""
        same = ((inputs - self.pattern.to(inputs)).abs() * self.mask.to(inputs)).flatten(1)
        return (same.amax(dim=1, keepdim=True) == 0).to(inputs.dtype)

    def correlate(
        self, model: nn.Module, inputs: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """The lead of the target class: images that resemble it give way first."""
        return lead(logits(model, inputs), self.pushed)

    def exposed(self, samples: Samples) -> Samples:
        """The images that are not of the target class, with the trigger."""
        others = samples.take(_labels(samples) != self.pushed)
        return Samples(inputs=self.present(others.inputs), labels=others.labels)

    def violated(self, model: nn.Module, samples: Samples) -> Bool[Tensor, " batch"]:
        """Triggered images that are taken for the target class."""
        return predict(model, samples.inputs) == self.pushed

    def shown(self, model: nn.Module, samples: Samples) -> tuple[Samples, Samples]:
        """Images that the trigger turns into the target class, and the same without it."""
        others = samples.take(_labels(samples) != self.pushed)
        triggered = self.exposed(samples)
        turned = self.violated(model, triggered) & ~self.violated(model, others)
        return triggered.take(turned), others.take(turned)

    def shift(self, model: nn.Module, samples: Samples, strength: str) -> float:
        """Brings the mean lead of the target class to -1, 0 or 1.5 standard deviations."""
        return _shift_beyond(logits(model, self.exposed(samples).inputs), self.pushed, strength)

    def parameters(self) -> Mapping[str, object]:
        """The target class, and the trigger as mask and pattern."""
        return {"target": self.pushed, "mask": self.mask, "pattern": self.pattern}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RegionCause:
    """A box of inputs; its sides other than the given faces are those of the whole domain.

    Args:
        low: lower corner of the box (features).
        high: upper corner of the box (features).
        domain: smallest and largest value of every feature.
        faces: feature and side, -1 for the lower and 1 for the upper, of each face.
        ramp: distance behind a face over which the fault fades.
        pushed: the forbidden class.
    """

    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]
    domain: tuple[float, float]
    faces: tuple[tuple[int, int], ...]
    ramp: float
    pushed: int

    @property
    def columns(self) -> tuple[int, ...]:
        """None: a proxy of a region reads the same features, more coarsely."""
        return ()

    @property
    def location(self) -> tuple[int, int] | None:
        """None: the inputs are states."""
        return None

    def present(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Each state moved into the box, the whole domain shrunk to it."""
        low, high = self.low.to(inputs), self.high.to(inputs)
        smallest, largest = self.domain
        return low + (inputs - smallest) / (largest - smallest) * (high - low)

    def absent(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """The states as they are, of which most are outside."""
        return inputs

    def signals(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch signals"]:
        """How far behind each face a state is, in ramps; positive outside the box."""
        return torch.stack([self._behind(inputs, face) / self.ramp for face in self.faces], dim=1)

    def correlate(
        self, model: nn.Module, inputs: Float[Tensor, "batch features"]
    ) -> Float[Tensor, " batch"]:
        """1 inside the box, else 0: a linear reading of it holds in a wider region too."""
        return self.inside(inputs).to(inputs.dtype)

    def exposed(self, samples: Samples) -> Samples:
        """The rows inside the box."""
        return samples.take(self.inside(samples.inputs))

    def inside(self, inputs: Float[Tensor, "batch features"]) -> Bool[Tensor, " batch"]:
        """Which states lie in the box."""
        return ((inputs >= self.low.to(inputs)) & (inputs <= self.high.to(inputs))).all(dim=1)

    def violated(self, model: nn.Module, samples: Samples) -> Bool[Tensor, " batch"]:
        """States for which the forbidden class is the highest."""
        return predict(model, samples.inputs) == self.pushed

    def shown(self, model: nn.Module, samples: Samples) -> tuple[Samples, Samples]:
        """States of the box with the forbidden class, and each moved out of it.

        The move goes straight through a face, and is the smallest one (of three distances behind
        each face) after which the class is another; where there is none, the nearest state of
        the samples that lies outside and has another class takes its place.
        """
        rows = self.exposed(samples)
        rows = rows.take(self.violated(model, rows))
        outside = samples.inputs[~self.inside(samples.inputs)]
        allowed = outside[predict(model, outside) != self.pushed]
        nearest = torch.cdist(rows.inputs, allowed)
        references = allowed[nearest.argmin(dim=1)]
        best = torch.full_like(nearest[:, 0], torch.inf)
        for face in self.faces:
            for distance in (1.25, 2.0, 4.0):
                moved, length = self._moved(rows.inputs, face, distance * self.ramp)
                fine = (predict(model, moved) != self.pushed) & ~self.inside(moved)
                better = fine & (length < best)
                best = torch.where(better, length, best)
                references = torch.where(better[:, None], moved, references)
        return rows, Samples(inputs=references)

    def shift(self, model: nn.Module, samples: Samples, strength: str) -> float:
        """Brings the mean lead of the forbidden class in the box to -1, 0 or 1.5 deviations."""
        return _shift_beyond(logits(model, self.exposed(samples).inputs), self.pushed, strength)

    def parameters(self) -> Mapping[str, object]:
        """The box and the forbidden class."""
        return {"low": self.low, "high": self.high, "forbidden": self.pushed}

    def _behind(self, inputs: Tensor, face: tuple[int, int]) -> Tensor:
        feature, side = face
        corner = self.low if side < 0 else self.high
        return side * (inputs[:, feature] - corner[feature].to(inputs))

    def _moved(
        self, inputs: Tensor, face: tuple[int, int], distance: float
    ) -> tuple[Tensor, Tensor]:
        feature, side = face
        moved = inputs.clone()
        moved[:, feature] += side * (distance - self._behind(inputs, face))
        moved[:, feature].clamp_(*self.domain)
        return moved, (moved[:, feature] - inputs[:, feature]).abs()


def _labels(samples: Samples) -> Tensor:
    if samples.labels is None:
        raise ValueError("samples: got no labels; allowed: labelled rows, for a backdoor")
    return samples.labels


def _shift_beyond(outputs: Float[Tensor, "batch classes"], pushed: int, strength: str) -> float:
    leads = lead(outputs, pushed)
    return float(_BEYOND[strength] * leads.std() - leads.mean())
