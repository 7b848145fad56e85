"""What is to be repaired on ACAS Xu: CARE's three networks and the two lists of later papers."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from carelab.data import AcasXu, acasxu_network
from carelab.data.acasxu import ACASXU_ADVISORIES
from carelab.networks import Normalisation
from carelab.properties import OutputRegions, acasxu_property, region_box, required_lowest

__all__ = [
    "CARE_TASKS",
    "STRENGTHENED",
    "SafetyCase",
    "SafetyTask",
    "later_tasks",
    "prorepair_tasks",
    "safety_case",
    "safety_task",
    "still_to_hold",
]

STRENGTHENED = "phi2s"
_CLEAR = ACASXU_ADVISORIES.index("COC")
_SCALE = 0.01  # as in `acasxu_property`
# Networks with first index 2 or more that satisfy property 2.
_SATISFY_2 = ((3, 3), (4, 2))
_WITHOUT_3_AND_4 = ((1, 7), (1, 8), (1, 9))


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetyTask:
    """A network of ACAS Xu, a property that it violates, and how CARE repaired it, if it did.

    Args:
        first: first index of the network, 1 to 5.
        second: second index, 1 to 9.
        property_name: "phi1" to "phi10", or "phi2s" for property 2 strengthened: for the inputs
            of property 2, COC has the lowest score (so that it is advised), not just never the
            highest.
        layer: the layer whose neurons CARE scales.
        alpha: CARE's weight of the points that are to keep satisfying.
    """

    first: int
    second: int
    property_name: str
    layer: str = "relu5"
    alpha: float = 0.2

    @property
    def network_name(self) -> str:
        """The network, as the papers write it."""
        return f"N{self.first},{self.second}"

    @property
    def name(self) -> str:
        """Network and property: the task's name in files and parameters."""
        return f"{self.network_name}-{self.property_name}"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SafetyCase:
    """A controller with a property that it violates, and all that is needed to repair and measure.

    Args:
        name: which one it is, such as "N2,9-phi8".
        layer: the layer whose neurons CARE scales, picked by hand.
        alpha: CARE's weight of the points that are to keep satisfying.
        model: the network, in evaluation mode; the lowest score is the advice.
        prop: the property, with one finite box.
        statement: what must hold, in words.
        low: smallest value of each input in the whole domain (features).
        high: largest value of each input in the whole domain (features).
        normalisation: how physical units become inputs.
        features: what each input is, with its unit.
        advisories: what each output advises.
        still: properties that hold of the network and must not be lost, by name.
        source: where the network is from.
        sha256: checksum of its file.
        licence: the licence its source states.
    """

    name: str
    layer: str
    alpha: float
    model: nn.Sequential
    prop: OutputRegions
    statement: str
    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]
    normalisation: Normalisation
    features: tuple[str, ...]
    advisories: tuple[str, ...]
    still: tuple[tuple[str, OutputRegions], ...]
    source: str
    sha256: str
    licence: str

    @property
    def domain(self) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
        """The smallest and the largest inputs of the whole domain."""
        return self.low, self.high


# CARE, section 5.4. The paper strengthens property 2 for N3,3, which satisfies it, and does not say
# how. It picks the layer by hand: the fifth for N3,3, which serves the other two as well.
CARE_TASKS = (
    SafetyTask(first=2, second=9, property_name="phi8", alpha=0.3),
    SafetyTask(first=3, second=3, property_name=STRENGTHENED, alpha=0.1),
    SafetyTask(first=1, second=9, property_name="phi7", alpha=0.2),
)


def later_tasks() -> tuple[SafetyTask, ...]:
    """The 36 tasks of the papers after CARE: 34 networks on property 2, N1,9 on 7, N2,9 on 8.

    Source: VeRe, section 5; N3,3 and N4,2 satisfy property 2 and are left out.

    Example:
        >>> from carelab.lab.safety_tasks import later_tasks
        >>> tasks = later_tasks()
        >>> len(tasks), tasks[0].name, tasks[-1].name
        (36, 'N2,1-phi2', 'N2,9-phi8')
    """
    second = tuple(
        task for task in prorepair_tasks() if (task.first, task.second) not in _SATISFY_2
    )
    return (*second, CARE_TASKS[2], CARE_TASKS[0])


