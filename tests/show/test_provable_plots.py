from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.axes import Axes

from carelab.show import provable_plots as plots


def row(network: str, *, fidelity: float = 0.99, status: str = "proved") -> dict[str, Any]:
    return {
        "network": network,
        "property": "phi2",
        "status": status,
        "fidelity_domain": fidelity,
        "fidelity_constant": 0.85,
        "seconds_repair": 1.0,
        "seconds_proof": 2.0,
        "seconds_check": 0.5,
    }


def test_changed_advice_is_in_percent_and_no_change_is_drawn_at_the_foot() -> None:
    ours = [row("N2,1", fidelity=0.999), row("N2,2", fidelity=1.0)]
    axes = plots.advice_changed({"ours": ours})
    (points, constant) = axes.get_lines()
    assert points.get_ydata() == pytest.approx([0.1, 1e-4])
    assert constant.get_ydata() == pytest.approx([15, 15])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["N2,1 phi2", "N2,2 phi2"]


def test_what_is_not_proved_is_drawn_empty() -> None:
    rows = [row("N2,1"), row("N2,2", status="unknown")]
    axes = plots.advice_changed({"prorepair": rows})
    styles = {line.get_label(): line.get_fillstyle() for line in axes.get_lines()}
    assert styles["prorepair, proved"] == "full"
    assert styles["prorepair, not proved"] == "none"


def test_seconds_are_stacked() -> None:
    axes = plots.repair_seconds([row("N2,1")])
    assert max(bar.get_y() + bar.get_height() for bar in axes.patches) == pytest.approx(3.5)


def test_rounds_are_drawn_in_order() -> None:
    rounds = [
        {"status": "refuted", "share_proved": 0.0},
        {"status": "unknown", "share_proved": 0.4},
        {"status": "proved", "share_proved": 1.0},
    ]
    axes = plots.proof_rounds({"N2,1 phi2": rounds})
    assert axes.get_lines()[0].get_ydata() == pytest.approx([0, 40, 100])
    assert [line.get_marker() for line in axes.get_lines()[1:]] == ["x", "o", "*"]


@pytest.mark.parametrize(
    ("draw", "nothing"),
    [(plots.advice_changed, {}), (plots.repair_seconds, []), (plots.proof_rounds, {})],
)
def test_nothing_to_draw_is_refused(draw: Callable[[object], Axes], nothing: object) -> None:
    with pytest.raises(ValueError, match="allowed: at least one"):
        draw(nothing)


def test_methods_of_different_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="the same for every method"):
        plots.advice_changed({"ours": [row("N2,1")], "prorepair": [row("N2,2")]})
