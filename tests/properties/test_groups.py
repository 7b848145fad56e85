import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from carelab.networks import predict
from carelab.properties import (
    Property,
    demographic_parity,
    equalized_odds,
    violation_rate,
    violation_scores,
)
from carelab.records import Feature, Samples
from tests.tables import network, rows

GROUP = Feature(name="group", columns=(1,), values=torch.arange(5.0).double()[:, None])


def test_rate_is_fairlearns_difference() -> None:
    samples, model = rows(400), network()
    predictions = predict(model, samples.inputs).numpy()
    groups = samples.inputs[:, 1].numpy()
    for make, metric in (
        (demographic_parity, demographic_parity_difference),
        (equalized_odds, equalized_odds_difference),
    ):
        expected = metric(samples.labels.numpy(), predictions, sensitive_features=groups)
        assert violation_rate(model, samples, make(samples, GROUP)) == pytest.approx(expected)


def test_scores_average_to_the_signed_gap() -> None:
    # Group 0: labels 1 1 0, group 1: labels 0 0 1; favoured is 0. With p = P(class 1):
    # parity gap = mean p over group 0 - mean p over group 1; equalised odds averages that
    # difference over the two labels.
    inputs = torch.tensor([[0.1, 0], [0.7, 0], [0.3, 0], [0.5, 1], [0.9, 1], [0.2, 1]])
    samples = Samples(inputs=inputs.double(), labels=torch.tensor([1, 1, 0, 0, 0, 1]))
    feature = Feature(name="group", columns=(1,), values=torch.tensor([[0.0], [1.0]]).double())
    model = network(features=2)
    p = model(samples.inputs).softmax(dim=1)[:, 1].detach()
    parity = p[:3].mean() - p[3:].mean()
    odds = ((p[:2].mean() - p[5]) + (p[2] - p[3:5].mean())) / 2
    for prop, gap in (
        (demographic_parity(samples, feature), parity),
        (equalized_odds(samples, feature), odds),
    ):
        assert isinstance(prop, Property)
        torch.testing.assert_close(violation_scores(model, samples, prop).detach().mean(), gap)


def test_a_table_row_belongs_to_the_nearest_group() -> None:
    feature = Feature(name="age", columns=(1,), values=torch.tensor([[0.0], [4.0]]).double())
    samples = rows(200)
    coarse = samples.inputs.clone()
    coarse[:, 1] = (coarse[:, 1] > 2) * 4.0
    merged = Samples(inputs=coarse, labels=samples.labels)
    fine, same = demographic_parity(samples, feature), demographic_parity(merged, feature)
    torch.testing.assert_close(fine.weights, same.weights)


def test_misuse() -> None:
    samples = rows(50)
    with pytest.raises(ValueError, match="got no labels"):
        demographic_parity(Samples(inputs=samples.inputs), GROUP)
    three = Samples(inputs=samples.inputs, labels=samples.labels + 1)
    with pytest.raises(ValueError, match="allowed: 0 and 1"):
        demographic_parity(three, GROUP)
    one = samples.take(samples.inputs[:, 1] == 0)
    with pytest.raises(ValueError, match="got 1 group of 'group' that can be compared"):
        equalized_odds(one, GROUP)
