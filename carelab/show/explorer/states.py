"""What the view is told: the engine's state as plain numbers and texts, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from carelab.causal import LOCALIZERS
from carelab.networks import hidden_layers, width
from carelab.records import CausalEffects, Neuron, UnitEffects
from carelab.show.explorer.engine import Engine
from carelab.show.explorer.portraits import Portrait

__all__ = ["focus_state", "live_state", "map_state", "plain", "scene_state"]

_NORMAL = 1.96
# Digits that a screen can show of what is only drawn.
_DIGITS = 6


def scene_state(engine: Engine) -> dict[str, Any]:
    """What never changes: titles, rankings to choose from, and what is left out.

    Args:
        engine: the explorer's engine.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import explore, states
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> model = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> states.scene_state(explore(model, table, fair, generator=g).engine)["widths"]
        {'relu1': 8}
    """
    scene, shown = engine.scene, len(engine.neurons)
    left_out = ""
    if shown < engine.total:
        left_out = (
            f"{shown:,} of {engine.total:,} neurons are shown: those whose activation matters "
            "most to the score at first order"
        )
    return {
        "title": scene.title,
        "property": scene.prop.name,
        "note": scene.note,
        "methods": list(LOCALIZERS),
        "samples": engine.effects.samples,
        "widths": {layer: width(scene.model, layer) for layer in hidden_layers(scene.model)},
        "left_out": left_out,
        "factor_low": min(-2.0, scene.factor_bounds[0]) if scene.factor_bounds[0] < 0 else 0.0,
        "factor_high": max(2.0, scene.factor_bounds[1]),
    }


def map_state(engine: Engine) -> dict[str, Any]:
    """Every neuron shown: place, guilt with interval and rank, range of its activation.

    Args:
        engine: the explorer's engine.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import explore, states
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> model = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> states.map_state(explore(model, table, fair, generator=g).engine)["layers"]
        [['relu1', 8]]
    """
    guilt, ranking = engine.guilt, engine.ranking
    reach = (_NORMAL * guilt.standard_error).tolist()
    place = {unit: at for at, unit in enumerate(ranking.units)}
    order = [place[neuron] for neuron in engine.neurons]
    layers: dict[str, int] = {}
    for neuron in engine.neurons:
        layers[neuron.layer] = layers.get(neuron.layer, 0) + 1
    return {
        "measure": guilt.measure,
        "method": engine.method,
        "layer": engine.layer,
        "count": len(engine.guilty),
        "guilty": [engine.neurons.index(neuron) for neuron in engine.guilty],
        "layers": [[layer, count] for layer, count in layers.items()],
        "neurons": [[neuron.layer, neuron.index] for neuron in engine.neurons],
        "effect": plain(_ordered(guilt, engine.neurons)),
        "reach": plain(reach),
        "first": [int(ranking.first[at]) for at in order],
        "last": [int(ranking.last[at]) for at in order],
        "rank": [at + 1 for at in order],
        "low": plain(engine.effects.values[:, 0]),
        "high": plain(engine.effects.values[:, -1]),
    }


def focus_state(one: Portrait | None, now: CausalEffects | None) -> dict[str, Any]:
    """Curve and histograms of the neuron in focus.

    Args:
        one: its portrait, or None: no neuron is in focus.
        now: its curve in the repaired network, or None.

    Example:
        >>> from carelab.show.explorer.states import focus_state
        >>> focus_state(None, None)
        {}
    """
    if one is None:
        return {}
    low, high = one.interval
    state = {
        "neuron": [one.neuron.layer, one.neuron.index],
        "values": plain(one.values),
        "curve": plain(one.expectation),
        "low": plain(low),
        "high": plain(high),
        "unmodified": one.unmodified,
        "samples": one.samples,
        "edges": plain(one.edges),
        "behaving": plain(one.behaving),
        "misbehaving": plain(one.misbehaving),
    }
    if now is not None:
        state |= {
            "now_values": plain(now.values[0]),
            "now_curve": plain(now.expectation[0]),
            "now_unmodified": now.unmodified,
        }
    return state


def live_state(engine: Engine, reply: int) -> dict[str, Any]:
    """What answers every move: read-outs, changes by hand, the answers on the input side.

    Args:
        engine: the explorer's engine.
        reply: number of the request that is answered.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import explore, states
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> model = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> live = states.live_state(explore(model, table, fair, generator=g).engine, 7)
        >>> live["reply"], [reading["name"] for reading in live["readings"]]
        (7, ['accuracy', 'violation', 'kept'])
    """
    repair = engine.repair
    return {
        "reply": reply,
        "readings": [
            {
                "name": one.name,
                "label": one.label,
                "before": one.before,
                "now": one.now,
                "rows": one.rows,
                "higher": one.higher_is_better,
            }
            for one in engine.readings()
        ],
        "changes": [
            [neuron.layer, neuron.index, change.value, change.factor]
            for neuron, change in engine.changes.items()
        ],
        "repaired": []
        if repair is None
        else [
            [neuron.layer, neuron.index, factor]
            for neuron, factor in zip(repair.neurons, repair.factors.tolist(), strict=True)
        ],
        "method": "" if repair is None else repair.method,
        "undo": len(engine.repairs),
        "drawing": engine.drawing(),
    }


def plain(numbers: Tensor | Sequence[float]) -> list[float]:
    """Numbers rounded to what a screen can show; what is not finite becomes 0.

    Args:
        numbers: the numbers.

    Example:
        >>> from carelab.show.explorer.states import plain
        >>> plain([0.123456789, float("nan")])
        [0.123457, 0.0]
    """
    listed = numbers.tolist() if isinstance(numbers, Tensor) else list(numbers)
    return [float(f"{one:.{_DIGITS}g}") if math.isfinite(one) else 0.0 for one in listed]


def _ordered(effects: UnitEffects, neurons: Sequence[Neuron]) -> list[float]:
    found: Mapping[Any, float] = dict(zip(effects.units, effects.effect.tolist(), strict=True))
    return [found[neuron] for neuron in neurons]
