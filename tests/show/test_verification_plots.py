from __future__ import annotations

import pytest
from matplotlib import pyplot as plt

from carelab.show.verification_plots import cactus, status_table


def test_a_table_has_a_cell_for_each_query() -> None:
    statuses = {("a", "p"): "proved", ("b", "p"): "unknown", ("a", "q"): "refuted"}
    statuses[("b", "q")] = "proved"
    seconds = dict.fromkeys(statuses, 1.26)
    ax = status_table(["a", "b"], ["p", "q"], statuses, seconds, label="title")
    assert [text.get_text() for text in ax.texts] == ["1.3", "?", "1.3", "1.3"]
    assert ax.images[0].get_array().tolist() == [[0, 2], [1, 0]]
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown == ["proved (2)", "refuted (1)", "unknown (1)"]
    assert ax.get_title(loc="right") == "title"
    plt.close("all")


def test_a_cactus_counts_queries_by_time() -> None:
    ax = cactus({"p": [3.0, 0.2, 1.0], "q": [0.0]})
    assert ax.lines[0].get_xdata().tolist() == [0.2, 1.0, 3.0]
    assert ax.lines[0].get_ydata().tolist() == [1, 2, 3]
    assert ax.lines[1].get_xdata().tolist() == [1e-3]
    plt.close("all")


def test_misuse() -> None:
    with pytest.raises(ValueError, match="allowed: at least one of each, statuses proved"):
        status_table(["a"], ["p"], {("a", "p"): "true"}, {("a", "p"): 1.0})
    with pytest.raises(ValueError, match="got no decided query"):
        cactus({"p": []})
