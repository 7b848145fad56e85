import pytest
from matplotlib import pyplot as plt

from carelab.lab import interval
from carelab.show.frontier_plots import frontier


def measures(drop: float, rate: float) -> dict:
    return {
        "accuracy_drop": interval([drop, drop]),
        "unfair_rate_rows": interval([rate, rate]),
    }


def test_points_stand_in_percent_and_nothing_falls_off_the_logarithm() -> None:
    methods = {
        "ours": [measures(0.02, 0.0), measures(0.01, 0.05)],
        "hold_constant": [measures(0.03, 0.0)],
    }
    ax = frontier(methods, measures(0.0, 0.2), label="task")
    line = ax.containers[0].lines[0]
    assert line.get_xdata().tolist() == pytest.approx([0.02, 5.0])
    assert line.get_ydata().tolist() == pytest.approx([2.0, 1.0])
    dashed = [one for one in ax.lines if one.get_linestyle() == "--"]
    # 95 % less than 20 %, and half of the 3 points that the constant costs.
    assert dashed[0].get_xdata()[0] == pytest.approx(1.0)
    assert dashed[1].get_ydata()[0] == pytest.approx(1.5)
    assert ax.get_title() == "task"
    plt.close("all")


def test_misuse() -> None:
    with pytest.raises(ValueError, match="methods: got none"):
        frontier({}, measures(0.0, 0.2))
