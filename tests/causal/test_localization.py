import pytest
import torch

from carelab.causal import (
    care_count,
    expectation_drop,
    expectation_mean,
    expectation_range,
    guilty_neurons,
    ranking,
)
from carelab.records import CausalEffects, Neuron


def effects(curves: list[list[float]]) -> CausalEffects:
    expectation = torch.tensor(curves, dtype=torch.float64)
    count, steps = expectation.shape
    return CausalEffects(
        neurons=tuple(Neuron("relu1", index) for index in range(count)),
        values=torch.zeros(count, steps, dtype=torch.float64),
        expectation=expectation,
        unmodified=0.5,
        covariance=torch.zeros(count, steps + 1, steps + 1, dtype=torch.float64),
        samples=10,
    )


def test_by_hand() -> None:
    # Means .3 .5 .5, ranges .2 0 .8: the mean ranks 1 before 2 (a tie keeps its order), the
    # range ranks 2 first.
    curves = effects([[0.2, 0.4], [0.5, 0.5], [0.1, 0.9]])
    torch.testing.assert_close(
        expectation_mean(curves), torch.tensor([0.3, 0.5, 0.5], dtype=torch.float64)
    )
    torch.testing.assert_close(
        expectation_range(curves), torch.tensor([0.2, 0.0, 0.8], dtype=torch.float64)
    )
    assert ranking(curves).tolist() == [1, 2, 0]
    assert ranking(curves, summary=expectation_range).tolist() == [2, 0, 1]
    assert guilty_neurons(curves, count=2) == (Neuron("relu1", 1), Neuron("relu1", 2))
    assert len(guilty_neurons(curves)) == 1


def test_the_drop_is_the_reverse_of_the_mean_and_zero_for_a_neuron_without_effect() -> None:
    # Unmodified outcome .5: the second neuron changes nothing, the third halves it.
    curves = effects([[0.4, 0.4], [0.5, 0.5], [0.2, 0.3]])
    torch.testing.assert_close(
        expectation_drop(curves), torch.tensor([0.1, 0.0, 0.25], dtype=torch.float64)
    )
    assert ranking(curves, summary=expectation_drop).tolist() == [2, 0, 1]
    assert ranking(curves).tolist() == [1, 0, 2]


def test_count_is_a_tenth_rounded_up() -> None:
    assert [care_count(neurons) for neurons in (1, 10, 11, 124)] == [1, 1, 2, 13]


@pytest.mark.parametrize("count", [0, -1, 4])
def test_more_neurons_than_there_are(count: int) -> None:
    with pytest.raises(
        ValueError, match=f"count: got {count} guilty neurons of 3; allowed: 1 to 3"
    ):
        guilty_neurons(effects([[0.1, 0.2]] * 3), count=count)


def test_a_curve_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        ranking(effects([[0.1, float("nan")]]))