def prorepair_tasks() -> tuple[SafetyTask, ...]:
    """The 36 networks of ProRepair's own list, all on property 2; N3,3 and N4,2 satisfy it.

    Source: ProRepair, its public code.

    Example:
        >>> from carelab.lab.safety_tasks import prorepair_tasks
        >>> len(prorepair_tasks()), prorepair_tasks()[-1].name
        (36, 'N5,9-phi2')
    """
    networks = acasxu_property(2).networks
    return tuple(SafetyTask(first=i, second=j, property_name="phi2") for i, j in networks)


def safety_task(name: str) -> SafetyTask:
    """The task of a name such as "N2,9-phi8".

    Args:
        name: of one of CARE's three tasks, of the 36 later ones, or of ProRepair's.

    Raises:
        ValueError: no task of that name.

    Example:
        >>> from carelab.lab.safety_tasks import safety_task
        >>> safety_task("N3,3-phi2s").layer
        'relu5'
    """
    known = {task.name: task for task in (*prorepair_tasks(), *later_tasks(), *CARE_TASKS)}
    if name not in known:
        named = ", ".join(task.name for task in CARE_TASKS)
        raise ValueError(
            f"name: got {name!r}; allowed: embedded, {named}, or N2,1 to N5,9 with -phi2"
        )
    return known[name]


def safety_case(task: SafetyTask) -> SafetyCase:
    """The network, the property and the units of a task on ACAS Xu.

    Args:
        task: the task.

    Raises:
        DataError: the network's file is damaged, or missing and cannot be fetched.
        ValueError: a network or a property that does not exist, or a property of two boxes.

    Example:
        >>> from carelab.lab.safety_tasks import CARE_TASKS, safety_case
        >>> safety_case(CARE_TASKS[0]).statement  # doctest: +SKIP
        'WL or COC is advised'
    """
    prop, statement = _property(task.property_name)
    controller: AcasXu = acasxu_network(task.first, task.second)
    return SafetyCase(
        name=task.name,
        layer=task.layer,
        alpha=task.alpha,
        model=controller.network,
        prop=prop,
        statement=statement,
        low=controller.low,
        high=controller.high,
        normalisation=controller.normalisation,
        features=controller.features,
        advisories=controller.advisories,
        still=still_to_hold(task),
        source=controller.source,
        sha256=controller.sha256,
        licence=controller.licence,
    )


def still_to_hold(task: SafetyTask) -> tuple[tuple[str, OutputRegions], ...]:
    """The properties 1, 3 and 4 that hold of the network as published and must not be lost.

    Property 1 holds of all 45 networks, 3 and 4 of all but N1,7, N1,8 and N1,9.

    Args:
        task: the task; a property that it repairs is left out.

    Source: Katz et al., Reluplex, CAV 2017, table 2; decided there and again by later verifiers.

    Example:
        >>> from carelab.lab.safety_tasks import safety_task, still_to_hold
        >>> [name for name, _ in still_to_hold(safety_task("N1,9-phi7"))]
        ['phi1']
    """
    lacking = (task.first, task.second) in _WITHOUT_3_AND_4
    numbers = (1,) if lacking else (1, 3, 4)
    return tuple(
        (f"phi{number}", acasxu_property(number).regions[0])
        for number in numbers
        if f"phi{number}" != task.property_name
    )


def _property(name: str) -> tuple[OutputRegions, str]:
    """The regions of a property by name, and its statement."""
    if name == STRENGTHENED:
        low, high = region_box(acasxu_property(2).regions[0])
        regions = required_lowest(
            [_CLEAR], len(ACASXU_ADVISORIES), low=low, high=high, scale=_SCALE, name=name
        )
        return regions, "COC is advised"
    known = {f"phi{number}": number for number in range(1, 11)}
    if name not in known:
        raise ValueError(f"property_name: got {name!r}; allowed: phi1 to phi10, or {STRENGTHENED}")
    prop = acasxu_property(known[name])
    if len(prop.regions) > 1:
        raise ValueError(f"property_name: {name} has two boxes; allowed: a property of one box")
    return prop.regions[0], prop.statement
