"""The input side for safety: a two-dimensional slice of the inputs, coloured by the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.networks import Normalisation
from carelab.properties import OutputRegion, OutputRegions
from carelab.records import Samples
from carelab.show.explorer.scenes import Answer, lowest

__all__ = ["SliceSide"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SliceSide:
    """A plane through the inputs: two features vary, the others are held.

    Args:
        prop: the unsafe regions; their box is drawn where it crosses the plane.
        features: what each input is, with its unit.
        classes: what each output stands for.
        low: smallest input shown (features), as the network takes them.
        high: largest input shown (features).
        point: where the other features are held (features).
        axes: the features that run across and up.
        normalisation: between units and what the network takes, or None: there are no units.
        answer: which class the network answers.
        columns: points across.
        rows: points up.

    Raises:
        ValueError: features that do not fit, or two equal axes.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import SliceSide
        >>> box = {"low": torch.zeros(3), "high": torch.ones(3)}
        >>> side = SliceSide(prop=cl.properties.never_lowest(0, 2, **box),
        ...     features=("a", "b", "c"), classes=("stay", "go"), point=torch.ones(3) / 2, **box)
        >>> side.inputs().shape
        torch.Size([3840, 3])
    """

    prop: OutputRegion | OutputRegions
    features: tuple[str, ...]
    classes: tuple[str, ...]
    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]
    point: Float[Tensor, " features"]
    axes: tuple[int, int] = (0, 1)
    normalisation: Normalisation | None = None
    answer: Answer = lowest
    columns: int = 80
    rows: int = 48

    def __post_init__(self) -> None:
        """Refuses axes that span no plane, and features that do not fit."""
        count = len(self.features)
        if not len(self.low) == len(self.high) == len(self.point) == count or count < 2:
            raise ValueError(
                f"features, low, high, point: got {count}, {len(self.low)}, {len(self.high)} and "
                f"{len(self.point)}; allowed: as many of each, at least 2"
            )
        across, up = self.axes
        if across == up or not (0 <= across < count and 0 <= up < count):
            raise ValueError(f"axes: got {self.axes}; allowed: two of 0 to {count - 1}")

    @property
    def kind(self) -> str:
        """Which drawing it needs."""
        return "slice"

    def inputs(self) -> Float[Tensor, "points features"]:
        """The centres of the cells of the plane, row by row from below."""
        across, up = (
            self._centres(axis, count)
            for axis, count in zip(self.axes, (self.columns, self.rows), strict=True)
        )
        points = self.point.repeat(self.rows, self.columns, 1)
        points[..., self.axes[0]] = across[None, :]
        points[..., self.axes[1]] = up[:, None]
        return points.flatten(0, 1)

    def scenery(self) -> dict[str, Any]:
        """Axes, held features and the property's box, in units."""
        low, high, point = (self._units(one) for one in (self.low, self.high, self.point))
        return {
            "kind": self.kind,
            "features": list(self.features),
            "classes": list(self.classes),
            "axes": list(self.axes),
            "low": low,
            "high": high,
            "point": point,
            "columns": self.columns,
            "rows": self.rows,
            "boxes": self._boxes(),
        }

    def drawing(
        self, before: Float[Tensor, "points classes"], after: Float[Tensor, "points classes"]
    ) -> dict[str, Any]:
        """Answer and violation at every cell, one digit each, before and after."""
        samples = Samples(inputs=self.inputs())
        inside = self.prop.inside(samples.inputs)
        found: dict[str, Any] = {}
        for name, outputs in (("before", before), ("after", after)):
            unsafe = (self.prop.margin(outputs[None], samples) <= 0) & inside
            found[name] = {
                "answers": _digits(self.answer(outputs)),
                "unsafe": _digits(unsafe.long()),
                "unsafe_share": round(float(unsafe.sum()) / max(1, int(inside.sum())), 6),
            }
        return {**found, "inside": int(inside.sum())}

    def edited(self, event: Mapping[str, Any]) -> SliceSide:
        """Other axes ({"axes": [i, j]}), or a held feature moved ({"feature": i, "value": v})."""
        if "axes" in event:
            axes = event["axes"]
            if not isinstance(axes, list | tuple) or [type(one) for one in axes] != [int, int]:
                raise ValueError(f"axes: got {axes!r}; allowed: two numbers of features")
            return replace(self, axes=(axes[0], axes[1]))
        feature, value = event.get("feature"), event.get("value")
        if type(feature) is not int or not 0 <= feature < len(self.features):
            raise ValueError(f"feature: got {feature!r}; allowed: 0 to {len(self.features) - 1}")
        if not isinstance(value, int | float):
            raise ValueError(f"value: got {value!r}; allowed: a number")
        units = torch.tensor(self._units(self.point), dtype=torch.float64)
        units[feature] = float(value)
        moved = self._inputs_of(units).to(self.point)
        point = self.point.clone()
        point[feature] = moved[feature].clamp(self.low[feature], self.high[feature])
        return replace(self, point=point)

    def _centres(self, axis: int, count: int) -> Tensor:
        share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        low, high = self.low[axis].double(), self.high[axis].double()
        return (low + (high - low) * share).to(self.point)

    def _units(self, inputs: Tensor) -> list[float]:
        if self.normalisation is None:
            return [round(one, 6) for one in inputs.double().tolist()]
        return [round(one, 4) for one in self.normalisation.denormalise(inputs.double()).tolist()]

    def _inputs_of(self, units: Tensor) -> Tensor:
        return units if self.normalisation is None else self.normalisation.normalise(units)

    def _boxes(self) -> list[dict[str, Any]]:
        """The box of every region where it meets the plane, as its ends along the two axes."""
        regions = [self.prop] if isinstance(self.prop, OutputRegion) else self.prop.regions
        boxes: list[dict[str, Any]] = []
        held = [axis for axis in range(len(self.features)) if axis not in self.axes]
        for region in regions:
            if region.low is None or region.high is None:
                continue
            point = self.point.double()
            meets = (point >= region.low.double() - 1e-9) & (point <= region.high.double() + 1e-9)
            low, high = self._units(region.low), self._units(region.high)
            box = {
                "low": [low[axis] for axis in self.axes],
                "high": [high[axis] for axis in self.axes],
                "meets": bool(meets[held].all()),
            }
            if box not in boxes:
                boxes.append(box)
        return boxes


def _digits(numbers: Tensor | Sequence[int]) -> str:
    return "".join(str(int(one)) for one in torch.as_tensor(numbers).tolist())
