"""From a grown path to a finished fault: strength, disguise, and the inputs that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.data.planted_causes import Cause
from carelab.data.planted_grounds import Ground
from carelab.data.planted_growth import Growth
from carelab.data.planted_paths import Design
from carelab.data.planted_surgery import balance, disguise, rebuild, stages
from carelab.records import Neuron, Samples

__all__ = ["DECOYS", "GUILTY", "PlantedFault", "finish"]

GUILTY = ("path", "brake", "gate")
DECOYS = ("dead end", "all classes", "proxy")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PlantedFault:
    """A network in which the guilty neurons are known because they were put there.

    A localiser is asked to rank all hidden neurons, post-activation, whole channels in
    convolutional layers (``networks.hidden_neurons(model)``), the guilty ones first. Neurons that
    carry the cause into the path are neither guilty nor wrongly accused: leave them out of the
    count.

    Args:
        kind: "bias", "backdoor" or "region": what was planted.
        strength: "weak", "medium" or "strong".
        task: what the clean network was trained for.
        model: the network with the fault, in evaluation mode.
        clean: the same network, neuron by neuron, except that the path's last units have no
            outgoing weights.
        train: labelled rows that a repair may see.
        violating: inputs made of them that show the fault, for localisation.
        references: the inputs they are compared with, row by row: without the fault's cause.
        selection: labelled rows for choosing, never for measuring.
        selection_violating: inputs made of them that show the fault.
        selection_references: the same without the fault's cause, row by row.
        test: labelled rows for measuring.
        test_violating: inputs made of them that show the fault, for measuring only.
        guilty: the neurons of the planted path, layer by layer.
        decoys: planted neurons that go together with the fault and do not cause it.
        carriers: clean neurons from which the path's first layer reads the cause; none where it
            reads the inputs themselves.
        roles: what each of these neurons is for: "path", "brake" or "gate" (guilty), "dead end",
            "all classes" or "proxy" (decoys), "carrier"; "sink" is what a dead end feeds.
        parameters: what the property needs (sensitive columns and values; target class and
            trigger; box and forbidden class) and how the path was built.
        clean_rate: fraction of the inputs at which the property speaks, made of the test rows, at
            which the clean network violates it.
        fault_rate: the same of the network with the fault.
        seed: initial seed of the generator that planted the fault.
    """

    kind: str
    strength: str
    task: str
    model: nn.Module
    clean: nn.Module
    train: Samples
    violating: Samples
    references: Samples
    selection: Samples
    selection_violating: Samples
    selection_references: Samples
    test: Samples
    test_violating: Samples
    guilty: tuple[Neuron, ...]
    decoys: tuple[Neuron, ...]
    carriers: tuple[Neuron, ...]
    roles: Mapping[Neuron, str]
    parameters: Mapping[str, object]
    clean_rate: float
    fault_rate: float
    seed: int


def finish(
    ground: Ground,
    cause: Cause,
    growth: Growth,
    designs: Sequence[Design],
    strength: str,
    *,
    generator: torch.Generator,
) -> PlantedFault:
    """The fault of a grown path: connected to the logits, disguised, and shown on the data.

    Args:
        ground: the clean network and its data.
        cause: what the path detects.
        growth: the network with the path.
        designs: the design of each layer of the path, to be told in the parameters.
        strength: "weak", "medium" or "strong".
        generator: draws the disguise.

    Example:
        >>> import torch
        >>> from carelab.data import planted_assembly, planted_growth, planted_paths, region_ground
        >>> g, path = torch.Generator().manual_seed(0), planted_paths.Design(size=1, stepped=False)
        >>> ground = region_ground(rows=900, widths=(8, 8), epochs=9, generator=g)
        >>> given = ground, ground.draw(1, 0.1, g)
        >>> growth = planted_growth.grow(*given, [path] * 2, start=0, decoys=False, generator=g)
        >>> finish = planted_assembly.finish
        >>> len(finish(*given, growth, [path] * 2, "strong", generator=g).guilty)
        2
    """
    models, places, shift = _connected(ground, cause, growth, strength, generator)
    roles = _roles(ground, growth, places)
    shown = [cause.shown(models[0], part) for part in (ground.train, ground.selection, ground.test)]
    measured = cause.exposed(ground.test)
    rates = [float(cause.violated(model, measured).double().mean()) for model in models]
    return PlantedFault(
        kind=ground.kind,
        strength=strength,
        task=ground.name,
        model=models[0],
        clean=models[1],
        train=ground.train,
        violating=shown[0][0],
        references=shown[0][1],
        selection=ground.selection,
        selection_violating=shown[1][0],
        selection_references=shown[1][1],
        test=ground.test,
        test_violating=shown[2][0],
        guilty=tuple(neuron for neuron, role in roles.items() if role in GUILTY),
        decoys=tuple(neuron for neuron, role in roles.items() if role in DECOYS),
        carriers=tuple(neuron for neuron, role in roles.items() if role == "carrier"),
        roles=roles,
        parameters={
            **cause.parameters(),
            "start": len(growth.roles) - len(designs) + 1,
            "sizes": tuple(design.size for design in designs),
            "saturated": any(design.stepped for design in designs),
            "backup": any(design.backed > 1 for design in designs),
            "shift": shift,
        },
        clean_rate=rates[1],
        fault_rate=rates[0],
        seed=generator.initial_seed(),
    )


def _connected(
    ground: Ground, cause: Cause, growth: Growth, strength: str, generator: torch.Generator
) -> tuple[tuple[nn.Module, nn.Module], list[Tensor], float]:
    """The disguised network with and without its last step, where its units went, the shift."""
    plain = rebuild(ground.model, growth.weights, growth.biases)
    shift = cause.shift(plain, ground.train, strength)
    final = growth.weights[-1].clone()
    first = final.shape[1] - len(growth.path)
    added: tuple[slice | int, ...] = (slice(None), slice(first, None), *growth.tap)
    alike = (0.5 + torch.rand((), generator=generator)) * growth.shared
    final[added] += shift / growth.height * alike
    final[added] += shift / growth.height * _push(cause, len(final))[:, None] * growth.path
    counts = [len(stage.weight) for stage in stages(ground.model)[:-1]]
    weights, biases = balance(
        [*growth.weights[:-1], final], growth.biases, counts, generator=generator
    )
    weights, biases, places = disguise(weights, biases, generator=generator)
    model = rebuild(ground.model, weights, biases)
    path = places[-1][first + torch.arange(len(growth.path))[growth.path != 0]]
    cut = weights[-1].clone()
    cut[:, path] = 0
    clean = rebuild(ground.model, [*weights[:-1], cut], biases)
    return (model, clean), places, shift


def _push(cause: Cause, classes: int) -> Float[Tensor, " classes"]:
    """Direction of logits that raises the lead of the pushed class by 1 and their mean by 0."""
    direction = torch.full((classes,), -1 / classes)
    direction[cause.pushed] += 1
    return direction


def _roles(ground: Ground, growth: Growth, places: Sequence[Tensor]) -> dict[Neuron, str]:
    """The role of each planted neuron and each carrier, at its place in the disguise."""
    hidden = stages(ground.model)[:-1]
    roles = {}
    for stage, names, moved in zip(hidden, growth.roles, places, strict=True):
        for number, role in enumerate(names, start=len(stage.weight)):
            roles[Neuron(stage.layer, int(moved[number]))] = role
    for layer, unit in growth.carriers:
        roles[Neuron(hidden[layer].layer, int(places[layer][unit]))] = "carrier"
    return dict(sorted(roles.items(), key=lambda pair: pair[0]))
