"""The explorer as a widget: what the view asks of the engine, and what it is told.

One widget that draws itself, rather than many ipywidgets around Matplotlib pictures: a move is
answered by numbers, not by a picture, and the same script draws in JupyterLab, in Voila and on a
page without a kernel, offline.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import torch
import traitlets
from torch import Tensor, nn

from carelab.data import AcasXu, Attack
from carelab.networks import save
from carelab.networks.whole_files import write_whole
from carelab.properties import (
    IndividualFairness,
    OutputRegion,
    OutputRegions,
    Property,
    TargetClass,
    TargetClasses,
)
from carelab.records import Dataset, Neuron, Repair
from carelab.repair import save_repair
from carelab.show.explorer.engine import Engine, Reading
from carelab.show.explorer.image_scenes import backdoor_scene
from carelab.show.explorer.pages import static_page
from carelab.show.explorer.portraits import check_showable
from carelab.show.explorer.region_scenes import safety_scene
from carelab.show.explorer.runs import Change
from carelab.show.explorer.searches import Progress
from carelab.show.explorer.states import focus_state, live_state, map_state, scene_state
from carelab.show.explorer.table_scenes import fairness_scene, table_scene

__all__ = ["Explorer", "explore"]

_log = logging.getLogger(__name__)
_VIEW = Path(__file__).parent / "view"
# One script in several files, which are joined in the order of their names.
_SCRIPT = "\n".join(path.read_text("utf-8") for path in sorted(_VIEW.glob("*.js")))
_STYLE = (_VIEW / "explorer.css").read_text("utf-8")
_ITERATIONS = 60


def explore(
    model: nn.Module,
    data: Dataset | AcasXu | None,
    prop: Property,
    *,
    attack: Attack | None = None,
    domain: tuple[Tensor, Tensor] | None = None,
    rows: int | None = None,
    title: str = "",
    generator: torch.Generator,
) -> Explorer:
    """An explorer of a network, its data and a property, as the value of a notebook's cell.

    Fairness shows an editable row beside its counterfactuals, a backdoor pictures with and
    without the trigger, safety a plane through the inputs with the unsafe region outlined; any
    other property on labelled data is explored without an input side. A network that cannot be
    explored gives an explorer that says why.

    Args:
        model: a sequential network in evaluation mode.
        data: a data set; for safety the ACAS Xu network's record, or None with `domain`.
        prop: the property.
        attack: for a backdoor, the attack with its true trigger.
        domain: for safety without a record: smallest and largest inputs.
        rows: held-out samples of the read-outs; by default 5000 rows, 1000 images, 2000 points.
        title: what it is headed with.
        generator: draws samples and drives rankings and searches.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show import explorer
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> model = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> explorer.explore(model, table, fair, generator=g).problem
        ''
    """
    given: dict[str, Any] = {"title": title, "generator": generator}
    if rows is not None:
        given["rows"] = rows
    try:
        check_showable(model)
        if isinstance(prop, OutputRegion | OutputRegions) and not isinstance(data, Dataset):
            scene = safety_scene(model, prop, data, domain=domain, **given)
        elif not isinstance(data, Dataset):
            raise ValueError(f"data: got {type(data).__name__}; allowed: a Dataset")
        elif attack is not None:
            aim = prop if isinstance(prop, TargetClass | TargetClasses) else None
            scene = backdoor_scene(model, data, attack, aim, **given)
        elif isinstance(prop, IndividualFairness):
            scene = fairness_scene(model, data, prop, **given)
        else:
            scene = table_scene(model, data, prop, **given)
        return Explorer(Engine(scene, generator=generator))
    except ValueError as error:
        return Explorer(None, problem=str(error))


class Explorer(anywidget.AnyWidget):
    """The explorer in a notebook; every move of the view can be made from Python as well.

    Args:
        engine: what is explored, or None where nothing can be.
        problem: why nothing can be explored.

    Example:
        >>> from carelab.show.explorer import Explorer
        >>> Explorer(None, problem="model: has no hidden neuron").problem
        'model: has no hidden neuron'
    """

    _esm = _SCRIPT
    _css = _STYLE

    problem = traitlets.Unicode("").tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)
    map = traitlets.Dict().tag(sync=True)
    neuron = traitlets.Dict().tag(sync=True)
    side = traitlets.Dict().tag(sync=True)
    live = traitlets.Dict().tag(sync=True)
    search = traitlets.Dict().tag(sync=True)
    notice = traitlets.Unicode("").tag(sync=True)

    def __init__(self, engine: Engine | None, *, problem: str = "") -> None:
        """Tell the view what there is, and listen to it."""
        super().__init__(problem=problem)
        self._engine = engine
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._in_focus: Neuron | None = None
        self._answered = 0
        self.handled = 0
        if engine is None:
            return
        self.scene = scene_state(engine)
        self.map = map_state(engine)
        self._look_at(engine.guilty[0])
        self._tell(0, side=True)
        self.on_msg(self._on_message)

    @property
    def engine(self) -> Engine:
        """The engine behind the view.

        Raises:
            ValueError: nothing is explored; the message says why.
        """
        if self._engine is None:
            raise ValueError(self.problem)
        return self._engine

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The read-outs as they stand on the screen."""
        with self._lock:
            return self.engine.readings()

    @property
    def repair(self) -> Repair | None:
        """The repair that the network shown has gone through, or None."""
        return self.engine.repair

    @property
    def network(self) -> nn.Module:
        """The network shown: the original, or the repaired one."""
        return self.engine.network

    def select(self, neuron: Neuron) -> None:
        """Show curve and activations of a neuron.

        Args:
            neuron: one of those shown.
        """
        self._do({"kind": "select", "neuron": [neuron.layer, neuron.index]})

    def change(self, neurons: Sequence[Neuron], change: Change | None) -> None:
        """Hold neurons at a value or scale them; None takes it back.

        Args:
            neurons: the neurons.
            change: what is done to each.
        """
        with self._lock:
            self.engine.change(neurons, change)
            self._tell(self._answered)

    def rank(self, method: str, count: int, layer: str = "") -> None:
        """Choose another ranking, and how many of its first neurons are guilty.

        Args:
            method: a name in `causal.LOCALIZERS`.
            count: how many neurons.
            layer: the layer that they are in, or "": all layers.
        """
        self._do({"kind": "rank", "method": method, "count": count, "layer": layer})

    def start_repair(self, *, iterations: int = _ITERATIONS) -> None:
        """Search a repair of the guilty neurons in the background; `wait` for it, or `stop` it.

        Args:
            iterations: iterations of the search at most.

        Raises:
            ValueError: a search is running already.
        """
        if self._thread is not None and self._thread.is_alive():
            raise ValueError("repair: a search is running; allowed: stop it first")
        self._stop.clear()
        self.search = {"running": True, "iteration": 0, "iterations": iterations, "history": []}
        self._thread = threading.Thread(target=self._search, args=(iterations,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the search after the iteration that runs; the best found so far is kept."""
        self._stop.set()

    def wait(self) -> None:
        """Wait until no search is running."""
        if self._thread is not None:
            self._thread.join()

    def undo(self) -> None:
        """Go back to the repair before, or to the original network."""
        self._do({"kind": "undo"})

    def page(self) -> str:
        """One HTML page that shows the explorer as it stands, without a kernel and offline."""
        state = {name: getattr(self, name) for name in _STATE}
        if self._engine is not None:
            with self._lock:
                engine = self._engine
                # After a repair the curves of the guilty neurons only: all would take too long.
                state["portraits"] = [
                    focus_state(
                        engine.portrait(neuron),
                        engine.curve_now(neuron) if neuron in engine.guilty else None,
                    )
                    for neuron in engine.neurons
                ]
        return static_page(state, _SCRIPT, _STYLE)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write repair.safetensors, network.safetensors and explorer.html into a folder.

        Args:
            folder: the folder, made if missing; without a repair there is no repair's file.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if self.repair is not None:
            save_repair(self.repair, path / "repair.safetensors")
        save(self.network, path / "network.safetensors")
        write_whole(path / "explorer.html", self.page().encode())

    def _on_message(self, widget: object, content: Mapping[str, Any], buffers: object) -> None:
        """A request of the view; whatever goes wrong is told, so that the view never waits."""
        self.handled += 1
        try:
            self._do(content)
        except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
            self._tell(int(content.get("id", 0)), notice=str(error))

    def _do(self, event: Mapping[str, Any]) -> None:
        """Every move, by its kind; what it changed is told in one message."""
        kind, engine = str(event.get("kind")), self.engine
        if kind == "stop":
            self.stop()
            return
        with self._lock:
            moves: Mapping[str, Callable[[], Any]] = {
                "select": lambda: self._look_at(_neuron(event["neuron"])),
                "change": lambda: _apply(engine, event),
                "clear": engine.clear,
                "rank": lambda: engine.rank(
                    str(event["method"]), int(event["count"]), str(event.get("layer", ""))
                ),
                "side": lambda: engine.edit_side(event["edit"]),
                "repair": lambda: self.start_repair(
                    iterations=int(event.get("iterations", _ITERATIONS))
                ),
                "keep": engine.keep,
                "undo": engine.undo,
                "export": lambda: self._send_file(str(event["file"])),
            }
            if kind not in moves:
                raise ValueError(f"kind: got {kind!r}; allowed: stop, {', '.join(moves)}")
            with self.hold_sync():
                moves[kind]()
                if kind == "rank":
                    self.map = map_state(engine)
                if kind in ("keep", "undo") and self._in_focus is not None:
                    self._look_at(self._in_focus)
                self._tell(int(event.get("id", self._answered)), side=kind == "side")

    def _tell(self, reply: int, *, side: bool = False, notice: str = "") -> None:
        with self._lock, self.hold_sync():
            if side:
                shown = self.engine.side
                self.side = {} if shown is None else dict(shown.scenery())
            self.live = live_state(self.engine, reply)
            self.notice = notice
            self._answered = reply

    def _look_at(self, neuron: Neuron) -> None:
        engine = self.engine
        self.neuron = focus_state(engine.portrait(neuron), engine.curve_now(neuron))
        self._in_focus = neuron

    def _search(self, iterations: int) -> None:
        def watch(progress: Progress) -> bool:
            self.search = {
                "running": True,
                "iteration": progress.iteration,
                "iterations": progress.iterations,
                "cost": progress.cost,
                "history": list(progress.history),
                "violation_rate": progress.violation_rate,
                "kept": progress.kept,
            }
            return not self._stop.is_set()

        notice = ""
        try:
            repair = self.engine.search(iterations=iterations, watch=watch)
            with self._lock:
                if repair.status == "improved":
                    self.engine.adopt(repair)
                    if self._in_focus is not None:
                        self._look_at(self._in_focus)
                else:
                    notice = "The search found nothing better than the network as it is."
        except (ValueError, RuntimeError) as error:
            notice = str(error)
        finally:
            # Whatever happens, the view must not wait for a search that is over.
            self.search = {**self.search, "running": False, "stopped": self._stop.is_set()}
        self._tell(self._answered, notice=notice)

    def _send_file(self, name: str) -> None:
        """The bytes of a file to the view, which hands them to the reader's browser."""
        if name == "explorer.html":
            content = self.page().encode()
        elif name in ("repair.safetensors", "network.safetensors"):
            if name.startswith("repair") and self.repair is None:
                raise ValueError("repair: nothing was repaired; allowed: after a repair")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                if self.repair is not None and name.startswith("repair"):
                    save_repair(self.repair, path)
                else:
                    save(self.network, path)
                content = path.read_bytes()
        else:
            raise ValueError(
                f"file: got {name!r}; allowed: repair.safetensors, network.safetensors, "
                "explorer.html"
            )
        self.send({"kind": "file", "name": name}, [content])


# What a page without a kernel needs.
_STATE = ("problem", "scene", "map", "neuron", "side", "live", "search", "notice")


def _neuron(given: Sequence[Any]) -> Neuron:
    layer, index = given
    return Neuron(str(layer), int(index))


def _apply(engine: Engine, event: Mapping[str, Any]) -> None:
    """Changes of several neurons at once: each a layer, an index, a value or None, a factor."""
    for layer, index, value, factor in event["changes"]:
        engine.change(
            [Neuron(str(layer), int(index))],
            Change(value=None if value is None else float(value), factor=float(factor)),
        )
