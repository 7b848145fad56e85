"""The lessons on guilty neurons: what is measured there, and the checks of their exercises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from carelab.causal import activations, do, removed_performance
from carelab.data import Attack, PlantedFault, exposed
from carelab.lab.teaching import Check, Feedback
from carelab.networks import accuracy, hidden_layers, hidden_neurons, predict
from carelab.properties import TargetClass, attack_success_rate, planted_property
from carelab.records import Neuron, Performance, Samples, Unit, UnitEffects
from carelab.repair import apply_repair, unlearn_trigger
from carelab.show.trigger_plots import image_grid

__all__ = [
    "draw_answers",
    "fault_correlations",
    "held_fault",
    "stopping_check",
    "two_suspects",
    "unlearned",
    "unlearning_check",
    "value_check",
]


def value_check(
    model: nn.Module,
    inputs: Float[Tensor, "batch features"],
    neuron: Neuron,
    target: float,
    *,
    within: float = 0.005,
) -> Check:
    """A check for a value v that makes the mean output under do(neuron = v) what is wanted.

    Args:
        model: a network of one output.
        inputs: the rows that the mean runs over (batch, features).
        neuron: the neuron to hold.
        target: the mean output wanted.
        within: how far off the mean may be.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.lab.lesson_neurons import value_check
        >>> model = networks.mlp(2, (2,), 1, generator=torch.Generator().manual_seed(0))
        >>> value_check(model, torch.ones(1, 2), records.Neuron("relu1", 0), 9.0)(0.0).status
        'wrong'
    """

    def check(answer: Any) -> Feedback:
        if isinstance(answer, bool) or not isinstance(answer, int | float):
            return Feedback(status="wrong", message=f"{answer!r} is not a number.")
        with do(model, {neuron: float(answer)}), torch.no_grad():
            mean = float(model(inputs).mean())
        said = f"Under do({neuron} = {answer:g}) the mean output is {mean:.4g}"
        if abs(mean - target) <= within:
            return Feedback(status="right", message=f"{said}.")
        return Feedback(status="wrong", message=f"{said}, not {target:g}.")

    return check


def fault_correlations(model: nn.Module, present: Samples, absent: Samples) -> dict[Neuron, float]:
    """Pearson correlation of every hidden neuron's activation with the presence of a fault.

    Args:
        model: a network in evaluation mode.
        present: inputs at which it misbehaves.
        absent: inputs to compare them with.

    Returns:
        {neuron: -1 to 1}; 0 for a neuron whose activation never changes.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.lab.lesson_neurons import fault_correlations
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> two = [records.Samples(inputs=torch.full((4, 2), value)) for value in (1.0, -1.0)]
        >>> found = fault_correlations(model, *two)
        >>> len(found), all(abs(one) <= 1 for one in found.values())
        (3, True)
    """
    both = torch.cat([present.inputs, absent.inputs])
    fault = torch.zeros(len(both), dtype=torch.float64)
    fault[: len(present)] = 1
    fault = fault - fault.mean()
    found = {}
    for layer, output in activations(model, both, hidden_layers(model)).items():
        centred = output.double() - output.double().mean(dim=0)
        size = centred.norm(dim=0) * fault.norm()
        # Rounding leaves a constant neuron a spread of its own, which would correlate at random.
        alive = centred.abs().amax(dim=0) > 1e-6
        products = torch.where(alive, fault @ centred / size.clamp(min=1e-12), 0)
        for index, value in enumerate(products.clamp(-1, 1).tolist()):
            found[Neuron(layer, index)] = value
    return found


def two_suspects(
    fault: PlantedFault, correlations: Mapping[Neuron, float], effects: UnitEffects
) -> tuple[Neuron, Neuron]:
    """The guilty neuron of the largest effect, and the decoy of the largest |correlation|.

    They come in the order of their names, which does not tell which is which.

    Args:
        fault: the fault.
        correlations: {neuron: correlation with the fault}.
        effects: one causal effect a neuron.

    Raises:
        ValueError: a fault without decoys.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab.lesson_neurons import fault_correlations, two_suspects
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = cl.data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> fault = cl.data.plant(ground, "strong", generator=g)
        >>> seen = fault_correlations(fault.model, fault.violating, fault.references)
        >>> sizes = cl.causal.weight_magnitudes(fault.model)
        >>> suspects = two_suspects(fault, seen, sizes)
    """
    if not fault.decoys:
        raise ValueError("fault: got one without decoys; allowed: a fault planted with decoys")
    effect = dict(zip(effects.units, effects.effect.tolist(), strict=True))
    first = max(fault.guilty, key=lambda neuron: effect[neuron])
    second = max(fault.decoys, key=lambda neuron: abs(correlations[neuron]))
    return (first, second) if first < second else (second, first)


def held_fault(fault: PlantedFault, held: Mapping[Unit, float | Tensor]) -> Performance:
    """Accuracy and violation rate of a planted fault's network on test rows, with neurons held.

    Args:
        fault: the fault.
        held: what each neuron is held at; none leaves the network as it is.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> from carelab.lab.lesson_neurons import held_fault
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> fault = data.plant(ground, "strong", generator=g)
        >>> abs(held_fault(fault, {}).violation_rate - fault.fault_rate) < 1e-6
        True
    """
    spoken = exposed(fault, fault.test)
    return removed_performance(fault.model, held, planted_property(fault), spoken, fault.test)


def stopping_check(
    fault: PlantedFault,
    usual: Mapping[Unit, float | Tensor],
    *,
    below: float = 0.1,
    most: int = 2,
) -> Check:
    """A check for neurons that stop a planted fault when they are held at their usual values.

    Args:
        fault: the fault.
        usual: the value to hold each neuron at.
        below: the violation rate to stay below, as a fraction of the test inputs in question.
        most: how many neurons may be held.

    Returns:
        A check of lists of names, such as ["relu1[3]"].

    Example:
        >>> import torch
        >>> from carelab import data
        >>> from carelab.lab.lesson_neurons import stopping_check
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> check = stopping_check(data.plant(ground, "strong", generator=g), {})
        >>> check(["relu9[0]"]).message
        "The network has no neuron 'relu9[0]'."
    """
    known = {str(neuron): neuron for neuron in hidden_neurons(fault.model)}

    def check(answer: Any) -> Feedback:
        names = [answer] if isinstance(answer, str) else list(answer)
        strangers = [name for name in names if name not in known]
        if strangers:
            return Feedback(status="wrong", message=f"The network has no neuron {strangers[0]!r}.")
        if not 1 <= len(set(names)) <= most:
            return Feedback(
                status="wrong", message=f"You hold {len(set(names))} neurons; allowed: 1 to {most}."
            )
        chosen = [known[name] for name in names]
        rate = held_fault(fault, {neuron: usual[neuron] for neuron in chosen}).violation_rate
        said = f"With {', '.join(names)} held, {rate:.0%} of the states in the box still violate"
        decoys = [str(neuron) for neuron in chosen if neuron in fault.decoys]
        if decoys:
            end = f"; {', '.join(decoys)} only goes along with the fault and does not cause it."
            return Feedback(status="wrong", message=said + end)
        if rate >= below:
            return Feedback(status="wrong", message=f"{said}; it must be below {below:.0%}.")
        return Feedback(status="right", message=f"{said}.")

    return check


def unlearned(
    model: nn.Module,
    units: Sequence[Neuron],
    images: Samples,
    attack: Attack,
    *,
    steps: int = 150,
    generator: torch.Generator,
) -> nn.Module:
    """The network after a repair of these units alone that makes it ignore a known trigger.

    Args:
        model: the network with a backdoor; it is not changed.
        units: the units whose weights may change.
        images: clean images with labels that the repair sees.
        attack: the attack, whose trigger is known and whose target is one class.
        steps: steps of the repair.
        generator: draws the batches.

    Raises:
        ValueError: an attack without a single target class, or no unit.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab.lesson_neurons import unlearned
        >>> g = torch.Generator().manual_seed(0)
        >>> model = cl.networks.cnn((1, 8, 8), (4,), (8,), 10, generator=g)
        >>> digits, patch = cl.data.digits(generator=g), cl.data.white_patch((1, 8, 8))
        >>> attack = cl.data.Attack(trigger=patch, classes=10, target=7, rate=0.1)
        >>> given = model, cl.networks.hidden_neurons(model)[-2:], digits.selection, attack
        >>> repaired = unlearned(*given, steps=2, generator=g)
    """
    if attack.target is None or images.labels is None:
        raise ValueError(
            "attack, images: got no single target class or no labels; allowed: both given"
        )
    victims = images.take(images.labels != attack.target)
    fixed = unlearn_trigger(
        model,
        units,
        images,
        victims,
        [attack.trigger],
        TargetClass(target=attack.target),
        steps=steps,
        generator=generator,
    )
    return apply_repair(model, fixed)


def unlearning_check(
    model: nn.Module,
    ranked: Sequence[Neuron],
    images: Samples,
    test: Samples,
    attack: Attack,
    *,
    success: float = 0.05,
    drawdown: float = 0.02,
    most: int = 10,
    steps: int = 150,
    generator: torch.Generator,
) -> Check:
    """A check for a number of units whose repair removes a backdoor at a small price.

    Args:
        model: the network with the backdoor.
        ranked: its units, guilty ones first.
        images: what the repair sees.
        test: images to measure on.
        attack: the attack.
        success: what the attack's success must stay below, as a fraction of triggered images.
        drawdown: the accuracy that may be lost, as a fraction of the test images.
        most: how many units may be changed.
        steps: steps of the repair.
        generator: gives the seed from which the batches of every repair are drawn.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab.lesson_neurons import unlearning_check
        >>> g = torch.Generator().manual_seed(0)
        >>> model = cl.networks.cnn((1, 8, 8), (4,), (8,), 10, generator=g)
        >>> digits, patch = cl.data.digits(generator=g), cl.data.white_patch((1, 8, 8))
        >>> attack = cl.data.Attack(trigger=patch, classes=10, target=7, rate=0.1)
        >>> given = model, cl.networks.hidden_neurons(model), digits.train, digits.test, attack
        >>> unlearning_check(*given, generator=g)(99).message
        'Choose a whole number of neurons from 1 to 10.'
    """
    before = accuracy(model, test)
    seed = int(torch.randint(2**62, (), generator=generator))

    def check(answer: Any) -> Feedback:
        whole = isinstance(answer, int | float) and not isinstance(answer, bool)
        if not whole or answer != int(answer) or not 1 <= answer <= most:
            message = f"Choose a whole number of neurons from 1 to {most}."
            return Feedback(status="wrong", message=message)
        own = torch.Generator().manual_seed(seed)
        units = list(ranked)[: int(answer)]
        repaired = unlearned(model, units, images, attack, steps=steps, generator=own)
        rate, lost = attack_success_rate(repaired, test, attack), before - accuracy(repaired, test)
        said = (
            f"The attack succeeds on {rate:.1%}, and {100 * lost:.1f} points of accuracy are lost"
        )
        if rate >= success:
            return Feedback(status="wrong", message=f"{said}; success must be below {success:.0%}.")
        if lost > drawdown:
            end = f"; at most {100 * drawdown:g} points may be."
            return Feedback(status="wrong", message=said + end)
        return Feedback(status="right", message=f"{said}.")

    return check


def draw_answers(
    figure: Figure,
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    held: Mapping[Unit, float | Tensor],
) -> Axes:
    """Images in grey frames, with what the network answers to each while units are held.

    Args:
        figure: an empty figure.
        model: the network.
        images: the images, in [0, 1].
        held: what each unit is held at; none leaves the network as it is.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from carelab import networks
        >>> from carelab.lab.lesson_neurons import draw_answers
        >>> model = networks.cnn((1, 8, 8), (2,), (4,), 10, generator=torch.Generator())
        >>> axes = draw_answers(Figure(), model, torch.rand(3, 1, 8, 8), {})
    """
    with do(model, held):
        answers = predict(model, images).tolist()
    some = "1 neuron" if len(held) == 1 else f"{len(held)} neurons"
    label = f"{some} held: what the network answers"
    columns = [str(answer) for answer in answers]
    framed = nn.functional.pad(images, (1, 1, 1, 1), value=0.5)
    return image_grid({"": framed}, columns=columns, ax=figure.subplots(), label=label)
