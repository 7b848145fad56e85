"""CARE's repair: a particle swarm over the factors of the guilty neurons."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pymoo.algorithms.soo.nonconvex.pso import PSO
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.problems.static import StaticProblem
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.networks import accuracy, check_inputs
from carelab.properties import Property, violation_rate
from carelab.records import Neuron, Performance, Repair, Samples
from carelab.repair.edits import scaled_repair
from carelab.repair.variants import factor_variants

__all__ = ["care", "care_cost", "check_swarm", "particle_swarm", "swarm_repair"]


def care(
    model: nn.Module,
    train: Samples,
    counterexamples: Samples,
    prop: Property,
    guilty: Sequence[Neuron],
    *,
    alpha: float = 0.3,
    factor_bounds: tuple[float, float] = (0.0, 2.0),
    particles: int = 20,
    iterations: int = 100,
    inertia: float = 0.8,
    cognitive: float = 0.41,
    social: float = 0.41,
    speed: float = 0.5,
    patience: int = 10,
    tolerance: float = 1e-3,
    batch_size: int = 65_536,
    method: str = "care",
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    """Factors of the guilty neurons that minimise (1 - alpha) UB + alpha (1 - accuracy).

    UB is the property's rate over the counterexamples, accuracy that over the training rows. All
    particles start at the identity (every factor 1) and are evaluated in one batched pass. The
    best factors are written into the weights; the given network is not changed.

    Args:
        model: a sequential network in evaluation mode.
        train: labelled rows that keep the accuracy up; never test rows.
        counterexamples: samples whose violation is to stop; never test samples.
        prop: the property.
        guilty: the neurons whose activations are scaled.
        alpha: weight of the accuracy, in [0, 1].
        factor_bounds: smallest and largest factor: (0, 2) is CARE's 1 + w with w in [-1, 1] for
            fairness, (-10, 10) its w h for backdoors and safety.
        particles: size of the swarm.
        iterations: iterations at most.
        inertia: share of the velocity that is kept.
        cognitive: pull of a particle's own best position (c1).
        social: pull of the swarm's best position (c2).
        speed: largest velocity, as a fraction of the width of the bounds.
        patience: stop when for so many iterations in a row the best cost moves by less than
            `tolerance`.
        tolerance: that change, relative: |change| < tolerance (1 + best cost).
        batch_size: particles x inputs a pass; bounds the memory.
        method: the name that the record carries.
        progress: show a bar with the best cost.
        generator: seeds the swarm.

    Returns:
        The repair: its status is "unchanged" where nothing beat the identity.

    Raises:
        ValueError: no training row, counterexample or guilty neuron; no labels; a knob out of
            range; inputs of the wrong width; a network in training mode.

    Source: CARE, section 3.3 and algorithm 1. Departs: particles that leave the bounds are drawn
        again (pymoo), which the paper leaves open.

    Example:
        >>> import torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> fixed = cl.repair.care(model, table.train, table.train, fair, [one], generator=g)
        >>> repaired = cl.repair.apply_repair(model, fixed)
    """
    _check(train, counterexamples, alpha)
    check_swarm(factor_bounds, particles, iterations, patience)
    check_inputs(model, train.inputs)
    started = time.perf_counter()
    cost = care_cost(
        model, train, counterexamples, prop, guilty, alpha=alpha, batch_size=batch_size
    )
    swarm = partial(
        particle_swarm,
        particles=particles,
        iterations=iterations,
        inertia=inertia,
        cognitive=cognitive,
        social=social,
        speed=speed,
        patience=patience,
        tolerance=tolerance,
        progress=progress,
    )
    return swarm_repair(
        model,
        guilty,
        cost,
        lambda network: _performance(network, train, counterexamples, prop),
        swarm,
        property_name=prop.name,
        factor_bounds=factor_bounds,
        method=method,
        started=started,
        generator=generator,
    )


def swarm_repair(
    model: nn.Module,
    guilty: Sequence[Neuron],
    cost: Callable[[Float[Tensor, "particles neurons"]], Float[Tensor, " particles"]],
    performance: Callable[[nn.Module], Performance],
    swarm: Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    property_name: str,
    factor_bounds: tuple[float, float],
    method: str,
    started: float,
    generator: torch.Generator,
) -> Repair:
    """The record of the factors that a swarm finds, written into the weights.

    Args:
        model: the network; it is not changed.
        guilty: the neurons whose activations are scaled.
        cost: costs of many factor vectors at once, to be minimised.
        performance: how a network does, before and after.
        swarm: `particle_swarm` with its knobs bound.
        property_name: name of the property.
        factor_bounds: smallest and largest factor; they hold 1, the identity.
        method: the name that the record carries.
        started: `time.perf_counter()` when the work on the repair began.
        generator: seeds the swarm.

    Example:
        >>> import time, torch, carelab as cl
        >>> from carelab.repair.swarm import particle_swarm, swarm_repair
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> model, same = cl.networks.mlp(2, (3,), 2, generator=g), cl.records.Performance
        >>> fixed = swarm_repair(model, [one], lambda x: x.square().sum(1),
        ...     lambda network: same(accuracy=1.0, violation_rate=0.0), particle_swarm, method="a",
        ...     property_name="b", factor_bounds=(0, 2), started=time.perf_counter(), generator=g)
    """
    seed = generator.initial_seed()
    best, history = swarm(cost, np.ones(len(guilty)), factor_bounds, generator=generator)
    return scaled_repair(
        model,
        guilty,
        torch.from_numpy(best),
        performance,
        property_name=property_name,
        method=method,
        history=torch.from_numpy(history),
        started=started,
        seed=seed,
    )


def care_cost(
    model: nn.Module,
    train: Samples,
    counterexamples: Samples,
    prop: Property,
    guilty: Sequence[Neuron],
    *,
    alpha: float = 0.3,
    batch_size: int = 65_536,
) -> Callable[[Float[Tensor, "particles neurons"]], Float[Tensor, " particles"]]:
    """CARE's fitness (1 - alpha) UB + alpha (1 - accuracy) of many factor vectors at once.

    Args:
        model: a sequential network in evaluation mode.
        train: labelled rows for the accuracy.
        counterexamples: samples for the undesired behaviour UB.
        prop: the property; its rate is UB.
        guilty: the neurons whose activations are scaled.
        alpha: weight of the accuracy, in [0, 1].
        batch_size: particles x inputs a pass; bounds the memory.

    Returns:
        A function from factors (particles, neurons) to costs (particles), to be minimised.

    Raises:
        ValueError: training rows without labels, or an unknown neuron.

    Source: CARE, section 3.3, equation 4.

    Example:
        >>> import torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> cost = cl.repair.care_cost(model, table.train, table.train, fair, [one])
        >>> cost(torch.tensor([[0.0], [1.0]])).shape
        torch.Size([2])
    """
    if train.labels is None:
        raise ValueError("train: got no labels; allowed: labelled samples")
    labels = train.labels
    probes = prop.probes(counterexamples.inputs)
    on_train = factor_variants(model, train.inputs, guilty, batch_size=batch_size)
    on_probes = factor_variants(model, probes.flatten(0, 1), guilty, batch_size=batch_size)

    def cost(factors: Tensor) -> Tensor:
        outputs = on_probes(factors).unflatten(1, probes.shape[:2])
        undesired = prop.rate(outputs, counterexamples).double().cpu()
        right = on_train(factors).argmax(dim=-1) == labels
        return (1 - alpha) * undesired + alpha * (1 - right.double().mean(dim=-1).cpu())

    return cost


def particle_swarm(
    cost: Callable[[Float[Tensor, "particles dimensions"]], Float[Tensor, " particles"]],
    start: NDArray[np.float64],
    bounds: tuple[float, float],
    *,
    particles: int = 20,
    iterations: int = 100,
    inertia: float = 0.8,
    cognitive: float = 0.41,
    social: float = 0.41,
    speed: float = 0.5,
    patience: int = 10,
    tolerance: float = 1e-3,
    progress: bool = False,
    generator: torch.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Best position found by a particle swarm that starts at one point.

    v := inertia v + cognitive r1 (own best - x) + social r2 (swarm's best - x), x := x + v, with
    r1, r2 uniform in [0, 1]; first velocities uniform in [0, speed x width of the bounds].

    Args:
        cost: costs of many positions at once, to be minimised.
        start: where every particle starts (dimensions).
        bounds: smallest and largest coordinate.
        particles: size of the swarm.
        iterations: iterations at most.
        inertia: share of the velocity that is kept.
        cognitive: pull of a particle's own best position.
        social: pull of the swarm's best position.
        speed: largest velocity, as a fraction of the width of the bounds.
        patience: stop after so many iterations in a row without a change of the best cost.
        tolerance: relative change that counts as none.
        progress: show a bar with the best cost.
        generator: seeds the swarm.

    Returns:
        The best position (dimensions) and the best cost after each iteration; its first entry
        is the cost of the start.

    Source: Kennedy and Eberhart, ICNN 1995; CARE, section 3.3, for the defaults.

    Example:
        >>> import numpy, torch
        >>> from carelab.repair import particle_swarm
        >>> best, history = particle_swarm(lambda x: (x - 0.5).square().sum(1), numpy.ones(1),
        ...     (0.0, 2.0), generator=torch.Generator().manual_seed(0))
        >>> round(float(best[0]), 1)
        0.5
    """
    width = len(start)
    problem = Problem(n_var=width, n_obj=1, xl=bounds[0], xu=bounds[1])
    swarm = PSO(
        pop_size=particles,
        sampling=np.tile(start, (particles, 1)),
        w=inertia,
        c1=cognitive,
        c2=social,
        adaptive=False,
        max_velocity_rate=speed,
        pertube_best=False,
    )
    seed = int(torch.randint(2**31, (), generator=generator))
    swarm.setup(problem, termination=("n_gen", iterations + 1), seed=seed, verbose=False)
    # pymoo's own first velocities all point upwards, away from factors below 1.
    reach = speed * (bounds[1] - bounds[0])
    first = (torch.rand(particles, width, generator=generator, dtype=torch.float64) * 2 - 1) * reach
    history: list[float] = []
    still = 0
    with tqdm(total=iterations, desc="particle swarm", disable=not progress) as bar:
        while swarm.has_next() and still < patience:
            positions = swarm.ask()
            costs = cost(torch.from_numpy(positions.get("X"))).numpy()
            Evaluator().eval(StaticProblem(problem, F=costs[:, None]), positions)
            swarm.tell(infills=positions)
            if not history:
                swarm.particles.set("V", first.numpy())
            history.append(float(swarm.opt[0].F[0]))
            moved = len(history) > 1 and abs(history[-2] - history[-1])
            still = still + 1 if len(history) > 1 and moved < tolerance * (1 + history[-2]) else 0
            bar.set_postfix(cost=f"{history[-1]:.4f}")
            bar.update(len(history) > 1)
    best = swarm.opt[0].X if history[-1] < history[0] else start
    return np.asarray(best, dtype=np.float64), np.asarray(history)


