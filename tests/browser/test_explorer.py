"""The explorer in JupyterLab and in Voila: what is on the screen is what the Python API says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from carelab.networks import fingerprint, load
from carelab.records import Neuron
from carelab.repair import apply_repair, load_repair
from carelab.show.explorer import Change, Explorer
from tests.browser import studio

TEMPLATES = Path(__file__).resolve().parents[2] / "notebooks"
SHOTS = Path(__file__).resolve().parents[2] / ".runs" / "browser"
SIZES = ((1280, 800), (1920, 1080), (1024, 768), (800, 600))
EXPLORER = """
import torch

import carelab as cl
from carelab.show import explorer

g = cl.lab.start(seed=0)
table = cl.data.embedded_credit(rows=2000, generator=g)
start = cl.networks.mlp(len(table.features), (32, 16, 8), 2, generator=g)
model = cl.networks.fit(start, table.train, selection=table.selection, generator=g)
fair = cl.properties.individual_fairness(table, "sex")
shown = explorer.explore(model, table, fair, generator=g)
"""
FLAT = """
flat = torch.nn.Sequential(torch.nn.Linear(10, 2)).eval()
explorer.explore(flat, table, fair, generator=g)
"""
BROKEN = """
broken = cl.networks.mlp(10, (8,), 2, generator=g)
with torch.no_grad():
    broken.linear1.weight[:2, 0] = float("nan")
explorer.explore(broken, table, fair, generator=g)
"""
WIDE = """
wide = cl.networks.mlp(10, (10_000,), 2, generator=g)
explorer.explore(wide, table, fair, generator=g)
"""
SIDES = """
import torch

import carelab as cl
from carelab.lab.backdoor_cases import backdoor_case
from carelab.show import explorer

g = cl.lab.start(seed=0)
case = backdoor_case("digits", epochs=5)
target = cl.properties.TargetClass(target=case.attack.target)
reader = explorer.explore(
    case.model, case.dataset, target, attack=case.attack, rows=200, generator=g)
net = cl.networks.mlp(2, (8,), 3, generator=torch.Generator().manual_seed(0))
rule = cl.properties.never_lowest(0, 3, low=-torch.ones(2), high=torch.ones(2))
pilot = explorer.explore(net, None, rule, rows=200, generator=g)
"""


def made_here(code: str, name: str) -> Explorer:
    """The explorer that a notebook shows, made here by the same code."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names[name]


@pytest.fixture(scope="module")
def expected() -> Explorer:
    return made_here(EXPLORER, "shown")


@pytest.fixture(scope="module")
def in_lab(opened, tmp_path_factory) -> Iterator[studio.Page]:
    folder = tmp_path_factory.mktemp("lab")
    studio.notebook(folder / "explorer.ipynb", [EXPLORER + "shown", FLAT, BROKEN, WIDE])
    with studio.lab(folder) as address:
        page = studio.new_page(opened, SIZES[0])
        studio.open_in_lab(page, address, "explorer")
        yield page


def find(page: studio.Page, selector: str, at: int = 0) -> Any:
    return page.page.locator(".carelab-explorer").nth(at).locator(selector)


def act(page: studio.Page, move: Any, at: int = 0) -> None:
    """Make a move and wait until its answer is on the screen."""
    before = studio.log_of(page, at)["answered"]
    move()
    studio.settle(page, before, at)


def assert_screen_equals(page: studio.Page, explorer: Explorer) -> None:
    shown = studio.readings(page)
    assert shown == pytest.approx({one.name: one.now for one in explorer.readings}, abs=1e-9)
    assert [f"{100 * one.now:.1f} %" for one in explorer.readings] == [
        text.strip() for text in find(page, ".reading .value").all_inner_texts()
    ]


def release(page: studio.Page, explorer: Explorer) -> None:
    """Take back all changes by hand, on the screen and here."""
    if find(page, "button.clear").is_enabled():
        act(page, lambda: find(page, "button.clear").click())
    explorer.engine.clear()


