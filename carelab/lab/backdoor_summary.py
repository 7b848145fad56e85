"""What several seeds of a backdoor experiment say together, in the layout of a result file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal import activations
from carelab.data import MaskTrigger
from carelab.lab.backdoor import BackdoorMeasures, BackdoorRun
from carelab.lab.backdoor_cases import BackdoorCase
from carelab.lab.session import interval, origin
from carelab.networks import hidden_layers
from carelab.properties import attack_success_rate
from carelab.records import Interval, Neuron
from carelab.show.backdoor_plots import PUBLISHED_SOURCE, published_rates

__all__ = ["guilty_by_layer", "summarise_backdoor", "unit_activations"]

_MEASURES = tuple(field.name for field in fields(BackdoorMeasures))


def summarise_backdoor(case: BackdoorCase, runs: Sequence[BackdoorRun]) -> dict[str, object]:
    """Results of several seeds in the layout of a result file, ready for `lab.save`.

    Args:
        case: the network, its data and the attack.
        runs: one run a seed, of the same setting and the same methods.

    Returns:
        ``data``; ``results`` with ``before``, ``after.<method>`` (the measures and the
        ``drawdown``), ``detection`` (true target, share of the classes whose target was found,
        how large the found trigger is, how far from the true one, and how often it works on test
        images), ``units``, ``seeds`` (per seed) and, where there is one, ``published``;
        ``seconds`` of each step, and ``ours``, the sum of knowledge, localisation and repair.
        Numbers are means with 95 % intervals over the seeds; a measure that the attack does not
        have is left out.

    Raises:
        ValueError: no run, or runs of different methods.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab.backdoor_cases import BackdoorCase
        >>> g, trigger = torch.Generator().manual_seed(0), cl.data.white_patch((1, 8, 8), 2)
        >>> case = BackdoorCase(name="digits", attack_name="badnets", activation="relu",
        ...     attack=cl.data.Attack(trigger=trigger, classes=10, target=3, rate=0.1),
        ...     dataset=cl.data.digits(generator=g), model=torch.nn.Sequential())
        >>> summarise_backdoor(case, [])
        Traceback (most recent call last):
        ValueError: runs: got none; allowed: at least one
    """
    if not runs:
        raise ValueError("runs: got none; allowed: at least one")
    methods = {tuple(run.after) for run in runs}
    if len(methods) > 1:
        raise ValueError(f"runs: got the methods {sorted(methods)}; allowed: the same in all")
    dataset = case.dataset
    published = published_rates(case.name, case.attack_name)
    return {
        "data": {
            **origin(dataset),
            "network": "trained here",
            "images": {
                part: len(getattr(dataset, part)) for part in ("train", "selection", "test")
            },
        },
        "results": {
            "before": _means([run.before for run in runs]),
            "after": {
                method: {
                    **_means([run.after[method] for run in runs]),
                    "drawdown": interval(
                        [run.before.accuracy - run.after[method].accuracy for run in runs],
                        lowest=-1,
                        highest=1,
                    ),
                }
                for method in runs[0].after
            },
            "detection": _detection(case, runs),
            "units": {
                "editable": len(runs[0].ranking.units),
                "guilty": interval([len(run.guilty) for run in runs]),
            },
            "seeds": [_seed_summary(case, run) for run in runs],
            **({"published": {"source": PUBLISHED_SOURCE, **published}} if published else {}),
        },
        "seconds": _seconds(runs),
    }


def unit_activations(
    model: nn.Module, inputs: Float[Tensor, "batch ..."], units: Sequence[Neuron]
) -> Float[Tensor, "batch units"]:
    """Activation of each unit for each input; of a whole channel its largest over the positions.

    Args:
        model: the network, in evaluation mode.
        inputs: the inputs (batch, ...).
        units: neurons, channels or positions of channels.

    Raises:
        ValueError: no unit, or one that the network does not have.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.lab.backdoor_summary import unit_activations
        >>> model = networks.cnn((1, 8, 8), (4,), (5,), 3, generator=torch.Generator())
        >>> unit_activations(model, torch.rand(6, 1, 8, 8), networks.hidden_neurons(model)).shape
        torch.Size([6, 9])
    """
    if not units:
        raise ValueError("units: got none; allowed: at least one")
    recorded = activations(model, inputs, list(dict.fromkeys(unit.layer for unit in units)))
    columns = []
    for unit in units:
        layer = recorded[unit.layer]
        if unit.index >= layer.shape[1]:
            raise ValueError(
                f"units: got {unit}; allowed: index 0 to {layer.shape[1] - 1} in {unit.layer}"
            )
        place: tuple[int | slice, ...] = (slice(None), *unit.place)
        columns.append(layer[place].reshape(len(inputs), -1).amax(dim=1))
    return torch.stack(columns, dim=1)


def guilty_by_layer(model: nn.Module, guilty: Sequence[Neuron]) -> dict[str, int]:
    """How many guilty units each hidden layer has that has any, from input to output.

    Args:
        model: the network.
        guilty: the units that were repaired.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.lab.backdoor_summary import guilty_by_layer
        >>> model = networks.mlp(3, (4, 5), 2, generator=torch.Generator())
        >>> guilty_by_layer(model, networks.hidden_neurons(model)[2:])
        {'relu1': 2, 'relu2': 5}
    """
    counts = Counter(unit.layer for unit in guilty)
    return {layer: counts[layer] for layer in hidden_layers(model) if counts[layer]}


def _means(measured: Sequence[BackdoorMeasures]) -> dict[str, Interval]:
    """Intervals of the measures that every seed has: a warp, for one, cannot be moved aside."""
    columns = {name: [getattr(one, name) for one in measured] for name in _MEASURES}
    return {
        name: interval(values, lowest=0, highest=1)
        for name, values in columns.items()
        if None not in values
    }


def _detection(case: BackdoorCase, runs: Sequence[BackdoorRun]) -> dict[str, object]:
    classes = case.attack.classes
    wanted = case.attack.target_of(torch.arange(classes))
    right = [float((torch.tensor(run.knowledge.targets) == wanted).double().mean()) for run in runs]
    triggers = [_trigger_summary(case, trigger) for run in runs for trigger in _found(run)]
    return {
        "true_target": case.attack.target,
        "targets_right": interval(right, lowest=0, highest=1),
        "trigger_found": interval(
            [float(len(_found(run)) > 0) for run in runs], lowest=0, highest=1
        ),
        **(
            {
                f"trigger_{name}": interval([one[name] for one in triggers], lowest=0)
                for name in triggers[0]
            }
            if triggers
            else {}
        ),
    }


def _found(run: BackdoorRun) -> tuple[MaskTrigger, ...]:
    """The trigger that the repair was made with, where there is one."""
    return run.knowledge.triggers[:1]


def _trigger_summary(case: BackdoorCase, trigger: MaskTrigger) -> dict[str, float]:
    """Size in pixels, mean |found(x) - true(x)|, and attack success of it, on test images."""
    images = case.dataset.test.inputs
    aimed = replace(case.attack, trigger=trigger)
    return {
        "size": float(trigger.mask.sum()),
        "distance": float((trigger(images) - case.attack.trigger(images)).abs().mean()),
        "success": attack_success_rate(case.model, case.dataset.test, aimed),
    }


def _seed_summary(case: BackdoorCase, run: BackdoorRun) -> dict[str, object]:
    knowledge = run.knowledge
    return {
        "seed": run.seed,
        "before": asdict(run.before),
        "after": {method: asdict(measured) for method, measured in run.after.items()},
        "source": knowledge.source,
        "targets": list(knowledge.targets),
        "suspects": list(knowledge.detected),
        "reconstructions": [
            {"target": one.target, "size": one.size, "success": one.success}
            for one in knowledge.reconstructions
        ],
        "triggers": [_trigger_summary(case, trigger) for trigger in _found(run)],
        "guilty": [str(unit) for unit in run.guilty],
        "guilty_by_layer": guilty_by_layer(case.model, run.guilty),
        "candidates": dict(run.candidates),
        "iterations": len(run.repair.history) - 1,
        "status": run.repair.status,
    }


def _seconds(runs: Sequence[BackdoorRun]) -> dict[str, Interval]:
    steps = ("knowledge", "localization", "repair")
    return {
        **{
            name: interval([run.seconds[name] for run in runs], lowest=0)
            for name in runs[0].seconds
        },
        "ours": interval([sum(run.seconds[name] for name in steps) for run in runs], lowest=0),
    }
