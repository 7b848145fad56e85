"""ACAS Xu: 45 networks that advise an aircraft how to avoid another, with their units."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.data.acasxu_files import ACASXU, INDICES
from carelab.data.fetching import obtain
from carelab.networks import Normalisation, read_onnx

__all__ = [
    "ACASXU_ADVISORIES",
    "ACASXU_FEATURES",
    "ACASXU_NORMALISATION",
    "ACASXU_OUTPUT_MEAN",
    "ACASXU_OUTPUT_RANGE",
    "AcasXu",
    "acasxu_domain",
    "acasxu_network",
]

# Scores are costs: the advisory with the lowest one is given.
ACASXU_ADVISORIES = ("COC", "WL", "WR", "SL", "SR")
ACASXU_FEATURES = (
    "distance (ft)",
    "angle to intruder (rad)",
    "heading of intruder (rad)",
    "own speed (ft/s)",
    "speed of intruder (ft/s)",
)
# As in the header of every one of the 45 NNet files.
ACASXU_NORMALISATION = Normalisation(
    means=torch.tensor([19791.091, 0.0, 0.0, 650.0, 600.0], dtype=torch.float64),
    ranges=torch.tensor(
        [60261.0, 6.28318530718, 6.28318530718, 1100.0, 1200.0], dtype=torch.float64
    ),
)
ACASXU_OUTPUT_MEAN, ACASXU_OUTPUT_RANGE = 7.5188840201005975, 373.94992
_LOWEST = (0.0, -3.141593, -3.141593, 100.0, 0.0)
_HIGHEST = (60760.0, 3.141593, 3.141593, 1200.0, 1200.0)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class AcasXu:
    """One network of ACAS Xu: which it is, what it takes and what its outputs mean.

    Args:
        name: as the papers write it, such as "N2,9".
        first: its first index, 1 to 5: the previous advisory, in the order of `advisories`.
        second: its second index, 1 to 9: the time until vertical separation is lost, in nine steps
            from none on.
        network: takes normalised inputs (batch, 5); returns a score for each advisory, as trained,
            that is not scaled back. The lowest score is the advice.
        normalisation: how distances, angles and speeds become inputs.
        low: smallest normalised input of the whole domain (features), float64.
        high: largest normalised input of the whole domain (features), float64.
        features: what each input is, with its unit.
        advisories: clear of conflict, weak left, weak right, strong left, strong right.
        source: official address of the file that was read.
        sha256: its checksum.
        licence: the licence its source states.
    """

    name: str
    first: int
    second: int
    network: nn.Sequential
    normalisation: Normalisation
    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]
    features: tuple[str, ...]
    advisories: tuple[str, ...]
    source: str
    sha256: str
    licence: str


def acasxu_network(first: int, second: int) -> AcasXu:
    """The network N(first, second) of ACAS Xu, 5-50-50-50-50-50-50-5 with ReLU.

    Read from the ONNX file of the verification competition, whose weights are those of the NNet
    file that was published first.

    Args:
        first: 1 to 5.
        second: 1 to 9.

    Returns:
        The network, linear1 to linear7, float32, in evaluation mode, with its units.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: an index out of range.

    Source: Julian et al., Policy Compression for Aircraft Collision Avoidance Systems, DASC 2016;
        Katz et al., Reluplex, CAV 2017, section VI.

    Example:
        >>> from carelab import data
        >>> controller = data.acasxu_network(2, 9)  # doctest: +SKIP
        >>> controller.name, controller.network.linear7.out_features  # doctest: +SKIP
        ('N2,9', 5)
    """
    if (first, second) not in INDICES:
        raise ValueError(f"first, second: got {first}, {second}; allowed: 1 to 5 and 1 to 9")
    file = ACASXU.files[INDICES.index((first, second))]
    (path,) = obtain(replace(ACASXU, files=(file,)))
    low, high = acasxu_domain()
    return AcasXu(
        name=f"N{first},{second}",
        first=first,
        second=second,
        network=read_onnx(path),
        normalisation=ACASXU_NORMALISATION,
        low=low,
        high=high,
        features=ACASXU_FEATURES,
        advisories=ACASXU_ADVISORIES,
        source=file.address,
        sha256=file.sha256,
        licence=ACASXU.licence,
    )


def acasxu_domain() -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """The normalised box of all inputs that the networks are made for, the same for all 45.

    Distances from 0 to 60,760 ft, all angles, own speeds from 100 and the other's from 0 to
    1,200 ft/s. Draw from it with `data.uniform_points`.

    Returns:
        The smallest and the largest inputs (features), float64.

    Example:
        >>> from carelab import data
        >>> low, high = data.acasxu_domain()
        >>> [round(number, 4) for number in high.tolist()]
        [0.6799, 0.5, 0.5, 0.5, 0.5]
    """
    bounds = torch.tensor([_LOWEST, _HIGHEST], dtype=torch.float64)
    low, high = ACASXU_NORMALISATION.normalise(bounds)
    return low, high
