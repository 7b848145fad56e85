"""The ten safety properties of ACAS Xu, in physical units, with the networks they are about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.data import acasxu, acasxu_files
from carelab.properties.regions import OutputRegion, OutputRegions

__all__ = ["AcasXuProperty", "acasxu_property"]

_ADVISORIES = acasxu.ACASXU_ADVISORIES
_CLEAR, _WEAK_LEFT, _WEAK_RIGHT, _STRONG_LEFT, _STRONG_RIGHT = range(len(_ADVISORIES))
_PI = 3.141592  # as properties 5 to 10 write it
_DIGITS = 9  # of a bound in the competition's files

Bounds = tuple[float, float]
Box = tuple[Bounds, ...]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class AcasXuProperty:
    """A property of ACAS Xu.

    Args:
        number: 1 to 10.
        name: as the papers write it, such as "phi2".
        statement: what must hold, in words.
        boxes: for each box of inputs the smallest and largest distance (ft), angle to the
            intruder, its heading (rad), own speed and its speed (ft/s).
        networks: first and second index of each network that the property is stated for.
        regions: the property as networks are judged by it, one for each box, in normalised inputs
            and in outputs that are not scaled back.
    """

    number: int
    name: str
    statement: str
    boxes: tuple[Box, ...]
    networks: tuple[tuple[int, int], ...]
    regions: tuple[OutputRegions, ...]


def acasxu_property(number: int, *, scale: float = 0.01) -> AcasXuProperty:
    """Property 1 to 10 of ACAS Xu.

    Scores are costs: the lowest one is the advice. Its boxes are worked out from the physical units
    of the paper and rounded to nine decimals, as in the VNN-LIB files of the verification
    competition; boxes, polytopes and their order are then those of the files, bit for bit.

    Args:
        number: 1 to 10.
        scale: distance, in outputs, that counts as far, as in `OutputRegion`; by default a quarter
            of the usual distance between the highest and the lowest score in these boxes.

    Returns:
        The property; number 6 has two boxes, all others one.

    Raises:
        ValueError: a number out of range.

    Source: Katz et al., Reluplex, CAV 2017, appendix. Departs as the competition does: distances
        of property 1 and 2 from 55,947.691 ft go to the end of the domain, 60,760 ft; angles that
        the paper leaves open are -pi to pi, with pi as 3.141592 in properties 5 to 10; an advisory
        that must not be given is held against those that may be given, not against all others,
        which forbids the same outputs.

    Example:
        >>> from carelab.properties import acasxu_property
        >>> phi = acasxu_property(2)
        >>> phi.name, len(phi.networks), phi.regions[0].regions[0].matrix.shape
        ('phi2', 36, torch.Size([4, 5]))
        >>> phi.statement
        'COC never has the highest score'
    """
    if number not in _BOXES:
        raise ValueError(f"number: got {number}; allowed: 1 to {len(_BOXES)}")
    name, statement = f"phi{number}", _STATEMENTS[number]
    regions: list[OutputRegions] = []
    for box in _BOXES[number]:
        low, high = _normalised(box)
        polytopes = tuple(
            OutputRegion(matrix=matrix, limits=limits, low=low, high=high, scale=scale, name=name)
            for matrix, limits in _polytopes(number)
        )
        part = f", box {len(regions) + 1}" if len(_BOXES[number]) > 1 else ""
        regions.append(OutputRegions(regions=polytopes, name=f"{name}{part}"))
    return AcasXuProperty(
        number=number,
        name=name,
        statement=statement,
        boxes=_BOXES[number],
        networks=_networks(number),
        regions=tuple(regions),
    )


def _networks(number: int) -> tuple[tuple[int, int], ...]:
    if number == 1:
        return acasxu_files.INDICES
    if number == 2:
        return tuple(indices for indices in acasxu_files.INDICES if indices[0] >= 2)
    if number in (3, 4):
        return tuple(i for i in acasxu_files.INDICES if i not in ((1, 7), (1, 8), (1, 9)))
    return (_SINGLE[number],)


def _normalised(box: Box) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Smallest and largest normalised inputs of a box in physical units."""
    ends = torch.tensor(box, dtype=torch.float64).T
    low, high = (
        torch.tensor([round(bound, _DIGITS) for bound in row], dtype=torch.float64)
        for row in acasxu.ACASXU_NORMALISATION.normalise(ends).tolist()
    )
    return low, high


