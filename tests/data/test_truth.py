import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import causal_truth, census_model, credit_model, draw_units
from carelab.data.structural import Equation, StructuralModel
from carelab.data.truth import CausalTruth, Estimate

MAKERS = pytest.mark.parametrize("make", [census_model, credit_model])
Maker = Callable[..., StructuralModel]
STRENGTH = st.floats(-2, 2)


def truth(model: StructuralModel, units: int = 100_000, seed: int = 0) -> CausalTruth:
    return causal_truth(model, units=units, generator=torch.Generator().manual_seed(seed))


def assert_estimates(estimate: Estimate, exact: float) -> None:
    """Within four standard errors, which chance breaks once in 16000 draws."""
    assert abs(estimate.value - exact) <= 4 * estimate.standard_error + 1e-12


def binary(name: str, **weights: float) -> Equation:
    return Equation(name=name, lowest=0, highest=1, center=0.5, spread=1.0, weights=weights)


# One confounder z, one mediator m, everything binary: all effects by enumeration.
A, B, C = 1.5, -1.2, 0.8  # z -> x, x -> m, z -> m
INTERCEPT, X, M, Z = -2.0, 0.9, 1.7, 2.5
SMALL = StructuralModel(
    name="small",
    equations=(binary("z"), binary("x", z=A), binary("m", x=B, z=C)),
    sensitive="x",
    intercept=INTERCEPT,
    outcome={"x": X, "m": M, "z": Z},
    classes=("no", "yes"),
)


def normal(level: float) -> float:
    return 0.5 * (1 + math.erf(level / math.sqrt(2)))


def p_x(x: int, z: int) -> float:
    one = normal(A * (z - 0.5))
    return one if x else 1 - one


def p_y(x: int, mediator_of: int, z: int) -> float:
    """P(Y_{x, M_x'} = 1 | Z = z): the mediator follows x', the label reads x."""
    one = normal(B * (mediator_of - 0.5) + C * (z - 0.5))
    logit = INTERCEPT + X * (x - 0.5) + Z * (z - 0.5)
    with_m, without = (1 / (1 + math.exp(-logit - M * side)) for side in (0.5, -0.5))
    return one * with_m + (1 - one) * without


def among(x: int, of: int, mediator_of: int) -> float:
    """P(Y_{of, M_mediator_of} = 1 | X = x), by Bayes over z, whose halves are equal."""
    total = sum(0.5 * p_x(x, z) for z in (0, 1))
    return sum(0.5 * p_x(x, z) * p_y(of, mediator_of, z) for z in (0, 1)) / total


def overall(of: int, mediator_of: int) -> float:
    return sum(0.5 * p_y(of, mediator_of, z) for z in (0, 1))


def test_every_effect_against_enumeration() -> None:
    found = truth(SMALL, 200_000)
    assert_estimates(found.total_variation, among(1, 1, 1) - among(0, 0, 0))
    assert_estimates(found.direct, among(0, 1, 0) - among(0, 0, 0))
    assert_estimates(found.mediated, among(0, 1, 1) - among(0, 1, 0))
    assert_estimates(found.spurious, among(1, 1, 1) - among(0, 1, 1))
    assert_estimates(found.natural_direct, overall(1, 0) - overall(0, 0))
    assert_estimates(found.natural_indirect, overall(0, 1) - overall(0, 0))
    # Each is there to be found: many standard errors from nothing, and conditional from overall.
    for estimate in (found.direct, found.mediated, found.spurious):
        assert abs(estimate.value) > 20 * estimate.standard_error
    assert abs(among(0, 1, 0) - among(0, 0, 0) - overall(1, 0) + overall(0, 0)) > 0.005


def test_standard_errors_are_those_of_repetitions() -> None:
    runs = [truth(SMALL, 2000, seed) for seed in range(60)]
    for name in ("total_variation", "direct", "mediated", "spurious", "natural_direct"):
        estimates = [getattr(run, name) for run in runs]
        spread = float(torch.tensor([e.value for e in estimates], dtype=torch.float64).std())
        claimed = sum(e.standard_error for e in estimates) / len(estimates)
        # The standard deviation of 60 values is known to about 9 %.
        assert spread == pytest.approx(claimed, rel=0.35)


