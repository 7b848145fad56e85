"""A repair that a reader can watch and stop: a swarm over the factors of the guilty neurons."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import labels_of, logits
from carelab.properties import violation_rate
from carelab.records import Neuron, Performance, Repair, Samples
from carelab.repair import factor_variants, particle_swarm, scale_neurons
from carelab.repair.edits import scaled_repair
from carelab.show.explorer.scenes import Answer, Scene

__all__ = ["Progress", "factor_repair", "search_factors"]

# Constants with which the swarm does not collapse within some 20 iterations (Clerc and Kennedy).
_INERTIA, _PULL = 0.73, 1.5
_NEVER = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a search has come.

    Args:
        iteration: iterations done, from 0, the network as it is.
        iterations: iterations at most.
        cost: best cost so far.
        history: best cost after each iteration so far.
        violation_rate: of the best so far, the property's rate on the search's own samples.
        kept: of the best so far, the share of answers that are kept.
    """

    iteration: int
    iterations: int
    cost: float
    history: tuple[float, ...]
    violation_rate: float
    kept: float


class _Stopped(Exception):
    """Raised inside the swarm's cost, the one place where it can be left."""


def search_factors(
    scene: Scene,
    guilty: Sequence[Neuron],
    *,
    iterations: int = 60,
    particles: int = 24,
    watch: Callable[[Progress], bool] = lambda progress: True,
    batch_size: int = 32_768,
    generator: torch.Generator,
) -> Repair:
    """Factors of the guilty neurons that minimise (1 - alpha) UB + alpha (1 - kept), best so far.

    UB is the property's rate over the misbehaving samples of the scene, kept the share of its
    samples to keep that get the answer they should. The search can be left after every iteration
    and then keeps the best that it found.

    Args:
        scene: the network, the samples and the search's weight and bounds.
        guilty: the neurons whose activations are scaled.
        iterations: iterations at most.
        particles: size of the swarm.
        watch: is told after every iteration how far it is; False ends the search.
        batch_size: particles x inputs a pass; bounds the memory.
        generator: seeds the swarm.

    Returns:
        The repair, "unchanged" where nothing beat the network as it is. Where a factor below 0
        cannot be written into the weights (max pooling follows), factors start at 0.

    Raises:
        ValueError: no guilty neuron, or fewer than 1 iteration.

    Source: CARE, section 3.3. Departs: the swarm's constants, and the answers to be kept may be
        those of the network given.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import fairness_scene, search_factors
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> net = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> scene = fairness_scene(net, table, fair, generator=g)
        >>> search_factors(scene, cl.networks.hidden_neurons(net), iterations=2, generator=g).method
        'care (explorer)'
    """
    if not guilty or iterations < 1 or particles < 2:
        raise ValueError(
            f"guilty, iterations, particles: got {len(guilty)} neurons, {iterations}, {particles}; "
            "allowed: at least 1, 1, 2"
        )
    started = time.perf_counter()
    parts = _cost_parts(scene, guilty, batch_size)
    best = torch.ones(len(guilty), dtype=torch.float64)
    rates, lowest_cost, history = (0.0, 0.0), float("inf"), []

    def cost(factors: Tensor) -> Tensor:
        nonlocal best, rates, lowest_cost
        undesired, kept = parts(factors)
        costs = (1 - scene.alpha) * undesired + scene.alpha * (1 - kept)
        at = int(costs.argmin())
        if float(costs[at]) < lowest_cost:
            best, lowest_cost = factors[at].double(), float(costs[at])
            rates = float(undesired[at]), float(kept[at])
        history.append(lowest_cost)
        progress = Progress(
            iteration=len(history) - 1,
            iterations=iterations,
            cost=lowest_cost,
            history=tuple(history),
            violation_rate=rates[0],
            kept=rates[1],
        )
        if not watch(progress):
            raise _Stopped
        return costs

    with suppress(_Stopped):
        particle_swarm(
            cost,
            np.ones(len(guilty)),
            _writable_bounds(scene.model, guilty, scene.factor_bounds),
            particles=particles,
            iterations=iterations,
            inertia=_INERTIA,
            cognitive=_PULL,
            social=_PULL,
            patience=_NEVER,
            generator=generator,
        )
    return factor_repair(
        scene,
        guilty,
        best,
        method="care (explorer)",
        history=torch.tensor(history, dtype=torch.float64),
        started=started,
        seed=generator.initial_seed(),
    )


def factor_repair(
    scene: Scene,
    neurons: Sequence[Neuron],
    factors: Float[Tensor, " neurons"],
    *,
    method: str = "by hand",
    history: Float[Tensor, " iterations"] | None = None,
    started: float | None = None,
    seed: int = 0,
) -> Repair:
    """The repair that writes these factors into the weights of the scene's network.

    Args:
        scene: the network and the samples on which before and after are measured.
        neurons: the neurons, each once.
        factors: the factor of each.
        method: name of the repair.
        history: best cost after each iteration, where it was searched for.
        started: `time.perf_counter()` when the search began, or None.
        seed: initial seed of the generator that drove it.

    Raises:
        ValueError: factors that cannot be written into the weights.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import factor_repair, fairness_scene
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_credit(rows=300, generator=g)
        >>> net = cl.networks.mlp(10, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> scene = fairness_scene(net, table, fair, generator=g)
        >>> factor_repair(scene, cl.networks.hidden_neurons(net), torch.full((8,), 0.5)).status
        'improved'
    """
    return scaled_repair(
        scene.model,
        neurons,
        factors,
        partial(_performance, scene),
        property_name=scene.prop.name,
        method=method,
        history=history,
        started=started,
        seed=seed,
    )


def _cost_parts(
    scene: Scene, guilty: Sequence[Neuron], batch_size: int
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From factors (particles, neurons) to UB and to the share of answers kept (particles)."""
    bad, keep, labels = scene.evidence.violating, scene.keep, labels_of(scene.keep)
    probes = scene.prop.probes(bad.inputs)
    on_bad = factor_variants(scene.model, probes.flatten(0, 1), guilty, batch_size=batch_size)
    on_keep = factor_variants(scene.model, keep.inputs, guilty, batch_size=batch_size)

    def parts(factors: Tensor) -> tuple[Tensor, Tensor]:
        outputs = on_bad(factors).unflatten(1, probes.shape[:2])
        undesired = scene.prop.rate(outputs, bad).double().cpu()
        right = scene.answer(on_keep(factors)) == labels
        return undesired, right.double().mean(dim=-1).cpu()

    return parts


def _writable_bounds(
    model: nn.Module, guilty: Sequence[Neuron], bounds: tuple[float, float]
) -> tuple[float, float]:
    """The bounds, from 0 on where max pooling would not pass a factor below it."""
    if bounds[0] >= 0:
        return bounds
    try:
        scale_neurons(model, guilty, -torch.ones(len(guilty)))
    except ValueError:
        return 0.0, bounds[1]
    return bounds


def _performance(scene: Scene, model: nn.Module) -> Performance:
    return Performance(
        accuracy=_kept(model, scene.keep, scene.answer),
        violation_rate=violation_rate(model, scene.evidence.violating, scene.prop),
    )


def _kept(model: nn.Module, keep: Samples, answer: Answer) -> float:
    with torch.no_grad():
        right = answer(logits(model, keep.inputs)) == labels_of(keep)
    return float(right.double().mean())