def set_slider(page: studio.Page, name: str, value: float) -> None:
    """Move a slider as an arrow key does: an input event, then a change event."""
    find(page, f"input.{name}").evaluate(
        """(slider, value) => {
            slider.value = value;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            slider.dispatchEvent(new Event("change", { bubbles: true }));
        }""",
        value,
    )


def test_a_click_shows_the_neuron_and_the_numbers_equal_the_api(in_lab, expected):
    assert_screen_equals(in_lab, expected)
    neuron = Neuron("relu2", 3)
    cell = expected.engine.neurons.index(neuron)
    act(in_lab, lambda: find(in_lab, f"[data-cell='{cell}'] rect").first.click())
    assert find(in_lab, ".neuron-name").inner_text() == "relu2[3]"
    expected.select(neuron)
    assert expected.neuron["neuron"] == ["relu2", 3]
    act(in_lab, lambda: set_slider(in_lab, "factor", 0.5))
    expected.change([neuron], Change(factor=0.5))
    assert_screen_equals(in_lab, expected)
    act(in_lab, lambda: set_slider(in_lab, "hold", 0.25))
    low, high = (expected.map[end][cell] for end in ("low", "high"))
    expected.change([neuron], Change(value=low + 0.25 * (high - low)))
    assert_screen_equals(in_lab, expected)
    act(in_lab, lambda: find(in_lab, "button.clear").click())
    expected.change([neuron], None)
    assert_screen_equals(in_lab, expected)


def test_a_drag_never_queues_stale_events(in_lab, expected):
    before = studio.log_of(in_lab)
    slider = find(in_lab, "input.factor")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    mouse = in_lab.page.mouse
    middle = box["y"] + box["height"] / 2
    mouse.move(box["x"] + box["width"] / 2, middle)
    mouse.down()
    for step in range(80):
        mouse.move(box["x"] + box["width"] * (0.5 - 0.4 * step / 79), middle)
    mouse.up()
    studio.settle(in_lab, before["answered"])
    after = studio.log_of(in_lab)
    assert after["sent"] == after["answered"]
    assert 1 <= after["sent"] - before["sent"] < 80
    last = float(slider.input_value())
    assert last < 0.5
    expected.change([Neuron("relu2", 3)], Change(factor=last))
    assert_screen_equals(in_lab, expected)


def test_keys_move_select_and_scale(in_lab, expected):
    release(in_lab, expected)
    keyboard = in_lab.page.keyboard
    find(in_lab, "svg.cells").focus()
    act(in_lab, lambda: keyboard.press("g"))
    name = find(in_lab, ".neuron-name").inner_text()
    assert name in {str(neuron) for neuron in expected.engine.guilty}
    act(in_lab, lambda: keyboard.press("ArrowDown"))
    assert find(in_lab, ".neuron-name").inner_text() != name
    act(in_lab, lambda: keyboard.press("Shift+ArrowDown"))
    assert "2 neurons" in find(in_lab, ".whom").inner_text()
    find(in_lab, "input.factor").focus()
    act(in_lab, lambda: keyboard.press("ArrowLeft"))
    assert find(in_lab, "input.factor").input_value() == "0.98"


def test_a_row_is_edited_and_flips_as_the_network_says(in_lab, expected):
    release(in_lab, expected)
    act(in_lab, lambda: find(in_lab, "button[aria-label='next row']").click())
    expected.engine.edit_side({"step": 1})
    act(in_lab, lambda: find(in_lab, ".form select").nth(0).select_option(index=2))
    expected.engine.edit_side({"feature": 0, "value": 2})
    drawing = expected.engine.drawing()["before"]
    texts = [text for text in find(in_lab, ".variant .text").all_inner_texts()][::2]
    assert ["flips" in text for text in texts] == drawing["flips"]
    assert [text.split(" %")[0] for text in texts] == [
        f"{100 * chances[1]:.0f}" for chances in drawing["chances"]
    ]


