"""Decoys that go together with a fault in the data without reading its cause.

A proxy reads what the fault's victims have in common: the other features of those who have the
sensitive value, the strokes of digits that resemble the target class, a half-space around the
region. In the end it bears a little on the task, in the direction in which the training labels
want it to.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.data.planted_causes import Cause
from carelab.data.planted_paths import Group
from carelab.data.planted_signals import Signal, pursue
from carelab.data.planted_surgery import Stage, field, follow, respond
from carelab.networks import logits
from carelab.records import Samples

__all__ = ["neutral_inputs", "neutral_states", "proxy_columns", "proxy_units"]

_READ = 12
_INFLUENCE = 0.1  # what proxies move a logit by, in standard deviations of what a fault must move


def neutral_inputs(
    cause: Cause, inputs: Float[Tensor, "batch ..."], *, generator: torch.Generator
) -> Float[Tensor, "batch ..."]:
    """Inputs in which the cause's own columns say nothing: they are shuffled between the rows.

    Args:
        cause: the cause.
        inputs: inputs as they come.
        generator: shuffles.

    Example:
        >>> import torch
        >>> from carelab.data.planted_causes import RegionCause
        >>> from carelab.data.planted_proxies import neutral_inputs
        >>> g, x = torch.Generator().manual_seed(0), torch.ones(3, 1)
        >>> box = RegionCause(low=x[0], high=x[0], domain=(0, 1), faces=(), ramp=1, pushed=0)
        >>> neutral_inputs(box, x, generator=g).shape
        torch.Size([3, 1])
    """
    columns = list(cause.columns)
    if not columns:
        return inputs
    shuffled = inputs.clone()
    order = torch.randperm(len(inputs), generator=generator)
    shuffled[:, columns] = inputs[order][:, columns]
    return shuffled


def neutral_states(
    hidden: tuple[Stage, ...], inputs: Float[Tensor, "batch ..."]
) -> tuple[Float[Tensor, "batch ..."], ...]:
    """What reaches each hidden stage of the clean network.

    Args:
        hidden: the stages of the hidden layers.
        inputs: the inputs.

    Example:
        >>> import torch
        >>> from carelab.data.planted_proxies import neutral_states
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import mlp
        >>> model = mlp(3, (4, 5), 2, generator=torch.Generator().manual_seed(0))
        >>> [state.shape[1] for state in neutral_states(stages(model)[:-1], torch.ones(2, 3))]
        [3, 4]
    """
    reached = [inputs]
    for stage in hidden[:-1]:
        outputs = respond(stage, reached[-1], stage.weight, stage.bias)
        reached.append(follow(stage, outputs))
    return tuple(reached)


def proxy_units(
    stage: Stage,
    neutral: Float[Tensor, "batch reads *places"],
    wanted: Float[Tensor, " batch"],
    earlier: Signal | None,
    *,
    added: int,
    forbidden: tuple[int, ...],
    count: int,
    generator: torch.Generator,
) -> Group:
    """Proxies in a fully connected layer, each fitted on its own random half of what it may read.

    Args:
        stage: the stage of the layer.
        neutral: what reaches it from clean units, for inputs in which the cause says nothing.
        wanted: what goes together with the fault, for the same inputs.
        earlier: the signal of the proxies of the layer before, of which they take some.
        added: how many units were added to the layer before.
        forbidden: columns that must not be read.
        count: how many proxies.
        generator: draws the halves.

    Example:
        >>> import torch
        >>> from carelab.data import planted_proxies, planted_surgery
        >>> from carelab.networks import mlp
        >>> g = torch.Generator().manual_seed(0)
        >>> given = planted_surgery.stages(mlp(3, (4,), 2, generator=g))[0], torch.rand(9, 3)
        >>> more = {"added": 0, "forbidden": (), "count": 2, "generator": g}
        >>> planted_proxies.proxy_units(*given, torch.rand(9), None, **more).roles
        ('proxy', 'proxy')
    """
    seen = field(stage, neutral, 0)
    features = seen.flatten(1)
    rows, shifts = [], []
    for _ in range(count):
        allowed = torch.rand(features.shape[1], generator=generator) < 0.5
        allowed[list(forbidden)] = False
        weight, bias = pursue(features, wanted, allowed, _READ)
        read = features @ weight + bias
        spread = read.std().clamp(min=1e-6)
        rows.append((weight / spread).reshape(seen.shape[1:]))
        shifts.append(float((bias - read.mean()) / spread) + 0.3)
    clean = torch.stack(rows)
    padding = clean.new_zeros(count, added, *clean.shape[2:])
    joined = torch.cat([clean, padding], dim=1)
    return Group(
        roles=("proxy",) * count,
        weight=joined if earlier is None else joined + 0.5 * earlier.weight,
        bias=torch.tensor(shifts),
        readout=torch.full((count,), 1 / count),
    )


def proxy_columns(
    model: nn.Module,
    samples: Samples,
    activations: Float[Tensor, "batch proxies"],
    *,
    spread: float,
) -> Float[Tensor, "classes proxies"]:
    """Outgoing weights of proxies: a step down the gradient of the cross entropy.

    The step moves 95 of 100 rows' logits by at most a tenth of `spread`, or by half, a quarter or
    an eighth of that where it is so long that the cross entropy rises.

    Args:
        model: the clean network without them.
        samples: training rows, with labels.
        activations: the proxies' activations at these rows.
        spread: standard deviation of the lead that a fault has to move, in logits.

    Example:
        >>> import torch
        >>> from carelab.data.planted_proxies import proxy_columns
        >>> from carelab.networks import mlp
        >>> from carelab.records import Samples
        >>> g = torch.Generator().manual_seed(0)
        >>> samples = Samples(inputs=torch.ones(9, 3), labels=torch.arange(9) % 2)
        >>> proxy_columns(mlp(3, (4,), 2, generator=g), samples, torch.eye(9, 3), spread=1).shape
        torch.Size([2, 3])
    """
    outputs = logits(model, samples.inputs)
    if samples.labels is None:
        raise ValueError("samples: got no labels; allowed: labelled training rows")
    truth = nn.functional.one_hot(samples.labels, outputs.shape[1]).to(outputs)
    centred = activations - activations.mean(dim=0)
    step = (truth - outputs.softmax(dim=1)).T @ centred / len(samples)
    moved = (activations @ step.T).abs().quantile(0.95, dim=0).amax().clamp(min=1e-9)
    step = step * _INFLUENCE * spread / moved
    loss = nn.functional.cross_entropy(outputs, samples.labels)
    for _ in range(3):
        if nn.functional.cross_entropy(outputs + activations @ step.T, samples.labels) <= loss:
            break
        step = step / 2
    return step
