import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import census_model, counterfactual, credit_model, draw_units
from carelab.data.structural import Equation, StructuralModel, Units, solve

MODELS = pytest.mark.parametrize("model", [census_model(), credit_model()], ids=lambda m: m.name)


def units_of(model: StructuralModel, count: int = 300, seed: int = 0) -> Units:
    return draw_units(model, count, generator=torch.Generator().manual_seed(seed))


def slow_unit(
    model: StructuralModel, noise: list[float], label_noise: float, value: int | None
) -> tuple[list[float], int]:
    """One unit by the formulas of the module's docstring, one number at a time."""
    codes: dict[str, float] = {}
    standardised: dict[str, float] = {}
    for equation, error in zip(model.equations, noise, strict=True):
        level = sum(w * standardised[parent] for parent, w in equation.weights.items()) + error
        code = math.floor(equation.center + equation.spread * level + 0.5)
        code = min(max(code, equation.lowest), equation.highest)
        if value is not None and equation.name == model.sensitive:
            code = value
        codes[equation.name] = float(code)
        standardised[equation.name] = (code - equation.center) / equation.spread
    total = model.intercept + sum(w * standardised[name] for name, w in model.outcome.items())
    return list(codes.values()), int(total + label_noise > 0)


@MODELS
@pytest.mark.parametrize("value", [None, 0, 1])
def test_units_against_the_slow_formulas(model: StructuralModel, value: int | None) -> None:
    drawn = units_of(model)
    made = drawn if value is None else counterfactual(model, drawn, value)
    for row in range(len(drawn.labels)):
        codes, label = slow_unit(
            model, drawn.noise[row].tolist(), float(drawn.label_noise[row]), value
        )
        assert made.inputs[row].tolist() == codes
        assert int(made.labels[row]) == label


def test_equation_by_hand() -> None:
    model = StructuralModel(
        name="by hand",
        equations=(
            Equation(name="sex", lowest=0, highest=1, center=0.5, spread=1, weights={}),
            Equation(name="hours", lowest=0, highest=9, center=4, spread=2, weights={"sex": 1.0}),
        ),
        sensitive="sex",
        intercept=0,
        outcome={"hours": 1.0},
        classes=("no", "yes"),
    )
    noise = torch.tensor([[0.1, 0.3], [-0.1, 0.3], [0.0, 9.0], [0.0, -9.0]])
    columns = solve(model, noise)
    assert columns["sex"].tolist() == [1, 0, 1, 1]
    # 4 + 2 (0.5 + 0.3) = 5.6 -> 6; 4 + 2 (-0.5 + 0.3) = 3.6 -> 4; the others leave the range.
    assert columns["hours"].tolist() == [6, 4, 9, 0]
    assert solve(model, noise, 1)["hours"].tolist() == [6, 6, 9, 0]


@MODELS
def test_counterfactual_with_the_units_own_value_is_the_unit(model: StructuralModel) -> None:
    drawn = units_of(model, 2000)
    column = [equation.name for equation in model.equations].index(model.sensitive)
    for value in (0, 1):
        same = drawn.inputs[:, column] == value
        other = counterfactual(model, drawn, value)
        assert torch.equal(other.inputs[same], drawn.inputs[same])
        assert torch.equal(other.labels[same], drawn.labels[same])
        assert other.inputs[:, column].eq(value).all()
        assert torch.equal(other.noise, drawn.noise)


@MODELS
def test_only_descendants_of_the_sensitive_feature_change(model: StructuralModel) -> None:
    drawn = units_of(model, 2000)
    zero, one = (counterfactual(model, drawn, value).inputs for value in (0, 1))
    descendants = {model.sensitive}
    for equation in model.equations:
        if descendants & set(equation.weights):
            descendants.add(equation.name)
    changed = {
        equation.name
        for column, equation in enumerate(model.equations)
        if not torch.equal(zero[:, column], one[:, column])
    }
    assert changed == descendants


@MODELS
def test_direct_path_alone_changes_the_label_but_no_feature(model: StructuralModel) -> None:
    make = census_model if "census" in model.name else credit_model
    bare = make(mediated=0)
    drawn = units_of(bare, 2000)
    zero, one = (counterfactual(bare, drawn, value) for value in (0, 1))
    assert int((zero.inputs != one.inputs).any(dim=0).sum()) == 1
    assert (one.labels >= zero.labels).all()
    assert (one.labels > zero.labels).any()


@MODELS
@given(seed=st.integers(0, 50), count=st.integers(1, 50))
@settings(max_examples=15, deadline=None)
def test_codes_stay_in_their_ranges(model: StructuralModel, seed: int, count: int) -> None:
    inputs = units_of(model, count, seed).inputs
    for column, equation in enumerate(model.equations):
        codes = inputs[:, column]
        assert torch.equal(codes, codes.round())
        assert equation.lowest <= codes.min()
        assert codes.max() <= equation.highest


def equation(name: str, **change: Any) -> Equation:
    fields = {"lowest": 0, "highest": 1, "center": 0.5, "spread": 1.0, "weights": {}, **change}
    return Equation(name=name, **fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"equations": (equation("sex", weights={"age": 1.0}), equation("age"))},
         r"equations: 'sex' has spread 1.0 and unknown parents \['age'\]"),
        ({"equations": (equation("sex"), equation("sex"))}, "equations: 'sex' has"),
        ({"equations": (equation("sex", spread=0.0),)}, "spread 0.0"),
        ({"outcome": {"race": 1.0}}, r"outcome: got unknown parents \['race'\]"),
        ({"sensitive": "race"}, "sensitive: got 'race'; allowed: a feature with the codes 0 and 1"),
        ({"equations": (equation("sex", highest=2),)}, "sensitive: got 'sex'"),
    ],
)  # fmt: skip
def test_unfit_models(change: dict[str, Any], message: str) -> None:
    fields = {
        "name": "m",
        "equations": (equation("sex"),),
        "sensitive": "sex",
        "intercept": 0.0,
        "outcome": {},
        "classes": ("no", "yes"),
    }
    with pytest.raises(ValueError, match=message):
        StructuralModel(**{**fields, **change})


def test_misuse() -> None:
    model = census_model()
    with pytest.raises(ValueError, match="count: got 0"):
        draw_units(model, 0, generator=torch.Generator())
    drawn = units_of(model, 3)
    with pytest.raises(ValueError, match="value: got 2; allowed: 0 and 1"):
        counterfactual(model, drawn, 2)
    with pytest.raises(ValueError, match="units: got 9 features; model embedded-credit has 10"):
        counterfactual(credit_model(), drawn, 1)