def test_no_path_but_the_direct_one_is_exact() -> None:
    bare = StructuralModel(
        name="bare",
        equations=(binary("x"),),
        sensitive="x",
        intercept=0.3,
        outcome={"x": 2.0},
        classes=("no", "yes"),
    )
    found = truth(bare, 1000)
    exact = 1 / (1 + math.exp(-1.3)) - 1 / (1 + math.exp(0.7))
    for estimate in (found.total_variation, found.direct, found.natural_direct):
        assert estimate.value == pytest.approx(exact, abs=1e-12)
        assert estimate.standard_error == pytest.approx(0, abs=1e-12)
    assert found.mediated == found.natural_indirect == Estimate(value=0.0, standard_error=0.0)


@MAKERS
@given(direct=STRENGTH, mediated=STRENGTH, spurious=STRENGTH, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_parts_add_up(
    make: Maker, direct: float, mediated: float, spurious: float, seed: int
) -> None:
    model = make(direct=direct, mediated=mediated, spurious=spurious)
    found = truth(model, 2000, seed)
    parts = found.direct.value + found.mediated.value + found.spurious.value
    assert found.total_variation.value == pytest.approx(parts, abs=1e-12)


@MAKERS
def test_total_variation_is_the_difference_of_the_groups_in_drawn_rows(make: Maker) -> None:
    model = make()
    drawn = draw_units(model, 100_000, generator=torch.Generator().manual_seed(5))
    column = [equation.name for equation in model.equations].index(model.sensitive)
    ones = drawn.inputs[:, column] == 1
    groups = [drawn.labels[rows].double() for rows in (ones, ~ones)]
    rate = float(groups[0].mean() - groups[1].mean())
    variance = sum(float(group.var()) / len(group) for group in groups)
    found = truth(model).total_variation
    assert abs(found.value - rate) <= 4 * math.sqrt(variance + found.standard_error**2)


@MAKERS
def test_a_knob_at_zero_removes_its_effect_and_no_other(make: Maker) -> None:
    full, without = truth(make()), truth(make(direct=0))
    assert without.direct == without.natural_direct == Estimate(value=0.0, standard_error=0.0)
    assert without.mediated.value > 0.05
    assert without.spurious.value > 0.05
    without = truth(make(mediated=0))
    assert without.mediated == without.natural_indirect == Estimate(value=0.0, standard_error=0.0)
    assert without.direct.value > 0.05
    assert without.spurious.value > 0.05
    without = truth(make(spurious=0))
    assert_estimates(without.spurious, 0)
    assert without.direct.value > 0.05
    assert without.mediated.value > 0.05
    for estimate in (full.direct, full.mediated, full.spurious):
        assert estimate.value > 0.05


@MAKERS
def test_without_any_path_nothing_is_left(make: Maker) -> None:
    found = truth(make(direct=0, mediated=0, spurious=0))
    assert_estimates(found.total_variation, 0)
    assert found.total_variation.standard_error > 0


@MAKERS
def test_without_confounding_the_direct_effect_is_the_natural_one(make: Maker) -> None:
    found = truth(make(spurious=0))
    gap = found.direct.value - found.natural_direct.value
    assert abs(gap) <= 4 * found.direct.standard_error


def test_batches_do_not_bear_on_the_precision() -> None:
    found = causal_truth(
        SMALL, units=20_050, batch_size=1000, generator=torch.Generator().manual_seed(0)
    )
    whole = truth(SMALL, 20_050, seed=1)
    assert found.units == 20_050
    assert found.direct.standard_error == pytest.approx(whole.direct.standard_error, rel=0.1)
    assert_estimates(found.direct, among(0, 1, 0) - among(0, 0, 0))


def test_misuse() -> None:
    with pytest.raises(ValueError, match="units, batch_size: got 99, 10; allowed: at least 100"):
        causal_truth(SMALL, units=99, batch_size=10, generator=torch.Generator())
    one_sided = Equation(name="x", lowest=0, highest=1, center=50.5, spread=1.0, weights={})
    lonely = StructuralModel(
        name="lonely",
        equations=(one_sided,),
        sensitive="x",
        intercept=0,
        outcome={},
        classes=("no", "yes"),
    )
    with pytest.raises(ValueError, match="one value of x hardly occurs"):
        truth(lonely, 200)
