"""The explorer without its view: what a reader does, and what is then to be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal import (
    LOCALIZERS,
    expectation_drop,
    expectation_range,
    neuron_effects,
    rank_units,
)
from carelab.causal.selectivity import absolute_effects
from carelab.networks import hidden_neurons, logits
from carelab.records import CausalEffects, Neuron, Repair, Samples, UnitEffects
from carelab.repair import apply_repair
from carelab.show.explorer.portraits import (
    Portrait,
    check_showable,
    levels,
    portrait,
    shown_neurons,
)
from carelab.show.explorer.runs import CachedRun, Change
from carelab.show.explorer.scenes import Gauge, Scene
from carelab.show.explorer.searches import Progress, factor_repair, search_factors
from carelab.show.explorer.sides import InputSide

__all__ = ["Engine", "Reading"]

_STEPS = 16
# Rankings that are read off the curves themselves, which are there already.
_FROM_CURVES: Mapping[str, Callable[[CausalEffects], UnitEffects]] = {
    "mediation_drop": lambda effects: absolute_effects(expectation_drop(effects)),
    "care_range": expectation_range,
}
# Samples of the curve of a repaired network, drawn while a reader waits.
_CURVE_ROWS = 300
# Of a network with too many neurons to show: neurons, and samples of their curves.
_MANY, _MANY_ROWS = 240, 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One gauge of the explorer: a fraction of held-out samples.

    Args:
        name: the gauge's key.
        label: what it says on the screen.
        before: of the original network.
        now: of the network as it stands, repaired and changed.
        rows: how many samples it runs over.
        higher_is_better: whether a rise is good news.
    """

    name: str
    label: str
    before: float
    now: float
    rows: int
    higher_is_better: bool

    @property
    def change(self) -> float:
        """Difference to the original network."""
        return self.now - self.before


