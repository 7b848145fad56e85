"""The widget without a browser: what it tells the view, and what it does when asked."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from carelab.networks import fingerprint, load, mlp
from carelab.properties import TargetClass, never_lowest
from carelab.repair import load_repair
from carelab.show.explorer import Change, Explorer, explore
from carelab.show.explorer.pages import static_page
from tests.show.explorer_worlds import biased_credit, credit_engine


@pytest.fixture
def shown() -> Explorer:
    return Explorer(credit_engine())


def _ask(explorer, **event) -> None:
    explorer._on_message(explorer, {"id": 7, **event}, [])


def _screen(explorer):
    return {one["name"]: one["now"] for one in explorer.live["readings"]}


def test_a_request_is_answered_with_its_number_and_the_readings(shown):
    layer, index = shown.map["neurons"][shown.map["guilty"][0]]
    _ask(shown, kind="change", changes=[[layer, index, None, 0.25]])
    assert shown.live["reply"] == 7
    assert shown.live["changes"] == [[layer, index, None, 0.25]]
    assert _screen(shown) == {one.name: one.now for one in shown.readings}
    assert _screen(shown) != {one.name: one.before for one in shown.readings}
    _ask(shown, kind="clear")
    assert shown.live["changes"] == []
    assert shown.handled == 2


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"kind": "dance"}, "kind: got 'dance'; allowed: stop, select"),
        ({"kind": "select", "neuron": ["relu1", 99]}, r"neuron: got relu1\[99\]"),
        ({"kind": "rank", "method": "guess", "count": 3}, "method: got 'guess'"),
        ({"kind": "undo"}, "nothing was repaired"),
        ({"kind": "keep"}, "changes: got none"),
        ({"kind": "side", "edit": {"feature": 99}}, "feature: got 99"),
        ({"kind": "export", "file": "../passwd"}, "file: got '../passwd'; allowed: repair"),
        ({"kind": "export", "file": "repair.safetensors"}, "nothing was repaired"),
        ({"kind": "change"}, "changes"),
    ],
)
def test_a_request_that_cannot_be_met_is_answered_with_the_reason(shown, event, message):
    _ask(shown, **event)
    assert re.search(message, shown.notice)
    assert shown.live["reply"] == 7
    _ask(shown, kind="clear")
    assert shown.notice == ""


def test_the_map_tells_of_every_neuron_its_effect_rank_and_range(shown):
    engine = shown.engine
    state = shown.map
    assert [tuple(one) for one in state["neurons"]] == [(n.layer, n.index) for n in engine.neurons]
    assert state["layers"] == [["relu1", 8], ["relu2", 6]]
    by_rank = sorted(range(14), key=lambda cell: state["rank"][cell])
    assert [engine.neurons[cell] for cell in by_rank] == list(engine.ranking.units)
    assert state["guilty"] == by_rank[: state["count"]]
    assert state["effect"] == pytest.approx(engine.guilt.effect.tolist(), rel=1e-5)
    _ask(shown, kind="rank", method="zero_ablation", count=2, layer="relu2")
    assert shown.map["method"] == "zero_ablation"
    assert len(shown.map["guilty"]) == 2


def test_a_repair_runs_in_the_background_is_stopped_and_undone(shown):
    shown.start_repair(iterations=100_000)
    with pytest.raises(ValueError, match="a search is running"):
        shown.start_repair()
    _ask(shown, kind="stop")
    shown.wait()
    assert shown.search["running"] is False
    assert shown.search["stopped"] is True
    assert shown.search["iteration"] < 100_000
    shown.start_repair(iterations=4)
    shown.wait()
    assert shown.search["iteration"] == 4
    assert len(shown.search["history"]) == 5
    depth = shown.live["undo"]
    assert depth == len(shown.engine.repairs) > 0
    assert len(shown.live["repaired"]) == len(shown.repair.neurons)
    assert fingerprint(shown.network) == shown.repair.repaired
    for _ in range(depth):
        shown.undo()
    assert shown.live["repaired"] == []
    assert _screen(shown) == {one.name: one.before for one in shown.readings}


def test_what_is_saved_can_be_read_again(shown, tmp_path):
    shown.start_repair(iterations=3)
    shown.wait()
    shown.save(tmp_path / "out")
    repair = load_repair(tmp_path / "out/repair.safetensors")
    assert torch.equal(repair.factors, shown.repair.factors)
    assert fingerprint(load(tmp_path / "out/network.safetensors")) == repair.repaired
    page = (tmp_path / "out/explorer.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out").glob("*.partial"))
    assert page == shown.page()


def test_a_search_that_breaks_is_over_and_says_why(shown, monkeypatch):
    def fail(**_knobs):
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(shown.engine, "search", fail)
    shown.start_repair(iterations=3)
    shown.wait()
    assert shown.search["running"] is False
    assert shown.notice == "not enough memory"


def test_after_a_repair_the_page_has_the_new_curves_of_the_guilty_neurons(shown):
    shown.start_repair(iterations=3)
    shown.wait()
    assert shown.repair is not None
    text = shown.page().split('id="state">')[1].split("</script>")[0]
    portraits = json.loads(text)["portraits"]
    renewed = [cell for cell, one in enumerate(portraits) if "now_curve" in one]
    assert renewed == sorted(shown.map["guilty"])


def test_files_go_to_the_view_as_bytes(shown, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(
        shown, "send", lambda content, buffers=None: sent.append((content, buffers))
    )
    _ask(shown, kind="export", file="network.safetensors")
    ((content, (data,)),) = sent
    assert content == {"kind": "file", "name": "network.safetensors"}
    (tmp_path / "a.safetensors").write_bytes(data)
    assert fingerprint(load(tmp_path / "a.safetensors")) == fingerprint(shown.network)


def test_the_page_holds_its_state_and_asks_for_nothing(shown):
    page = shown.page()
    text = page.split('id="state">')[1].split("</script>")[0]
    state = json.loads(text)
    assert state["live"]["readings"] == shown.live["readings"]
    assert len(state["portraits"]) == len(shown.map["neurons"])
    assert not re.search(r"(src|href)\s*=\s*[\"']https?:", page)
    assert "import " not in page.split('<script type="module">')[1].split("\n")[1]


def test_a_title_cannot_break_out_of_the_page():
    script = "const view = {}; export default view;"
    page = static_page({"scene": {"title": "</script><b>&"}}, script, "")
    assert page.count("</script>") == 2
    assert "<title>&lt;/script><b>&amp;</title>" in page.replace("&lt;b>", "<b>")
    with pytest.raises(ValueError, match="script: has no last line"):
        static_page({}, "const view = 1;", "")


def test_a_network_that_cannot_be_explored_says_so_in_place():
    model, table, fair = biased_credit()
    given = {"generator": torch.Generator().manual_seed(0)}
    flat = nn.Sequential(nn.Linear(10, 2)).eval()
    assert "no hidden neuron" in explore(flat, table, fair, **given).problem
    broken, _, _ = biased_credit()
    with torch.no_grad():
        broken.linear1.weight[0, 0] = torch.inf
    assert "not finite" in explore(broken, table, fair, **given).problem
    assert "training mode" in explore(model.train(), table, fair, **given).problem
    nested = nn.ModuleList([nn.Linear(2, 2)]).eval()
    assert "only sequential networks" in explore(nested, table, fair, **given).problem
    assert "allowed: a Dataset" in explore(model.eval(), None, fair, **given).problem
    with pytest.raises(ValueError, match="no hidden neuron"):
        _ = explore(flat, table, fair, **given).engine


def test_a_property_of_ones_own_is_explored_without_an_input_side():
    _, table, _ = biased_credit()
    generator = torch.Generator().manual_seed(0)
    model = mlp(len(table.features), (8,), 2, generator=generator)
    shown = explore(model, table, TargetClass(target=1, name="no bad credit"), generator=generator)
    if shown.problem:
        pytest.fail(shown.problem)
    assert shown.side == {}
    assert shown.scene["property"] == "no bad credit"


def test_a_controller_of_ones_own_is_explored_in_its_box():
    generator = torch.Generator().manual_seed(0)
    model = mlp(3, (8, 8), 3, generator=generator)
    box = {"low": torch.zeros(3), "high": torch.ones(3)}
    lowest = int(model(torch.full((1, 3), 0.5)).argmin())
    prop = never_lowest(lowest, 3, **box)
    with torch.no_grad():  # not everywhere, so that there are points of both kinds
        middle = model(torch.rand(200, 3, generator=generator))
        others = [one for one in range(3) if one != lowest]
        gap = middle[:, others].amin(dim=1) - middle[:, lowest]
        model.linear3.bias[lowest] += gap.median()
    shown = explore(model, None, prop, rows=100, generator=generator)
    assert shown.problem == ""
    readings = {one.name: one.now for one in shown.readings}
    assert readings == {"violation": 1.0, "broken": 0.0, "kept": 1.0}
    assert shown.side["kind"] == "slice"
    assert shown.side["features"] == ["input 1", "input 2", "input 3"]
    shown.change(shown.engine.neurons, Change(value=0.0))
    assert {one.name: one.now for one in shown.readings} != readings
