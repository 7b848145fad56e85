"""Searches behind one protocol: a particle swarm, CMA-ES, and gradient descent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cma
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm, trange

from carelab.repair.problems import SearchProblem
from carelab.repair.swarm import particle_swarm

__all__ = ["Found", "Search", "cma_search", "gradient_search", "swarm_search"]

# Where a space has no bounds, a swarm needs some: this many typical steps either way.
_SWARM_REACH = 4.0


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Found:
    """What a search found.

    Args:
        vector: the best vector (size).
        history: best cost, or smoothed loss, over the iterations.
    """

    vector: Float[Tensor, " size"]
    history: Float[Tensor, " iterations"]


@runtime_checkable
class Search(Protocol):
    """A way to look for the best vector of a problem; its knobs are bound by `partial`.

    Example:
        >>> from carelab.repair import Search, cma_search
        >>> isinstance(cma_search, Search)
        True
    """

    def __call__(
        self, problem: SearchProblem, *, progress: bool = ..., generator: torch.Generator
    ) -> Found:
        """The best vector found."""
        ...


def swarm_search(
    problem: SearchProblem,
    *,
    particles: int = 20,
    iterations: int = 100,
    inertia: float = 0.8,
    cognitive: float = 0.41,
    social: float = 0.41,
    patience: int = 10,
    tolerance: float = 1e-3,
    progress: bool = False,
    generator: torch.Generator,
) -> Found:
    """Best vector of a particle swarm: CARE's search, over any space and objective.

    Args:
        problem: the problem; only its cost is used.
        particles: size of the swarm.
        iterations: iterations at most.
        inertia: share of the velocity that is kept.
        cognitive: pull of a particle's own best position.
        social: pull of the swarm's best position.
        patience: stop after so many iterations in a row without a change of the best cost.
        tolerance: relative change that counts as none.
        progress: show a bar.
        generator: seeds the swarm.

    Source: CARE, section 3.3.

    Example:
        >>> import torch
        >>> from carelab.repair import EditSpace, SearchProblem, swarm_search
        >>> g, start, scale = torch.Generator().manual_seed(0), torch.zeros(3), torch.ones(3)
        >>> space = EditSpace(
        ...     neurons=(), start=start, scale=scale, low=None, high=None, parameters=dict)
        >>> far = lambda vectors, *_: (vectors - 1).square().sum(dim=-1)
        >>> problem = SearchProblem(space=space, cost=far, loss=far)
        >>> bool(far(swarm_search(problem, generator=g).vector) < 0.1)
        True
    """
    space = problem.space
    start, scale = space.start.double(), space.scale.double()
    bounded = space.low is not None and space.high is not None
    # The swarm works in steps around the start, so that one pair of bounds fits every axis.
    unit = torch.ones_like(scale) if bounded else scale
    centre = torch.zeros_like(start) if bounded else start
    bounds = (float(space.low), float(space.high)) if bounded else (-_SWARM_REACH, _SWARM_REACH)  # type: ignore[arg-type]
    best, history = particle_swarm(
        lambda positions: problem.cost((centre + positions * unit).to(space.start)),
        ((start - centre) / unit).numpy(),
        bounds,
        particles=particles,
        iterations=iterations,
        inertia=inertia,
        cognitive=cognitive,
        social=social,
        patience=patience,
        tolerance=tolerance,
        progress=progress,
        generator=generator,
    )
    vector = centre + torch.from_numpy(best) * unit
    return Found(vector=vector.to(space.start), history=torch.from_numpy(history))


def cma_search(
    problem: SearchProblem,
    *,
    iterations: int = 100,
    particles: int | None = None,
    step: float = 0.3,
    progress: bool = False,
    generator: torch.Generator,
) -> Found:
    """Best vector of CMA-ES: samples from a normal distribution that learns the cost's shape.

    Args:
        problem: the problem; only its cost is used.
        iterations: iterations at most.
        particles: samples an iteration; by default 4 + 3 ln(size).
        step: first standard deviation, in typical steps of the space.
        progress: show a bar with the best cost.
        generator: seeds the draws.

    Returns:
        The best vector seen; the start where nothing beat it.

    Raises:
        ValueError: fewer than 1 iteration, or a step that is not positive.

    Source: Hansen and Ostermeier, Evolutionary Computation 9(2), 2001; the `cma` package.

    Example:
        >>> import torch
        >>> from carelab.repair import EditSpace, SearchProblem, cma_search
        >>> g, start, scale = torch.Generator().manual_seed(0), torch.zeros(3), torch.ones(3)
        >>> space = EditSpace(
        ...     neurons=(), start=start, scale=scale, low=None, high=None, parameters=dict)
        >>> far = lambda vectors, *_: (vectors - 1).square().sum(dim=-1)
        >>> problem = SearchProblem(space=space, cost=far, loss=far)
        >>> bool(far(cma_search(problem, generator=g).vector) < 0.1)
        True
    """
    if iterations < 1 or not step > 0:
        raise ValueError(f"iterations, step: got {iterations}, {step}; allowed: 1 or more, above 0")
    space = problem.space
    draws = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    options = {
        "CMA_stds": space.scale.double().numpy(),
        "bounds": [space.low, space.high],
        "maxiter": iterations,
        "popsize": particles or 4 + int(3 * math.log(len(space.start))),
        "verbose": -9,
        # Its own stream of numbers: by default cma seeds numpy's global one.
        "randn": lambda *shape: draws.standard_normal(shape),
        "seed": math.nan,
    }
    strategy = cma.CMAEvolutionStrategy(space.start.double().numpy(), step, options)
    best, vector = float(problem.cost(space.start[None])[0]), space.start
    history = [best]
    with tqdm(total=iterations, desc="CMA-ES", disable=not progress) as bar:
        while not strategy.stop():
            positions = np.stack(strategy.ask())
            vectors = torch.from_numpy(positions).to(space.start)
            costs = problem.cost(vectors)
            strategy.tell(list(positions), costs.tolist())
            if float(costs.min()) < best:
                best, vector = float(costs.min()), vectors[costs.argmin()]
            history.append(best)
            bar.set_postfix(cost=f"{best:.4f}")
            bar.update()
    return Found(vector=vector, history=torch.tensor(history, dtype=torch.float64))


def gradient_search(
    problem: SearchProblem,
    *,
    steps: int = 1500,
    learning_rate: float = 1e-2,
    averaged: float = 0.25,
    progress: bool = False,
    generator: torch.Generator,
) -> Found:
    """Vector reached by Adam on random batches, averaged over the last steps.

    The learning rate rises and falls once (one cycle). Averaging the last quarter of the path
    takes the noise of the batches out of the result.

    Args:
        problem: the problem; only its loss is used.
        steps: steps of Adam.
        learning_rate: its largest rate, in units of the vector.
        averaged: share of the steps, at the end, whose vectors are averaged, in (0, 1].
        progress: show a bar.
        generator: draws the batches.

    Raises:
        ValueError: fewer than 2 steps, or a knob out of range.

    Source: Kingma and Ba, ICLR 2015; Izmailov et al., UAI 2018, for the averaging.

    Example:
        >>> import torch
        >>> from carelab.repair import EditSpace, SearchProblem, gradient_search
        >>> g, start, scale = torch.Generator().manual_seed(0), torch.zeros(3), torch.ones(3)
        >>> space = EditSpace(
        ...     neurons=(), start=start, scale=scale, low=None, high=None, parameters=dict)
        >>> far = lambda vectors, *_: (vectors - 1).square().sum(dim=-1)
        >>> problem = SearchProblem(space=space, cost=far, loss=far)
        >>> bool(far(gradient_search(problem, generator=g).vector) < 0.1)
        True
    """
    if steps < 2 or not learning_rate > 0 or not 0 < averaged <= 1:
        raise ValueError(
            f"steps, learning_rate, averaged: got {steps}, {learning_rate}, {averaged}; "
            "allowed: 2 or more, above 0, in (0, 1]"
        )
    space = problem.space
    vector = space.start.clone().requires_grad_()
    optimizer = torch.optim.Adam([vector], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=steps
    )
    mean, counted, losses = torch.zeros_like(space.start), 0, []
    for step in trange(steps, desc="gradient descent", disable=not progress):
        optimizer.zero_grad()
        loss = problem.loss(vector, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([vector], 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            if space.low is not None or space.high is not None:
                vector.clamp_(space.low, space.high)
            if step >= steps * (1 - averaged):
                counted += 1
                mean += (vector - mean) / counted
        losses.append(float(loss.detach()))
    return Found(vector=mean.detach(), history=torch.tensor(losses, dtype=torch.float64))
