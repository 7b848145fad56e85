"""The lesson on biased credit: worlds whose biases are set, and networks that learned in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from carelab.data import causal_truth, credit_model, draw_units, embedded_credit
from carelab.data.truth import CausalTruth
from carelab.lab.teaching import Check, Feedback
from carelab.networks import accuracy, fit, mlp, predict
from carelab.properties import IndividualFairness, individual_fairness, violation_rate
from carelab.records import Dataset, Samples
from carelab.show.teaching_plots import share_bars

__all__ = [
    "CreditWorld",
    "credit_world",
    "draw_worlds",
    "refusal_gap",
    "world_check",
    "world_drawer",
]

_STRENGTHS = (-3.0, 3.0)
_PEOPLE = 20_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CreditWorld:
    """A world whose biases are known, and a network that learned to decide in it.

    Args:
        strengths: strength of the direct, the mediated and the spurious path.
        dataset: the table drawn from that world.
        truth: the true causal effects of sex in it.
        fair: that the decision does not change with sex alone.
        model: the network.
        people: people from the same world whom neither training nor choice saw.
        accuracy: fraction of them classified right.
        gap: fraction of women refused minus fraction of men refused, among them.
        flipped: fraction of them whose decision changes when only the entry for sex does.
    """

    strengths: tuple[float, float, float]
    dataset: Dataset
    truth: CausalTruth
    fair: IndividualFairness
    model: nn.Module
    people: Samples
    accuracy: float
    gap: float
    flipped: float


def credit_world(
    direct: float,
    mediated: float,
    spurious: float,
    *,
    rows: int = 3000,
    widths: Sequence[int] = (16, 8),
    generator: torch.Generator,
) -> CreditWorld:
    """A credit table drawn with the given biases, and a network that learned it.

    Args:
        direct: strength of the direct path from sex to bad credit, -3 to 3; 0 removes it.
        mediated: strength of the paths through job, employment and savings, -3 to 3.
        spurious: strength of the confounding by age, -3 to 3.
        rows: people in the table, of which 60 % are learned from.
        widths: neurons of each hidden layer.
        generator: draws everything.

    Raises:
        ValueError: a strength out of range, or fewer than 10 rows.

    Example:
        >>> import torch
        >>> from carelab.lab.lesson_credit import credit_world
        >>> world = credit_world(0, 0, 0, rows=300, generator=torch.Generator().manual_seed(0))
        >>> world.truth.direct.value
        0.0
    """
    strengths = (float(direct), float(mediated), float(spurious))
    if not all(_STRENGTHS[0] <= one <= _STRENGTHS[1] for one in strengths):
        raise ValueError(f"direct, mediated, spurious: got {strengths}; allowed: -3 to 3 each")
    named = dict(zip(("direct", "mediated", "spurious"), strengths, strict=True))
    table = embedded_credit(**named, rows=rows, generator=generator)
    equations = credit_model(**named)
    truth = causal_truth(equations, units=100_000, generator=generator)
    start = mlp(len(table.features), widths, 2, generator=generator)
    model = fit(
        start,
        table.train,
        selection=table.selection,
        epochs=40,
        learning_rate=5e-3,
        generator=generator,
    )
    fair = individual_fairness(table, "sex")
    # The equations give as many people as one likes, so that chance hardly moves a measure.
    units = draw_units(equations, _PEOPLE, generator=generator)
    people = Samples(inputs=units.inputs.float(), labels=units.labels)
    return CreditWorld(
        strengths=strengths,
        dataset=table,
        truth=truth,
        fair=fair,
        model=model,
        people=people,
        accuracy=accuracy(model, people),
        gap=refusal_gap(model, table, people),
        flipped=violation_rate(model, people, fair),
    )


def refusal_gap(model: nn.Module, table: Dataset, people: Samples) -> float:
    """Fraction of women whom the network refuses credit, minus that of men.

    Args:
        model: the network.
        table: the credit table, for its feature "sex" (1: female).
        people: whom it decides on, of both sexes.

    Raises:
        ValueError: people of one sex only.

    Example:
        >>> import torch
        >>> from carelab import data, networks
        >>> from carelab.lab.lesson_credit import refusal_gap
        >>> g = torch.Generator().manual_seed(0)
        >>> table = data.embedded_credit(rows=300, generator=g)
        >>> model = networks.mlp(10, (4,), 2, generator=g)
        >>> -1 <= refusal_gap(model, table, table.test) <= 1
        True
    """
    (column,) = table.feature("sex").columns
    female = people.inputs[:, column] == 1
    if bool(female.all()) or not bool(female.any()):
        raise ValueError("people: got one sex only; allowed: people of both")
    refused = predict(model, people.inputs).double()
    return float(refused[female].mean() - refused[~female].mean())


def draw_worlds(figure: Figure, worlds: Mapping[str, CreditWorld]) -> tuple[Axes, Axes]:
    """What is true in each world, beside what the network decides there.

    Args:
        figure: an empty figure.
        worlds: {what it is called: the world}.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from carelab.lab.lesson_credit import credit_world, draw_worlds
        >>> world = credit_world(1, 0, 0, rows=300, generator=torch.Generator().manual_seed(0))
        >>> left, right = draw_worlds(Figure(), {"direct only": world})
    """
    left, right = figure.subplots(1, 2)
    paths = {
        name: {
            path.replace("_", " "): getattr(world.truth, path).value
            for path in ("direct", "mediated", "spurious")
        }
        for name, world in worlds.items()
    }
    share_bars(paths, ax=left, label="True: how each path raises P(bad credit) of women")
    decisions = {
        name: {"more women refused than men": world.gap, "sex alone changes it": world.flipped}
        for name, world in worlds.items()
    }
    share_bars(decisions, ax=right, label=f"The network's decisions on {_PEOPLE:,} new people")
    return left, right


def world_drawer(*, rows: int, generator: torch.Generator) -> Callable[..., tuple[Axes, Axes]]:
    """What draws the world of given strengths into a figure, for `teaching.explore`.

    Args:
        rows: people in each table.
        generator: gives the seed from which every world is drawn.

    Returns:
        A function of an empty figure, `direct`, `mediated` and `spurious`.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from carelab.lab.lesson_credit import world_drawer
        >>> draw = world_drawer(rows=300, generator=torch.Generator().manual_seed(0))
        >>> left, right = draw(Figure(), direct=1, mediated=0, spurious=0)
    """
    build = _builder(rows, generator)

    def draw(
        figure: Figure, *, direct: float, mediated: float, spurious: float
    ) -> tuple[Axes, Axes]:
        return draw_worlds(figure, {"your world": build(direct, mediated, spurious)})

    return draw


def world_check(
    *, rows: int, gap: float = 0.3, flipped: float = 0.12, generator: torch.Generator
) -> Check:
    """A check for strengths under which the groups fare differently, but not for their sex alone.

    Args:
        rows: people in the table that is drawn for each answer.
        gap: what the gap between the groups must reach, as a fraction of the people.
        flipped: what the share of decisions that hang on sex alone must stay below.
        generator: gives the seed from which the table and network of every answer are drawn.

    Returns:
        A check of three numbers: direct, mediated, spurious.

    Example:
        >>> import torch
        >>> from carelab.lab.lesson_credit import world_check
        >>> check = world_check(rows=300, generator=torch.Generator().manual_seed(0))
        >>> check([1, 2]).message
        'Give three numbers: direct, mediated, spurious.'
    """
    build = _builder(rows, generator)

    def check(answer: Any) -> Feedback:
        listed = isinstance(answer, Sequence) and not isinstance(answer, str)
        if not listed or [type(one) in (int, float) for one in answer] != [True] * 3:
            message = "Give three numbers: direct, mediated, spurious."
            return Feedback(status="wrong", message=message)
        world = build(*map(float, answer))
        said = f"{world.gap:.0%} more women are refused, and sex alone changes {world.flipped:.0%}"
        if world.gap < gap:
            return Feedback(status="wrong", message=f"{said}; the gap must reach {gap:.0%}.")
        if world.flipped >= flipped:
            message = f"{said} of the decisions; that must stay below {flipped:.0%}."
            return Feedback(status="wrong", message=message)
        return Feedback(status="right", message=f"{said} of the decisions.")

    return check


def _builder(rows: int, generator: torch.Generator) -> Callable[[float, float, float], CreditWorld]:
    """Makes worlds that differ in their strengths only: each is drawn from the same seed."""
    seed = int(torch.randint(2**62, (), generator=generator))

    def build(direct: float, mediated: float, spurious: float) -> CreditWorld:
        own = torch.Generator().manual_seed(seed)
        return credit_world(direct, mediated, spurious, rows=rows, generator=own)

    return build
