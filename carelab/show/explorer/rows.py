"""The input side for fairness: a row of a table that a reader edits, beside its counterfactuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from carelab.properties import IndividualFairness
from carelab.records import Feature, Samples

__all__ = ["RowSide"]

# Longer lists of values are edited as a number.
_MOST_OPTIONS = 60


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowSide:
    """One row, and the same row with every value of the sensitive feature.

    Args:
        rows: held-out rows that a reader can leaf through, at least one.
        features: the features, which cover every column.
        prop: individual fairness, whose probes are the counterfactuals.
        classes: what each label means.
        at: which row.
        row: the row as edited (features), or None: as it is.

    Raises:
        ValueError: no row.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import RowSide
        >>> table = cl.data.embedded_credit(rows=200, generator=torch.Generator().manual_seed(0))
        >>> side = RowSide(rows=table.test, features=table.features, classes=table.classes,
        ...     prop=cl.properties.individual_fairness(table, "sex"))
        >>> side.inputs().shape
        torch.Size([3, 10])
    """

    rows: Samples
    features: tuple[Feature, ...]
    prop: IndividualFairness
    classes: tuple[str, ...]
    at: int = 0
    row: Float[Tensor, " features"] | None = None

    def __post_init__(self) -> None:
        """Refuses a side without rows."""
        if len(self.rows) == 0:
            raise ValueError("rows: got none; allowed: at least one row to show")

    @property
    def kind(self) -> str:
        """Which drawing it needs."""
        return "row"

    @property
    def current(self) -> Float[Tensor, " features"]:
        """The row as it stands."""
        return self.rows.inputs[self.at] if self.row is None else self.row

    def inputs(self) -> Float[Tensor, "probes features"]:
        """The row, then once with each value of the sensitive columns."""
        return self.prop.probes(self.current[None])[:, 0]

    def scenery(self) -> dict[str, Any]:
        """Every feature with its value and its choices; the name of every variant."""
        sensitive = set(self.prop.columns)
        label = None if self.rows.labels is None else int(self.rows.labels[self.at])
        return {
            "kind": self.kind,
            "number": self.at + 1,
            "of": len(self.rows),
            "edited": self.row is not None,
            "label": None if label is None else self.classes[label],
            "classes": list(self.classes),
            "features": [
                _feature(feature, self.current, bool(sensitive & set(feature.columns)))
                for feature in self.features
            ],
            "variants": self._variants(),
        }

    def drawing(
        self, before: Float[Tensor, "probes classes"], after: Float[Tensor, "probes classes"]
    ) -> dict[str, Any]:
        """Chance of every class in every variant, and whether its label differs from the row's."""
        return {"before": _answers(before), "after": _answers(after)}

    def edited(self, event: Mapping[str, Any]) -> RowSide:
        """Another row ({"step": 1 or -1}), or another value ({"feature": i, "value": number}).

        The value is a position in the feature's list of values, or a number where the feature is
        continuous or has too many of them; {"reset": True} takes all edits back.
        """
        if "step" in event:
            return replace(self, at=(self.at + int(event["step"])) % len(self.rows), row=None)
        if event.get("reset"):
            return replace(self, row=None)
        number, value = event.get("feature"), event.get("value")
        if not isinstance(number, int) or not 0 <= number < len(self.features):
            raise ValueError(f"feature: got {number!r}; allowed: 0 to {len(self.features) - 1}")
        feature, row = self.features[number], self.current.clone()
        if _is_list(feature):
            if not isinstance(value, int) or not 0 <= value < len(feature.values):
                raise ValueError(
                    f"value: got {value!r} for {feature.name}; "
                    f"allowed: 0 to {len(feature.values) - 1}"
                )
            row[list(feature.columns)] = feature.values[value].to(row)
        else:
            low, high = float(feature.values.min()), float(feature.values.max())
            if not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(
                    f"value: got {value!r} for {feature.name}; allowed: {low:g} to {high:g}"
                )
            row[list(feature.columns)] = float(value)
        return replace(self, row=row)

    def _variants(self) -> list[str]:
        """What each value of the sensitive columns is called."""
        names = []
        for value in self.prop.values:
            filled = self.current.clone()
            filled[list(self.prop.columns)] = value.to(filled)
            sensitive = [
                feature
                for feature in self.features
                if set(feature.columns) & set(self.prop.columns)
            ]
            names.append(
                ", ".join(f"{one.name} {_shown(one, filled)}" for one in sensitive)
                or "counterfactual"
            )
        return names


def _is_list(feature: Feature) -> bool:
    return len(feature.columns) > 1 or (
        not feature.continuous and len(feature.values) <= _MOST_OPTIONS
    )


def _feature(feature: Feature, row: Tensor, sensitive: bool) -> dict[str, Any]:
    common = {"name": feature.name.replace("_", " "), "sensitive": sensitive}
    if _is_list(feature):
        options = [_name(feature, at) for at in range(len(feature.values))]
        return {**common, "options": options, "value": _nearest(feature, row)}
    return {
        **common,
        "low": float(feature.values.min()),
        "high": float(feature.values.max()),
        "value": float(row[feature.columns[0]]),
    }


def _name(feature: Feature, at: int) -> str:
    if feature.labels:
        return feature.labels[at]
    value = feature.values[at]
    return f"{float(value[0]):g}" if len(value) == 1 else f"value {at + 1}"


def _shown(feature: Feature, row: Tensor) -> str:
    return _name(feature, _nearest(feature, row))


def _nearest(feature: Feature, row: Tensor) -> int:
    away = (feature.values.to(row) - row[list(feature.columns)]).abs().sum(dim=1)
    return int(away.argmin())


def _answers(outputs: Tensor) -> dict[str, Sequence[Any]]:
    chances, labels = outputs.softmax(dim=1), outputs.argmax(dim=1)
    return {
        "chances": [[round(one, 4) for one in row] for row in chances.tolist()],
        "labels": labels.tolist(),
        "flips": (labels != labels[0]).tolist(),
    }