def test_a_repair_is_stopped_saved_undone_and_read_again(in_lab, expected, tmp_path):
    page = in_lab.page
    find(in_lab, "button.repair").click()
    page.wait_for_function(
        """() => /iteration [1-9]/.test(
            document.querySelector(".carelab-explorer .status").textContent)"""
    )
    find(in_lab, "button.stop").click()
    page.wait_for_function(
        """() => !document.querySelector(".carelab-explorer button.undo").disabled"""
    )
    assert "repaired" in find(in_lab, ".status").inner_text()
    repaired = studio.readings(in_lab)
    files = {}
    for name in ("repair.safetensors", "network.safetensors", "explorer.html"):
        with page.expect_download() as download:
            find(in_lab, f"button[data-file='{name}']").click()
        files[name] = tmp_path / name
        download.value.save_as(files[name])
    repair = load_repair(files["repair.safetensors"])
    network = apply_repair(expected.engine.scene.model, repair)
    assert fingerprint(network) == fingerprint(load(files["network.safetensors"]))
    expected.engine.adopt(repair)
    assert repaired == pytest.approx({one.name: one.now for one in expected.readings}, abs=1e-9)
    assert 1 <= len(repair.history) - 1 < 60
    saved = in_lab.page.context.new_page()
    saved.goto(files["explorer.html"].as_uri())
    saved.locator(".carelab-explorer .reading").first.wait_for()
    assert "A saved page" in saved.locator(".frozen").inner_text()
    values = saved.locator(".reading .value").all_inner_texts()
    saved.locator("[data-cell='2'] rect").first.click()
    assert saved.locator(".neuron-name").inner_text() == str(expected.engine.neurons[2])
    saved.close()
    assert values == find(in_lab, ".reading .value").all_inner_texts()
    act(in_lab, lambda: find(in_lab, "button.undo").click())
    expected.undo()
    assert_screen_equals(in_lab, expected)


def test_networks_that_cannot_be_shown_say_why_in_place(in_lab):
    assert "no hidden neuron" in find(in_lab, ".problem", 1).inner_text()
    assert "linear1.weight holds 2 weights that are not finite" in (
        find(in_lab, ".problem", 2).inner_text()
    )


def test_ten_thousand_neurons_degrade_to_the_top_ones(in_lab):
    find(in_lab, ".reading", 3).first.wait_for()
    assert "240 of 10,000 neurons are shown" in find(in_lab, ".left-out", 3).inner_text()
    assert find(in_lab, ".cell", 3).count() == 240
    act(in_lab, lambda: find(in_lab, "[data-cell='7'] rect", 3).first.click(), 3)
    act(in_lab, lambda: find(in_lab, "input.factor", 3).press("ArrowLeft"), 3)
    assert studio.log_of(in_lab, 3)["latencies"][-1] < 5000


def test_hovering_tells_all_that_is_known_of_a_neuron(in_lab, expected):
    release(in_lab, expected)
    cell = expected.map["guilty"][0]
    act(in_lab, lambda: find(in_lab, f"[data-cell='{cell}'] rect").first.click())
    act(in_lab, lambda: set_slider(in_lab, "factor", 0.5))
    in_lab.page.mouse.move(1, 1)
    find(in_lab, f"[data-cell='{cell}'] rect").first.hover()
    name, effect, rank, activation, change = find(in_lab, ".tip").inner_text().splitlines()
    assert name == str(expected.engine.neurons[cell])
    assert float(effect.split()[1]) == pytest.approx(expected.map["effect"][cell], rel=0.05)
    assert float(effect.split()[3]) == pytest.approx(expected.map["reach"][cell], rel=0.05)
    assert effect.endswith("(95 %)")
    assert rank.startswith("rank 1 of 56")
    assert activation.startswith("activation 0 to ")
    assert change.startswith("scaled by hand:")
    assert change.endswith(" 0.5")
    release(in_lab, expected)


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_cut_off(in_lab, size):
    in_lab.page.set_viewport_size({"width": size[0], "height": size[1]})
    in_lab.page.wait_for_timeout(800)
    SHOTS.mkdir(parents=True, exist_ok=True)
    shot = SHOTS / f"explorer_{size[0]}.png"
    in_lab.page.screenshot(path=shot)
    pixels = imread(shot)
    assert (pixels.shape[1], pixels.shape[0]) == size
    assert pixels[..., :3].std() > 0.05  # something is drawn
    cut = in_lab.page.evaluate(
        """() => [...document.querySelectorAll(".carelab-explorer, .carelab-explorer .panel")]
            .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.className)"""
    )
    assert cut == []
    in_lab.page.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})


