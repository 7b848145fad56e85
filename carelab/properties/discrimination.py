"""Finding discriminatory instances: at random, in the data, and guided by gradients.

The same searches find violations of any property with a margin. The guided one follows the idea
of ADF (Zhang et al., ICSE 2020) and EIDIG (Zhang et al., ISSTA 2021): walk from seed rows towards
the place where the label starts to depend on the sensitive feature, then look around what was
found.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.data import sample_box
from carelab.networks import check_inputs
from carelab.properties.judging import Property, violates
from carelab.records import Dataset, Samples

__all__ = ["drop_rows", "guided_violations", "observed_violations", "random_violations"]


def observed_violations(model: nn.Module, samples: Samples, prop: Property) -> Samples:
    """The rows of the data that violate the property.

    Args:
        model: the network, in evaluation mode.
        samples: the rows to search.
        prop: the property.

    Returns:
        The violating rows, labels kept; possibly none.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> found = cl.properties.observed_violations(model, table.train, fair)
    """
    return samples.take(violates(model, samples, prop))


def random_violations(
    model: nn.Module,
    dataset: Dataset,
    prop: Property,
    count: int,
    *,
    most_draws: int = 1_000_000,
    block: int = 20_000,
    progress: bool = False,
    generator: torch.Generator,
) -> Samples:
    """Violations among inputs drawn uniformly from the feature box.

    Args:
        model: the network, in evaluation mode.
        dataset: says what the box is.
        prop: the property.
        count: how many different violations are wanted.
        most_draws: give up after so many draws.
        block: draws at a time.
        progress: show a bar.
        generator: draws the inputs.

    Returns:
        Up to `count` different violations without labels; fewer where the draws ran out.

    Raises:
        ValueError: a count, number of draws or block below 1.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> found = cl.properties.random_violations(
        ...     model, table, fair, 5, most_draws=100, generator=g)
    """
    if min(count, most_draws, block) < 1:
        raise ValueError(
            f"count, most_draws, block: got {count}, {most_draws}, {block}; allowed: 1 or more"
        )
    found = dataset.train.inputs[:0]
    with tqdm(total=count, desc="random search", disable=not progress) as bar:
        for drawn in range(0, most_draws, block):
            size = min(block, most_draws - drawn)
            hits = observed_violations(
                model, sample_box(dataset, size, generator=generator), prop
            ).inputs
            found = _first_distinct(torch.cat([found, hits]))[:count]
            bar.update(len(found) - bar.n)
            if len(found) == count:
                break
    return Samples(inputs=found)


def guided_violations(
    model: nn.Module,
    seeds: Samples,
    dataset: Dataset,
    prop: Property,
    count: int,
    *,
    walk: int = 20,
    rounds: int = 200,
    step: float = 0.05,
    momentum: float = 0.5,
    progress: bool = False,
    generator: torch.Generator,
) -> Samples:
    """Violations found by walking down the margin from seed rows, then around what was found.

    First every seed walks `walk` steps: each feature moves by `step` of its range (at least one
    code) against the sign of the margin's gradient, smoothed by `momentum`, and stays in the box.
    Then, for `rounds` rounds, violations found so far are changed in one random feature each, the
    ones that matter least to the margin preferred, and kept where they violate too.
    The property's own columns are free to move as well: a violation is one whatever they hold. A
    seed that violates already does not count as found; `observed_violations` has it.

    Args:
        model: the network, in evaluation mode.
        seeds: rows to start from; a repair's seeds are repair rows, a test's are test rows.
        dataset: says what the box is.
        prop: the property.
        count: how many different violations are wanted.
        walk: steps of the first phase.
        rounds: rounds of the second phase, at most.
        step: length of a step as a fraction of the feature's range, in (0, 1].
        momentum: share of the previous direction that is kept, in [0, 1).
        progress: show a bar.
        generator: chooses what is tried.

    Returns:
        Up to `count` different violations without labels; fewer where the search ran dry.

    Raises:
        ValueError: no seed, a count below 1, a step or momentum out of range, or seeds of the
            wrong width.

    Source: ADF, section 3 (global and local generation); EIDIG, section 3 (momentum).
        Departs: gradients of the property's margin instead of the loss, and all seeds at once.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> found = cl.properties.guided_violations(
        ...     model, table.train, table, fair, 5, generator=g)
    """
    if len(seeds) == 0 or count < 1:
        raise ValueError(f"seeds, count: got {len(seeds)}, {count}; allowed: at least one of each")
    if not (0 < step <= 1 and 0 <= momentum < 1):
        raise ValueError(
            f"step, momentum: got {step}, {momentum}; allowed: 0 < step <= 1, 0 <= momentum < 1"
        )
    check_inputs(model, seeds.inputs)
    rows = seeds.inputs[torch.randperm(len(seeds), generator=generator)[: 2 * count]]
    direction = torch.zeros_like(rows)
    found = rows[:0]
    with tqdm(total=count, desc="guided search", disable=not progress) as bar:
        for _ in range(walk):
            direction = momentum * direction + _margin_gradient(model, rows, prop).sign()
            rows = _step_in_box(rows, dataset, -direction.sign(), step)
            found = torch.cat([found, rows[violates(model, Samples(inputs=rows), prop)]])
            found = _first_distinct(found)[:count]
            bar.update(len(found) - bar.n)
            if len(found) == count:
                break
        for _ in range(rounds if len(found) else 0):
            if len(found) == count:
                break
            tried = _look_around(model, found, dataset, prop, 2 * count, step, generator)
            hits = tried[violates(model, Samples(inputs=tried), prop)]
            found = _first_distinct(torch.cat([found, hits]))[:count]
            bar.update(len(found) - bar.n)
    return Samples(inputs=found)


def drop_rows(samples: Samples, known: Samples) -> Samples:
    """The samples whose inputs do not occur among the known ones.

    Args:
        samples: the samples to thin out.
        known: the inputs to leave out.

    Example:
        >>> import torch
        >>> from carelab import properties, records
        >>> both = records.Samples(inputs=torch.tensor([[1.0], [2.0]]))
        >>> one = records.Samples(inputs=torch.tensor([[2.0]]))
        >>> properties.drop_rows(both, one).inputs.tolist()
        [[1.0]]
    """
    taken = {row.numpy().tobytes() for row in known.inputs.cpu()}
    fresh = [row.numpy().tobytes() not in taken for row in samples.inputs.cpu()]
    return samples.take(torch.tensor(fresh, dtype=torch.bool))


def _first_distinct(rows: Float[Tensor, "rows features"]) -> Float[Tensor, "distinct features"]:
    """The rows without later repetitions, in their order."""
    first: dict[bytes, int] = {}
    for position, row in enumerate(rows.cpu()):
        first.setdefault(row.numpy().tobytes(), position)
    return rows[list(first.values())]


def _margin_gradient(
    model: nn.Module, rows: Float[Tensor, "rows features"], prop: Property
) -> Float[Tensor, "rows features"]:
    with torch.enable_grad():
        inputs = rows.detach().clone().requires_grad_()
        probes = prop.probes(inputs)
        outputs = model(probes.flatten(0, 1)).unflatten(0, probes.shape[:2])
        margin = prop.margin(outputs, Samples(inputs=inputs))
        (gradient,) = torch.autograd.grad(margin.sum(), inputs)
    return gradient


def _step_in_box(
    rows: Float[Tensor, "rows features"],
    dataset: Dataset,
    direction: Float[Tensor, "rows features"],
    step: float,
) -> Float[Tensor, "rows features"]:
    """Rows moved by one step, each feature to an allowed value; one-hot codes stay."""
    moved = rows.clone()
    for feature in dataset.features:
        if len(feature.columns) > 1:
            continue
        column, values = feature.columns[0], feature.values[:, 0].to(rows)
        low, high = values.min(), values.max()
        target = rows[:, column] + direction[:, column] * step * (high - low)
        if feature.continuous:
            moved[:, column] = target.clamp(low, high)
            continue
        ordered = values.sort().values
        here = torch.searchsorted(ordered, rows[:, column].contiguous()).clamp(max=len(ordered) - 1)
        codes = max(1, round(step * (len(ordered) - 1)))
        there = here + (direction[:, column] * codes).long()
        moved[:, column] = ordered[there.clamp(0, len(ordered) - 1)]
    return moved


def _look_around(
    model: nn.Module,
    found: Float[Tensor, "found features"],
    dataset: Dataset,
    prop: Property,
    tries: int,
    step: float,
    generator: torch.Generator,
) -> Float[Tensor, "tries features"]:
    """Neighbours of known violations: one feature changed in each, unimportant ones first."""
    rows = found[torch.randint(len(found), (tries,), generator=generator)].clone()
    gradient = _margin_gradient(model, rows, prop).abs()
    influence = torch.stack(
        [gradient[:, list(feature.columns)].amax(dim=1) for feature in dataset.features], dim=1
    )
    chance = 1 / (influence / influence.amax(dim=1, keepdim=True).clamp(min=1e-12) + 0.1)
    chosen = torch.multinomial(chance.cpu(), 1, generator=generator).squeeze(1)
    side = torch.randint(0, 2, (tries,), generator=generator) * 2 - 1
    for number, feature in enumerate(dataset.features):
        picked: Bool[Tensor, " tries"] = (chosen == number).to(rows.device)
        if not picked.any():
            continue
        if len(feature.columns) > 1:
            values = feature.values.to(rows)
            draw = torch.randint(len(values), (int(picked.sum()),), generator=generator)
            rows[picked.nonzero(), torch.tensor(feature.columns)] = values[draw]
        else:
            direction = torch.zeros_like(rows)
            direction[:, feature.columns[0]] = side.to(rows)
            rows[picked] = _step_in_box(rows, dataset, direction, step)[picked]
    return rows
