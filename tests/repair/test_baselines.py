import pytest
import torch
from fairlearn.metrics import equalized_odds_difference
from sklearn.linear_model import LogisticRegression
from torch import nn

from carelab.networks import accuracy, fingerprint
from carelab.properties import violation_rate
from carelab.records import Dataset, Feature, Samples
from carelab.repair import fairlearn_reduction, hold_constant, retrain_without
from tests.tables import fairness, network, rows, table


def test_the_label_cannot_depend_on_what_is_held() -> None:
    model, fair, samples = network(seed=3), fairness(count=5), rows(300)
    before = fingerprint(model)
    blind = hold_constant(model, samples, fair)
    assert violation_rate(model, samples, fair) > 0
    assert violation_rate(blind, samples, fair) == 0
    assert fingerprint(model) == before


def test_equals_the_network_that_reads_the_best_constant() -> None:
    model, fair, samples = network(seed=3), fairness(count=5), rows(300)
    blind = hold_constant(model, samples, fair)
    best = 0.0
    for value in fair.values.flatten().tolist():
        inputs = samples.inputs.clone()
        inputs[:, 1] = value
        right = model(inputs).argmax(dim=1) == samples.labels
        if float(right.double().mean()) > best:
            best, expected = float(right.double().mean()), model(inputs)
    assert accuracy(blind, samples) == pytest.approx(best)
    torch.testing.assert_close(blind(samples.inputs), expected)


def test_a_first_layer_without_bias_gets_one() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    assert violation_rate(hold_constant(model, rows(50), fairness()), rows(50), fairness()) == 0


def test_misuse() -> None:
    image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)).eval()
    with pytest.raises(ValueError, match="begins with Conv2d"):
        hold_constant(image, rows(3), fairness())
    with pytest.raises(ValueError, match="takes 4 features; the property reads column 9"):
        hold_constant(network(), rows(3), fairness(column=9))


def test_training_anew_hides_the_feature_from_the_network() -> None:
    data, fair = table(), fairness()
    shown = []

    def train(hidden: Dataset) -> nn.Module:
        shown.append(hidden)
        return network(seed=3)

    blind = retrain_without(data, fair, train)
    hidden = shown[0]
    assert all(
        (part.inputs[:, 1] == 0).all() for part in (hidden.train, hidden.selection, hidden.test)
    )
    assert (data.train.inputs[:, 1] != 0).any()
    assert violation_rate(blind, data.test, fair) == 0


def test_the_reduction_narrows_the_gap_between_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2000, 3, generator=generator)
    inputs[:, 0] = (torch.rand(2000, generator=generator) < 0.5).float()
    noise = torch.randn(2000, generator=generator)
    labels = (inputs[:, 1] + 1.5 * inputs[:, 0] + 0.5 * noise > 0.75).long()
    train = Samples(inputs=inputs, labels=labels)
    feature = Feature(name="group", columns=(0,), values=torch.tensor([[0.0], [1.0]]))
    label = fairlearn_reduction(train, feature, LogisticRegression(), tolerance=0.01)
    plain = LogisticRegression().fit(inputs.numpy(), labels.numpy()).predict(inputs.numpy())

    def gap(predicted) -> float:
        return equalized_odds_difference(
            labels.numpy(), predicted, sensitive_features=inputs[:, 0].numpy()
        )

    assert gap(label(inputs).numpy()) < 0.5 * gap(plain)
    assert torch.equal(label(inputs), label(inputs))


def test_the_reduction_needs_labels() -> None:
    feature = Feature(name="group", columns=(0,), values=torch.tensor([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="train: got no labels"):
        fairlearn_reduction(Samples(inputs=torch.zeros(4, 2)), feature, LogisticRegression())