def test_no_request_left_the_machine_and_no_script_failed(in_lab):
    assert in_lab.requests
    assert in_lab.outside() == []
    assert in_lab.errors == []


def test_pictures_and_planes_answer_to_the_keyboard(opened, tmp_path):
    studio.notebook(tmp_path / "sides.ipynb", [SIDES + "reader", "pilot"])
    reader, pilot = (made_here(SIDES, name) for name in ("reader", "pilot"))
    with studio.lab(tmp_path) as address:
        page = studio.new_page(opened, SIZES[0])
        studio.open_in_lab(page, address, "sides")
        find(page, ".reading", 1).first.wait_for()
        assert find(page, ".picture-side .left input").is_checked()
        act(page, lambda: find(page, ".strip figure").nth(2).press("Enter"))
        assert find(page, ".strip figure").nth(2).get_attribute("class") == "is-at"
        assert not find(page, ".picture-side .left input").is_checked()
        act(page, lambda: find(page, ".picture-side .left input").press(" "))
        assert "with trigger" in find(page, ".picture-side .middle b").inner_text()
        said = reader.engine.drawing()
        assert [text.split(" → ") for text in find(page, "figcaption").all_inner_texts()] == [
            [str(one) for one in pair]
            for pair in zip(said["before"]["labels"], said["after"]["labels"], strict=True)
        ]
        cell = pilot.map["guilty"][0]
        act(page, lambda: find(page, f"[data-cell='{cell}'] rect", 1).first.click(), 1)
        act(page, lambda: find(page, "input.factor", 1).press("Home"), 1)
        factor = float(find(page, "input.factor", 1).input_value())
        pilot.change([pilot.engine.neurons[cell]], Change(factor=factor))
        drawn = pilot.engine.drawing()
        for place, name in enumerate(("before", "after")):
            share = find(page, "[data-unsafe]", 1).nth(place).get_attribute("data-unsafe")
            assert float(share) == pytest.approx(drawn[name]["unsafe_share"], abs=1e-6)
        with page.page.expect_download() as download:
            find(page, "button[data-file='explorer.html']").click()
        download.value.save_as(tmp_path / "saved.html")
        saved = page.page.context.new_page()
        saved.goto((tmp_path / "saved.html").as_uri())
        saved.locator(".strip figure").nth(3).click()
        assert "without trigger" in saved.locator(".picture-side .middle b").inner_text()
        saved.locator("input.trigger").check()
        assert "with trigger" in saved.locator(".picture-side .middle b").inner_text()
        assert page.outside() == []
        assert page.errors == []


def test_voila_serves_the_same_explorer(opened, expected, tmp_path):
    studio.notebook(tmp_path / "explorer.ipynb", [EXPLORER + "shown"])
    with studio.voila(tmp_path, TEMPLATES) as address:
        listing = studio.new_page(opened, SIZES[0])
        listing.page.goto(address)
        listing.page.get_by_text("explorer.ipynb").first.wait_for(timeout=60_000)
        assert listing.outside() == []
        assert listing.errors == []
        page = studio.new_page(opened, SIZES[0])
        page.page.goto(f"{address}/voila/render/explorer.ipynb")
        studio.wait_for_explorer(page)
        cell = expected.engine.neurons.index(Neuron("relu1", 4))
        act(page, lambda: find(page, f"[data-cell='{cell}'] rect").first.click())
        act(page, lambda: set_slider(page, "factor", 0.4))
        expected.engine.clear()
        expected.change([Neuron("relu1", 4)], Change(factor=0.4))
        assert_screen_equals(page, expected)
        assert page.outside() == []
        assert page.errors == []
