"""How fast the explorer answers in a real browser, and what it looks like there.

Opens the explorer of three networks in JupyterLab on the loopback address, moves the sliders of
neurons in every layer with the keyboard and the mouse, and measures in the browser from the last
move of a slider (its release) until the updated read-outs and pictures have been drawn. Then it
runs a repair and takes screenshots. Run from the checkout's root, with real data at hand:

    python -m benchmarks.explorer_latency
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from playwright.sync_api import sync_playwright

from tests.browser import studio

FIGURES = Path(__file__).resolve().parents[1] / "figures"
SIZES = {"": (1280, 800), "_1920": (1920, 1080)}
KEYS_A_LAYER = 12
DRAGS_A_LAYER = 4

_START = """
import carelab as cl
from carelab.show import explorer

g = cl.lab.start(seed=0)
"""
CELLS = {
    "fairness": _START
    + """
from carelab.lab.tasks import fairness_task

task = fairness_task("census-race", generator=g)
title = "Census income, ADF's network"
shown = explorer.explore(task.model, task.dataset, task.property, title=title, generator=g)
shown.rank("mediation_drop", 13)
shown
""",
    "backdoor": _START
    + """
from carelab.lab.backdoor_cases import backdoor_case

case = backdoor_case("mnist")
target = cl.properties.TargetClass(target=case.attack.target)
title = "MNIST digits with a backdoor: the white square makes them a 3"
explorer.explore(
    case.model, case.dataset, target, attack=case.attack, title=title, generator=g)
""",
    "safety": _START
    + """
controller = cl.data.acasxu_network(2, 9)
prop = cl.properties.acasxu_property(8)
title = f"ACAS Xu {controller.name}: {prop.statement}"
explorer.explore(controller.network, controller, prop.regions[0], title=title, generator=g)
""",
}
NETWORKS = {
    "fairness": "census, 13-64-32-16-8-4-2",
    "backdoor": "mnist, nn5 (2 convolutions)",
    "safety": "acasxu N2,9",
}
# As in a window of its own: only the explorer, without JupyterLab's frame.
_ALONE = """() => {
    const root = document.querySelector(".carelab-explorer");
    document.body.replaceChildren(root);
    document.body.style.cssText = "background: #fff; overflow: auto; position: static";
    document.documentElement.style.cssText = "overflow: auto; height: auto";
}"""


def measure(page: studio.Page) -> list[float]:
    """Milliseconds of every move, over neurons of every layer."""
    find = page.page.locator
    layers: list[tuple[int, int]] = json.loads(
        page.page.evaluate(
            """() => {
                const cells = [...document.querySelectorAll(".carelab-explorer .cell")];
                const names = [...document.querySelectorAll(".carelab-explorer text.layer")];
                return JSON.stringify([cells.length, names.length]);
            }"""
        )
    )
    count, depth = layers
    found: list[float] = []
    for part in range(depth):
        cell = min(count - 1, int(count * (part + 0.5) / depth))
        step(page, lambda cell=cell: find(f"[data-cell='{cell}'] rect").first.click())
        slider = find("input.factor")
        slider.scroll_into_view_if_needed()
        slider.focus()
        for press in range(KEYS_A_LAYER):
            key = "ArrowLeft" if press % 3 else "ArrowRight"
            found.append(step(page, lambda key=key: page.page.keyboard.press(key)))
        for _ in range(DRAGS_A_LAYER):
            found.append(step(page, lambda slider=slider: drag(page, slider)))
        slider.focus()
    step(page, lambda: find("button.clear").click())
    return found


def step(page: studio.Page, move: Any) -> float:
    """Make a move; milliseconds from its last event until its answer was drawn."""
    answered = studio.log_of(page)["answered"]
    move()
    studio.settle(page, answered)
    return float(studio.log_of(page)["latencies"][-1])


def drag(page: studio.Page, slider: Any) -> None:
    """Pull the slider by the mouse from the middle to its left part, and let it go."""
    box = slider.bounding_box()
    mouse, height = page.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + box["width"] / 2, height)
    mouse.down()
    for share in np.linspace(0.5, 0.3, 15):
        mouse.move(box["x"] + box["width"] * share, height)
    mouse.up()


def repair(page: studio.Page) -> None:
    """Scale two neurons, run a repair to its end, and look at a guilty neuron."""
    page.page.locator("button.repair").click()
    page.page.wait_for_function(
        """() => !document.querySelector(".carelab-explorer button.undo").disabled"""
    )
    page.page.locator("svg.cells").focus()
    step(page, lambda: page.page.keyboard.press("g"))


def photograph(page: studio.Page, name: str, folder: Path) -> None:
    """The explorer at both sizes."""
    page.page.evaluate(_ALONE)
    for suffix, (width, height) in SIZES.items():
        page.page.set_viewport_size({"width": width, "height": height})
        page.page.wait_for_timeout(700)
        page.page.mouse.move(width - 3, height - 3)
        page.page.screenshot(path=folder / f"explorer_{name}{suffix}.png")


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(CELLS)), help="which networks")
@click.option("--out", type=click.Path(path_type=Path), default=FIGURES, help="folder")
@click.option("--screenshots/--no-screenshots", default=True, help="take pictures as well")
def main(only: tuple[str, ...], out: Path, screenshots: bool) -> None:
    """Write explorer_latency.json and explorer_*.png."""
    path = out / "explorer_latency.json"
    results = json.loads(path.read_text())["results"] if path.is_file() else {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        for name in only or CELLS:
            studio.notebook(Path(folder) / f"{name}.ipynb", [CELLS[name]])
        with studio.lab(Path(folder)) as address, studio.browser(playwright) as opened:
            for name in only or CELLS:
                page = studio.new_page(opened, SIZES[""])
                studio.open_in_lab(page, address, name)
                load = os.getloadavg()[0]
                times = measure(page)
                rows = max(
                    int(text.split("=")[1])
                    for text in page.page.locator(".reading .name small").all_inner_texts()
                )
                results[name] = {
                    "network": NETWORKS[name],
                    "median_ms": round(float(np.median(times)), 1),
                    "p95_ms": round(float(np.percentile(times, 95)), 1),
                    "samples": len(times),
                    "rows": rows,
                    "load": round(load, 1),
                }
                click.echo(f"{name}: {results[name]}")
                if page.outside() or page.errors:
                    raise click.ClickException(f"{page.outside()} {page.errors}")
                if screenshots:
                    repair(page)
                    photograph(page, name, out)
                page.page.context.close()
    about = {
        "experiment": "explorer",
        "title": "Latency of the explorer in chromium, from slider release to the drawn answer",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "results": results,
    }
    path.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