def _performance(
    model: nn.Module, train: Samples, counterexamples: Samples, prop: Property
) -> Performance:
    return Performance(
        accuracy=accuracy(model, train),
        violation_rate=violation_rate(model, counterexamples, prop),
    )


def check_swarm(
    factor_bounds: tuple[float, float], particles: int, iterations: int, patience: int = 1
) -> None:
    """Refuses what no swarm of factors can start with.

    Args:
        factor_bounds: smallest and largest factor.
        particles: size of the swarm.
        iterations: iterations at most.
        patience: iterations without a change after which it stops.

    Raises:
        ValueError: bounds without the identity between them, or a number below 1.

    Example:
        >>> from carelab.repair.swarm import check_swarm
        >>> check_swarm((0.0, 2.0), 20, 100)
    """
    low, high = factor_bounds
    if not low <= 1 <= high or low == high:
        raise ValueError(
            f"factor_bounds: got {factor_bounds}; allowed: an interval that holds 1, the identity"
        )
    if min(particles, iterations, patience) < 1:
        raise ValueError(
            f"particles, iterations, patience: got {particles}, {iterations}, {patience}; "
            "allowed: 1 or more"
        )


def _check(train: Samples, counterexamples: Samples, alpha: float) -> None:
    if len(train) == 0 or len(counterexamples) == 0:
        raise ValueError(
            f"train, counterexamples: got {len(train)}, {len(counterexamples)} samples; "
            "allowed: at least one of each"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: got {alpha}; allowed: 0 to 1")
