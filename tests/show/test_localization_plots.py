from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_hex

from carelab.causal.choice import ALL_LAYERS, Candidate, Choice
from carelab.causal.kill_curves import KillCurve, RankOverlap
from carelab.records import Interval, Neuron
from carelab.show import localization_plots as plots

UNITS = tuple(Neuron("relu1", index) for index in range(3))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def score(mean: float) -> dict[str, Interval]:
    return {"average_precision": Interval(mean=mean, low=mean - 0.05, high=mean + 0.1, n=7)}


def curve(rates: list[float]) -> KillCurve:
    return KillCurve(
        units=UNITS,
        counts=torch.arange(len(rates)),
        violation_rate=torch.tensor(rates, dtype=torch.float64),
        accuracy=torch.full((len(rates),), 0.75),
        changed=torch.zeros(len(rates)),
        violating=40,
        labelled=50,
    )


def choice() -> Choice:
    candidates = tuple(
        Candidate(
            localizer="patching",
            layer=layer,
            curve=curve([1, 0.5, 0.1, 0.1]),
            cost=torch.tensor(costs),
            cost_error=torch.tensor([0.1, 0.1, 0.2, 0.1]),
        )
        for layer, costs in (("relu1", [1, 0.5, 0.2, 0.9]), (ALL_LAYERS, [1, 0.35, 0.6, 1.5]))
    )
    return Choice(
        units=UNITS[:1],
        candidate=1,
        point=1,
        best_candidate=0,
        best_point=2,
        candidates=candidates,
        why="by hand",
    )


def test_scores_are_drawn_in_percent_with_their_intervals() -> None:
    ax = plots.localizer_scores(
        {
            "care_mean": {"weak": score(0.1), "strong": score(0.2)},
            "patching": {"weak": score(0.7), "strong": score(0.9)},
        }
    )
    assert [text.get_text() for text in ax.get_yticklabels()] == ["care mean", "patching"]
    weak, strong = ax.containers
    torch.testing.assert_close(
        torch.tensor(weak[0].get_xdata()), torch.tensor([10.0, 70.0]).double()
    )
    (bars,) = strong[2]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    assert ends[1] == pytest.approx([85, 100])
    # The first localiser stands on top, groups beside each other, not on top of each other.
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert weak[0].get_ydata()[0] != strong[0].get_ydata()[0]
    assert weak[0].get_marker() != strong[0].get_marker()
    assert ax.get_xlabel() == "average precision (%)"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "weak, n = 7",
        "strong, n = 7",
    ]


def test_kill_curves_show_both_quantities_and_how_many_samples() -> None:
    ax = plots.kill_curves(
        {"patching": curve([1, 0.5, 0, 0]), "random": curve([1, 1, 1, 0])}, marked=2, most=3
    )
    rates = [line.get_ydata().tolist() for line in ax.get_lines() if line.get_marker() in "os"]
    assert rates == [[100, 50, 0, 0], [100, 100, 100, 0]]
    faint = [line for line in ax.get_lines() if line.get_alpha()]
    assert [set(line.get_ydata().tolist()) for line in faint] == [{75.0}, {75.0}]
    assert "n = 40 violating, 50 labelled" in ax.get_title()
    # Trapezoids of the first: (0.75 + 0.25 + 0) / 3.
    assert ax.get_legend().get_texts()[0].get_text() == "patching (area 33 %)"
    assert "2 guilty" in [text.get_text() for text in ax.texts]
    assert ax.get_xlim()[1] == 3


def test_the_overlap_is_written_into_the_map() -> None:
    shared = torch.tensor([[1.0, 0.25], [0.25, 1.0]])
    overlap = RankOverlap(names=("a_b", "c"), count=4, shared=shared, correlation=shared)
    ax = plots.overlap_map(overlap)
    assert [text.get_text() for text in ax.texts] == ["100", "25", "25", "100"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a b", "c"]
    # Dark letters on light squares, light ones on dark squares.
    assert [to_hex(text.get_color()) for text in ax.texts[:2]] == ["#000000", "#ffffff"]
    assert "first 4" in ax.get_title()


def test_the_choice_shows_every_candidate_and_the_chosen_point() -> None:
    ax = plots.choice_evidence(choice())
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [
        "relu1",
        ALL_LAYERS,
        "lowest cost + one standard error",
        f"chosen: 1 of {ALL_LAYERS}",
    ]
    star = next(line for line in ax.get_lines() if line.get_marker() == "*")
    assert (star.get_xdata()[0], pytest.approx(star.get_ydata()[0])) == (1, 0.35)
    limit = next(
        line
        for line in ax.get_lines()
        if line.get_linestyle() == ":" and line.get_label().startswith("lowest")
    )
    assert limit.get_ydata()[0] == pytest.approx(0.4)
    assert ax.get_ylim()[1] == pytest.approx(1.55)


def test_the_axes_given_are_drawn_on() -> None:
    figure, axes = pyplot.subplots(1, 4)
    drawn = [
        plots.localizer_scores({"a": {"weak": score(0.5)}}, ax=axes[0]),
        plots.kill_curves({"a": curve([1, 0])}, ax=axes[1]),
        plots.overlap_map(
            RankOverlap(names=("a",), count=1, shared=torch.eye(1), correlation=torch.eye(1)),
            ax=axes[2],
        ),
        plots.choice_evidence(choice(), ax=axes[3], most=2, label="Why"),
    ]
    assert drawn == list(axes)
    assert axes[3].get_title() == "Why"
    assert axes[3].get_xlim()[1] == pytest.approx(2.3)
    assert figure.axes[:4] == list(axes)


def test_misuse() -> None:
    with pytest.raises(ValueError, match="scores: got none"):
        plots.localizer_scores({})
    with pytest.raises(ValueError, match="scores: got none"):
        plots.localizer_scores({"a": {}})
    with pytest.raises(ValueError, match="measure: got 'speed', which a has not"):
        plots.localizer_scores({"a": {"weak": score(0.5)}}, measure="speed")
    with pytest.raises(ValueError, match="curves: got none"):
        plots.kill_curves({})