def _polytopes(
    number: int,
) -> list[tuple[Float[Tensor, "constraints classes"], Float[Tensor, " constraints"]]]:
    """The unsafe polytopes A y <= b of a property."""
    if number == 1:
        row = torch.zeros(1, len(_ADVISORIES), dtype=torch.float64)
        row[0, _CLEAR] = -1
        return [(row, -torch.tensor([_MOST_COST], dtype=torch.float64))]
    if number == 2:
        others = [one for one in range(len(_ADVISORIES)) if one != _CLEAR]
        return [_below(others, [_CLEAR])]
    allowed = _ALLOWED[number]
    forbidden = [one for one in range(len(_ADVISORIES)) if one not in allowed]
    return [_below([one], allowed) for one in forbidden]


def _below(
    lower: Sequence[int], higher: Sequence[int]
) -> tuple[Float[Tensor, "constraints classes"], Float[Tensor, " constraints"]]:
    """Rows that say: none of the lower advisories scores more than any of the higher ones."""
    rows = torch.zeros(len(lower) * len(higher), len(_ADVISORIES), dtype=torch.float64)
    pairs = [(low, high) for low in lower for high in higher]
    for row, (low, high) in enumerate(pairs):
        rows[row, low], rows[row, high] = 1, -1
    return rows, torch.zeros(len(rows), dtype=torch.float64)


# A cost of 1500 in the outputs' own unit.
_MOST_COST = (1500 - acasxu.ACASXU_OUTPUT_MEAN) / acasxu.ACASXU_OUTPUT_RANGE

_STATEMENTS: Mapping[int, str] = {
    1: "COC never costs more than 1500",
    2: "COC never has the highest score",
    3: "COC is never advised",
    4: "COC is never advised",
    5: "SR is advised",
    6: "COC is advised",
    7: "neither SL nor SR is ever advised",
    8: "WL or COC is advised",
    9: "SL is advised",
    10: "COC is advised",
}

# The advisories of which one must have the lowest score.
_ALLOWED: Mapping[int, tuple[int, ...]] = {
    3: (_WEAK_LEFT, _WEAK_RIGHT, _STRONG_LEFT, _STRONG_RIGHT),
    4: (_WEAK_LEFT, _WEAK_RIGHT, _STRONG_LEFT, _STRONG_RIGHT),
    5: (_STRONG_RIGHT,),
    6: (_CLEAR,),
    7: (_CLEAR, _WEAK_LEFT, _WEAK_RIGHT),
    8: (_CLEAR, _WEAK_LEFT),
    9: (_STRONG_LEFT,),
    10: (_CLEAR,),
}

_SINGLE: Mapping[int, tuple[int, int]] = {
    5: (1, 1),
    6: (1, 1),
    7: (1, 9),
    8: (2, 9),
    9: (3, 3),
    10: (4, 5),
}

_ANGLES = (-math.pi, math.pi)
_FAR: Box = ((55947.691, 60760.0), _ANGLES, _ANGLES, (1145.0, 1200.0), (0.0, 60.0))
_BOXES: Mapping[int, tuple[Box, ...]] = {
    1: (_FAR,),
    2: (_FAR,),
    3: (((1500.0, 1800.0), (-0.06, 0.06), (3.1, math.pi), (980.0, 1200.0), (960.0, 1200.0)),),
    4: (((1500.0, 1800.0), (-0.06, 0.06), (0.0, 0.0), (1000.0, 1200.0), (700.0, 800.0)),),
    5: (((250.0, 400.0), (0.2, 0.4), (-_PI, 0.005 - _PI), (100.0, 400.0), (0.0, 400.0)),),
    6: tuple(
        ((12000.0, 62000.0), sides, (-_PI, 0.005 - _PI), (100.0, 1200.0), (0.0, 1200.0))
        for sides in ((0.7, _PI), (-_PI, -0.7))
    ),
    7: (((0.0, 60760.0), (-_PI, _PI), (-_PI, _PI), (100.0, 1200.0), (0.0, 1200.0)),),
    8: (((0.0, 60760.0), (-_PI, -0.75 * _PI), (-0.1, 0.1), (600.0, 1200.0), (600.0, 1200.0)),),
    9: (((2000.0, 7000.0), (-0.4, -0.14), (-_PI, 0.01 - _PI), (100.0, 150.0), (0.0, 150.0)),),
    10: (((36000.0, 60760.0), (0.7, _PI), (-_PI, 0.01 - _PI), (900.0, 1200.0), (600.0, 1200.0)),),
}
