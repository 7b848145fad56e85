import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.properties import (
    IndividualFairness,
    Property,
    individual_fairness,
    margins,
    probe_outputs,
    violates,
    violation_rate,
    violation_scores,
)
from carelab.records import Samples
from tests.tables import fairness, network, rows, table


def linear_network(weight: float) -> torch.nn.Sequential:
    """Logits (0, w s - 1) of a row (x, s): the label is 1 where w s > 1."""
    layer = torch.nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, weight]]))
        layer.bias.copy_(torch.tensor([0.0, -1.0]))
    return torch.nn.Sequential(layer).eval()


def test_by_hand() -> None:
    # s in {0, 1}, w = 3: logits (0, -1) and (0, 2), so every label flips. From a row with s = 0
    # the probability of 1 moves from 1/(1+e) = .2689 to 1/(1+e^-2) = .8808; the margin is the
    # lead of label 0 at s = 1, 0 - 2.
    fair = IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
    samples = Samples(inputs=torch.tensor([[7.0, 0.0], [7.0, 1.0]], dtype=torch.float64))
    model = linear_network(3.0)
    change = 1 / (1 + torch.e**-2) - 1 / (1 + torch.e)
    torch.testing.assert_close(
        violation_scores(model, samples, fair), torch.full((2,), change, dtype=torch.float64)
    )
    # Row 0 has label 0 and leads by -2 at s = 1; row 1 has label 1 and leads by -1 at s = 0.
    assert margins(model, samples, fair).tolist() == [-2.0, -1.0]
    assert violates(model, samples, fair).all()
    assert violation_rate(model, samples, fair) == 1.0
    assert violation_rate(linear_network(0.5), samples, fair) == 0.0


def test_is_a_property() -> None:
    assert isinstance(fairness(), Property)


def test_several_features_at_once_find_what_one_alone_does_not() -> None:
    # The label is 1 where a + b > 1.5: with a = 0 or b = 0 neither feature alone can flip it.
    layer = torch.nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.0, -1.5]))
    model = torch.nn.Sequential(layer).eval()
    both = Samples(inputs=torch.zeros(1, 2, dtype=torch.float64))
    values = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0))
    assert violation_rate(model, both, IndividualFairness(columns=(0, 1), values=values)) == 1.0
    for column in (0, 1):
        alone = IndividualFairness(columns=(column,), values=torch.tensor([[0.0], [1.0]]))
        assert violation_rate(model, both, alone) == 0.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.sampled_from([2, 4]))
def test_rate_counts_negative_margins_and_scores_lie_in_0_1(seed: int, classes: int) -> None:
    fair, samples = fairness(), rows(40, seed=seed)
    outputs = torch.randn(5, 4, 40, classes, dtype=torch.float64, generator=torch.manual_seed(seed))
    rate = fair.rate(outputs, samples)
    torch.testing.assert_close(rate, (fair.margin(outputs, samples) < 0).double().mean(dim=-1))
    score = fair.score(outputs, samples)
    assert score.shape == (5, 40)
    assert float(score.min()) >= 0
    assert float(score.max()) <= 1


def test_binary_shortcut_equals_softmax() -> None:
    outputs = torch.randn(3, 4, 9, 2, dtype=torch.float64)
    chance = outputs.softmax(dim=-1)
    slow = (chance[:, 1:] - chance[:, :1]).abs().amax(dim=(1, 3))
    torch.testing.assert_close(fairness().score(outputs, rows(9)), slow)


def test_probes_do_not_write_to_the_inputs() -> None:
    samples = rows(6)
    before = samples.inputs.clone()
    probe_outputs(network(), samples, fairness())
    assert torch.equal(samples.inputs, before)


def test_values_come_from_the_training_rows() -> None:
    data = table()
    assert individual_fairness(data, "feature1").values.flatten().tolist() == [0, 1, 2, 3, 4]
    joint = individual_fairness(data, ["feature1", "feature3"])
    assert joint.columns == (1, 3)
    assert len(joint.values) == 25
    few = individual_fairness(data, "feature1", most_values=2)
    assert few.values.flatten().tolist() == [0, 4]


def test_misuse() -> None:
    data = table()
    with pytest.raises(ValueError, match="name: got 'income'"):
        individual_fairness(data, "income")
    with pytest.raises(ValueError, match="each once"):
        individual_fairness(data, ["feature1", "feature1"])
    with pytest.raises(ValueError, match="at least two"):
        IndividualFairness(columns=(1,), values=torch.tensor([[0.0]]))
    with pytest.raises(ValueError, match="one value for each"):
        IndividualFairness(columns=(1, 2), values=torch.tensor([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="reads column 9"):
        violation_rate(network(), rows(3), fairness(column=9))
    with pytest.raises(ValueError, match="samples: got none"):
        violation_rate(network(), rows(3).take(slice(0, 0)), fairness())
    with pytest.raises(ValueError, match="this network takes 4"):
        violation_rate(network(), rows(3, features=5), fairness())