class Engine:
    """A scene and what a reader has done to it: ranking, changes by hand, repairs.

    Changes of activations by hand lie on top of the repaired network, if there is one. Every
    repair starts from the original network, so that its record alone leads there and back.

    Args:
        scene: what is explored.
        most: how many neurons are shown at most.
        steps: values each neuron is held at.
        generator: drives rankings and searches.

    Raises:
        ValueError: a network that cannot be explored (`check_showable`).

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import Change, Engine, fairness_scene
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> model = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> engine = Engine(fairness_scene(model, table, fair, generator=g), generator=g)
        >>> engine.change(engine.guilty[:1], Change(value=0.0))
        >>> [reading.name for reading in engine.readings()]
        ['accuracy', 'violation', 'kept']
    """

    def __init__(
        self, scene: Scene, *, most: int = 600, steps: int = _STEPS, generator: torch.Generator
    ) -> None:
        """Rank the neurons, and run the network once on everything that is read out."""
        check_showable(scene.model)
        self.scene = scene
        self.generator = generator
        self.total = len(hidden_neurons(scene.model))
        evidence = scene.evidence
        few = self.total > most
        self.neurons = shown_neurons(
            scene.model, evidence, scene.prop, most=min(most, _MANY) if few else most
        )
        both = torch.cat([evidence.violating.inputs, evidence.references.inputs])
        self.effects = neuron_effects(
            scene.model,
            scene.curves.take(slice(0, _MANY_ROWS)) if few else scene.curves,
            scene.prop,
            neurons=self.neurons,
            steps=steps,
            range_samples=Samples(inputs=both),
        )
        self._levels = [
            levels(scene.model, samples, self.neurons)
            for samples in (evidence.passing, evidence.violating)
        ]
        self.method, self.layer, self.guilty = "", scene.layer, self.neurons
        self.rank(scene.method, scene.count, scene.layer)
        self.side = scene.side
        self.changes: dict[Neuron, Change] = {}
        self.repairs: list[Repair] = []
        self.network: nn.Module = scene.model
        self._blocks = _blocks(scene.gauges)
        self._runs = self._held_out_runs()
        self._before = self._read({})
        self._side_runs: tuple[Tensor, CachedRun] | None = None

    @property
    def repair(self) -> Repair | None:
        """The repair that the network as it stands has gone through, or None."""
        return self.repairs[-1] if self.repairs else None

    def rank(self, method: str, count: int, layer: str = "") -> None:
        """Rank the neurons by another method; the first ones are the guilty ones.

        Args:
            method: a name in `causal.LOCALIZERS`.
            count: how many, from 1; where there are fewer, all.
            layer: the layer whose neurons may be guilty, or "": all layers.

        Raises:
            ValueError: an unknown method or layer, or a count below 1.
        """
        layers = tuple(dict.fromkeys(neuron.layer for neuron in self.neurons))
        if method not in LOCALIZERS:
            raise ValueError(f"method: got {method!r}; allowed: {', '.join(LOCALIZERS)}")
        if layer and layer not in layers:
            raise ValueError(f"layer: got {layer!r}; allowed: {', '.join(layers)}")
        if count < 1:
            raise ValueError(f"count: got {count}; allowed: 1 to {len(self.neurons)}")
        if method != self.method:
            self.guilt = self._guilt(method)
            self.ranking, self.method = rank_units(self.guilt), method
        self.layer = layer
        ranked = (unit for unit in self.ranking.units if isinstance(unit, Neuron))
        chosen = [neuron for neuron in ranked if layer in ("", neuron.layer)]
        self.guilty = tuple(chosen[:count])

    def change(self, neurons: Sequence[Neuron], change: Change | None) -> None:
        """Hold or scale neurons from now on; None takes back what was done to them.

        Args:
            neurons: the neurons.
            change: what is done to each.

        Raises:
            ValueError: a neuron that is not shown.
        """
        for neuron in neurons:
            if neuron not in self.neurons:
                raise ValueError(f"neurons: got {neuron}; allowed: the {len(self.neurons)} shown")
        for neuron in neurons:
            self.changes.pop(neuron, None)
            if change is not None and (change.value is not None or change.factor != 1):
                self.changes[neuron] = change

    def clear(self) -> None:
        """Take back all changes by hand."""
        self.changes = {}

    def readings(self) -> tuple[Reading, ...]:
        """Every gauge, before and now."""
        now = self._read(self.changes)
        return tuple(
            Reading(
                name=gauge.name,
                label=gauge.label,
                before=before,
                now=value,
                rows=len(gauge.samples),
                higher_is_better=gauge.higher_is_better,
            )
            for gauge, before, value in zip(self.scene.gauges, self._before, now, strict=True)
        )

    def portrait(self, neuron: Neuron) -> Portrait:
        """Curve and activations of a neuron of the original network."""
        if neuron not in self.neurons:
            raise ValueError(f"neuron: got {neuron}; allowed: the {len(self.neurons)} shown")
        at = self.neurons.index(neuron)
        return portrait(self.effects, neuron, *(group[at] for group in self._levels))

    def curve_now(self, neuron: Neuron) -> CausalEffects | None:
        """The neuron's curve in the repaired network, or None where nothing is repaired."""
        if self.repair is None:
            return None
        return neuron_effects(
            self.network,
            self.scene.curves.take(slice(0, _CURVE_ROWS)),
            self.scene.prop,
            neurons=[neuron],
            steps=self.effects.values.shape[1],
        )

    def edit_side(self, event: Mapping[str, Any]) -> None:
        """Change the inputs that are shown, as the side's `edited` takes it."""
        if self.side is None:
            raise ValueError("side: this scene has no input side; allowed: a scene with one")
        self.side = self.side.edited(event)

    def drawing(self) -> Mapping[str, Any] | None:
        """What the original network and the network as it stands say of the inputs shown."""
        if self.side is None:
            return None
        before, run = self._side_run(self.side)
        return self.side.drawing(before, run.logits(self.changes))

    def search(
        self, *, iterations: int = 60, watch: Callable[[Progress], bool] = lambda progress: True
    ) -> Repair:
        """Search a repair of the guilty neurons of the original network; nothing changes yet."""
        return search_factors(
            self.scene, self.guilty, iterations=iterations, watch=watch, generator=self.generator
        )

    def adopt(self, repair: Repair) -> None:
        """Make the repaired network the one that is explored, and drop all changes by hand."""
        self.network = apply_repair(self.scene.model, repair)
        self.repairs.append(repair)
        self._renew()

    def keep(self) -> Repair:
        """Write the factors set by hand, times those of the repair so far, into the weights.

        Raises:
            ValueError: there is no factor set by hand, a neuron is held at a value, which no
                factor does, or the repair so far is no scaling.
        """
        held = [str(neuron) for neuron, change in self.changes.items() if change.value is not None]
        if held or not self.changes:
            raise ValueError(
                f"changes: got {', '.join(held) + ' held at a value' if held else 'none'}; "
                "allowed: factors, which weights can hold"
            )
        factors = {neuron: change.factor for neuron, change in self.changes.items()}
        if self.repair is not None:
            before = dict(zip(self.repair.neurons, self.repair.factors.tolist(), strict=True))
            factors = {
                neuron: before.get(neuron, 1.0) * factors.get(neuron, 1.0)
                for neuron in dict.fromkeys([*before, *factors])
            }
        repair = factor_repair(
            self.scene,
            tuple(factors),
            torch.tensor(list(factors.values()), dtype=torch.float64),
            seed=self.generator.initial_seed(),
        )
        self.adopt(repair)
        return repair

    def undo(self) -> None:
        """Go back to the repair before, or to the original network.

        Raises:
            ValueError: nothing was repaired.
        """
        if not self.repairs:
            raise ValueError("undo: nothing was repaired; allowed: after a repair")
        self.repairs.pop()
        last = self.repair
        self.network = self.scene.model if last is None else apply_repair(self.scene.model, last)
        self._renew()

    def _renew(self) -> None:
        self.changes = {}
        self._runs = self._held_out_runs()
        self._side_runs = None

    def _held_out_runs(self) -> list[CachedRun]:
        return [
            CachedRun(self.network, gauge.probes(gauge.samples.inputs).flatten(0, 1))
            for gauge in self._blocks
        ]

    def _read(self, changes: Mapping[Neuron, Change]) -> list[float]:
        outputs = [
            run.logits(changes).unflatten(0, (-1, len(gauge.samples)))
            for gauge, run in zip(self._blocks, self._runs, strict=True)
        ]
        return [gauge.rate(outputs[_block_of(gauge, self._blocks)]) for gauge in self.scene.gauges]

    def _side_run(self, side: InputSide) -> tuple[Float[Tensor, "rows classes"], CachedRun]:
        """The original's outputs at the inputs shown, and the present network's run there."""
        inputs = side.inputs()
        if self._side_runs is None or not torch.equal(self._side_runs[0], inputs):
            self._side_runs = (inputs, CachedRun(self.network, inputs))
            self._side_before = logits(self.scene.model, inputs)
        return self._side_before, self._side_runs[1]

    def _guilt(self, method: str) -> UnitEffects:
        """The guilt of every neuron shown, off the curves where they say it."""
        scene = self.scene
        several = len(scene.prop.probes(scene.curves.inputs[:1])) > 1
        over_bad = scene.curves is scene.evidence.violating
        # CARE's range is taken over inputs that behave, where the property compares nothing itself.
        fits = over_bad if method != "care_range" else over_bad == several
        whole = self.effects.samples == len(scene.curves)
        fits &= whole and self.effects.values.shape[1] == _STEPS
        if method in _FROM_CURVES and (fits or self.total > len(self.neurons)):
            return _FROM_CURVES[method](self.effects)
        return LOCALIZERS[method](
            scene.model,
            scene.evidence,
            scene.prop,
            units=self.neurons,
            generator=self.generator,
        )


def _blocks(gauges: Sequence[Gauge]) -> list[Gauge]:
    """One gauge for each set of inputs that has to be run."""
    blocks: list[Gauge] = []
    for gauge in gauges:
        if not any(_same_inputs(gauge, block) for block in blocks):
            blocks.append(gauge)
    return blocks


def _block_of(gauge: Gauge, blocks: Sequence[Gauge]) -> int:
    return next(at for at, block in enumerate(blocks) if _same_inputs(gauge, block))


def _same_inputs(one: Gauge, other: Gauge) -> bool:
    return one.samples is other.samples and one.probes == other.probes
