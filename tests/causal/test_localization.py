import pytest
import torch

from carelab.causal import (
    care_count,
    confidence_interval,
    do,
    expectation_drop,
    expectation_mean,
    expectation_range,
    guilty_neurons,
    neuron_effects,
    rank_units,
)
from carelab.properties import violation_scores
from carelab.records import CausalEffects, Neuron, UnitEffects, WholeLayer
from tests.tables import fairness, network, rows


def effects(curves: list[list[float]]) -> CausalEffects:
    expectation = torch.tensor(curves, dtype=torch.float64)
    count, steps = expectation.shape
    return CausalEffects(
        neurons=tuple(Neuron("relu1", index) for index in range(count)),
        values=torch.zeros(count, steps, dtype=torch.float64),
        expectation=expectation,
        unmodified=0.5,
        covariance=torch.zeros(count, steps + 1, steps + 1, dtype=torch.float64),
        mean_covariance=torch.zeros(count, count, dtype=torch.float64),
        samples=10,
    )


def indices(summary: UnitEffects) -> list[int]:
    return [unit.index for unit in rank_units(summary).units if isinstance(unit, Neuron)]


def test_by_hand() -> None:
    # Means .3 .5 .5, ranges .2 0 .8: the mean ranks 1 before 2 (a tie keeps its order), the
    # range ranks 2 first.
    curves = effects([[0.2, 0.4], [0.5, 0.5], [0.1, 0.9]])
    torch.testing.assert_close(
        expectation_mean(curves).effect, torch.tensor([0.3, 0.5, 0.5], dtype=torch.float64)
    )
    torch.testing.assert_close(
        expectation_range(curves).effect, torch.tensor([0.2, 0.0, 0.8], dtype=torch.float64)
    )
    assert indices(expectation_mean(curves)) == [1, 2, 0]
    assert indices(expectation_range(curves)) == [2, 0, 1]
    mean = expectation_mean(curves)
    assert guilty_neurons(mean, count=2) == (Neuron("relu1", 1), Neuron("relu1", 2))
    assert guilty_neurons(mean) == (Neuron("relu1", 1),)


def test_the_drop_is_the_reverse_of_the_mean_and_zero_for_a_neuron_without_effect() -> None:
    # Unmodified outcome .5: the second neuron changes nothing, the third halves it.
    curves = effects([[0.4, 0.4], [0.5, 0.5], [0.2, 0.3]])
    torch.testing.assert_close(
        expectation_drop(curves).effect, torch.tensor([0.1, 0.0, 0.25], dtype=torch.float64)
    )
    assert indices(expectation_drop(curves)) == [2, 0, 1]
    assert indices(expectation_mean(curves)) == [1, 0, 2]


def test_covariances_are_those_of_the_samples() -> None:
    model, samples, fair = network(), rows(30), fairness()
    curves = neuron_effects(model, samples, fair, steps=3)
    outcomes = torch.zeros(len(curves.neurons), 3, 30, dtype=torch.float64)
    with torch.no_grad():
        untouched = violation_scores(model, samples, fair)
        for row, neuron in enumerate(curves.neurons):
            for step, value in enumerate(curves.values[row]):
                with do(model, {neuron: value}):
                    outcomes[row, step] = violation_scores(model, samples, fair)
    mean = expectation_mean(curves)
    expected = torch.cov(outcomes.mean(dim=1)) / 30
    torch.testing.assert_close(mean.covariance, expected, rtol=0, atol=1e-12)
    drop = expectation_drop(curves)
    expected = torch.cov(untouched - outcomes.mean(dim=1)) / 30
    torch.testing.assert_close(drop.covariance, expected, rtol=0, atol=1e-12)
    widest = expectation_range(curves)
    means = outcomes.mean(dim=-1)
    for row in range(len(curves.neurons)):
        change = outcomes[row, means[row].argmax()] - outcomes[row, means[row].argmin()]
        torch.testing.assert_close(widest.effect[row], change.mean(), rtol=0, atol=1e-12)
        error = change.std() / 30**0.5
        torch.testing.assert_close(widest.standard_error[row], error, rtol=0, atol=1e-9)
    assert int(widest.covariance.count_nonzero()) <= len(curves.neurons)
    for found in (mean, drop, widest):
        assert found.units == curves.neurons
        assert found.samples == 30


def test_a_dead_neuron_has_no_drop_and_its_interval_says_so() -> None:
    model = network()
    with torch.no_grad():
        model.linear2.weight[:, 2] = 0
    drop = expectation_drop(neuron_effects(model, rows(20), fairness(), steps=4))
    low, high = confidence_interval(drop)
    assert abs(float(drop.effect[2])) < 1e-12
    assert float(low[2]) - 1e-12 <= 0 <= float(high[2]) + 1e-12


def test_count_is_a_tenth_rounded_up() -> None:
    assert [care_count(neurons) for neurons in (1, 10, 11, 124)] == [1, 1, 2, 13]


@pytest.mark.parametrize("count", [0, -1, 4])
def test_more_neurons_than_there_are(count: int) -> None:
    with pytest.raises(
        ValueError, match=f"count: got {count} guilty neurons of 3; allowed: 1 to 3"
    ):
        guilty_neurons(expectation_mean(effects([[0.1, 0.2]] * 3)), count=count)


def test_a_whole_layer_is_no_neuron() -> None:
    mixed = UnitEffects(
        measure="test",
        units=(Neuron("relu1", 0), WholeLayer("relu2")),
        effect=torch.tensor([1.0, 2.0]),
        covariance=torch.zeros(2, 2),
        samples=10,
    )
    with pytest.raises(ValueError, match=r"effects: got whole layers \(relu2\)"):
        guilty_neurons(mixed, count=1)


def test_a_curve_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="mean interventional expectation is not finite"):
        guilty_neurons(expectation_mean(effects([[0.1, float("nan")]])))
