import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.causal import (
    activations,
    average_causal_effect,
    contrast_error,
    curve_mean,
    do,
    neuron_effects,
    unmodified_outcome,
)
from carelab.networks import cnn, feature_positions, hidden_neurons, mlp, pre_activation
from carelab.properties import (
    IndividualFairness,
    Property,
    demographic_parity,
    violation_rate,
    violation_scores,
)
from carelab.records import CausalEffects, Feature, Neuron, Samples
from tests.reference.effects import care_ranking, interventional_expectation
from tests.tables import fairness, network, rows, seeded


@pytest.mark.parametrize("stage", ["post-activation", "pre-activation"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_equals_the_slow_reference(stage: str, activation: type[nn.Module]) -> None:
    model = mlp(4, (5, 4, 3), 2, activation=activation, generator=seeded(1)).double()
    neurons = hidden_neurons(model)
    if stage == "pre-activation":
        neurons = tuple(Neuron(pre_activation(model, one.layer), one.index) for one in neurons)
    fair, samples = fairness(), rows(6)
    effects = neuron_effects(model, samples, fair, neurons=neurons, steps=5)
    slow = [
        interventional_expectation(
            model, samples.inputs, fair.columns, fair.values, (one.layer, one.index), 5
        )
        for one in neurons
    ]
    grid = torch.tensor([values for values, _ in slow], dtype=torch.float64)
    expected = torch.tensor([curve for _, curve in slow], dtype=torch.float64)
    torch.testing.assert_close(effects.values, grid, rtol=0, atol=1e-10)
    torch.testing.assert_close(effects.expectation, expected, rtol=0, atol=1e-10)
    fast = effects.expectation.mean(dim=1).argsort(descending=True, stable=True).tolist()
    assert fast == care_ranking([curve for _, curve in slow])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_channels_and_positions_of_a_feature_map_equal_do(activation: type[nn.Module]) -> None:
    model = cnn((1, 6, 6), (3, 2), (4,), 3, activation=activation, generator=seeded(2)).double()
    samples, prop = images(4), BrightPixel()
    neurons = (*hidden_neurons(model), *feature_positions(model, "pool2", (1, 6, 6)))
    neurons = (*neurons, *feature_positions(model, "conv1", (1, 6, 6))[::31])
    effects = neuron_effects(model, samples, prop, neurons=neurons, steps=3, batch_size=7)
    seen = activations(model, prop.probes(samples.inputs)[0], ["conv1", "pool2"])
    for row, neuron in enumerate(effects.neurons):
        if neuron.position:
            own = seen[neuron.layer][(slice(None), *neuron.place)]
            assert float(effects.values[row, 0]) == pytest.approx(float(own.min()), abs=1e-12)
            assert float(effects.values[row, -1]) == pytest.approx(float(own.max()), abs=1e-12)
        for step in range(3):
            outcomes = []
            for sample in range(4):
                with do(model, {neuron: float(effects.values[row, step])}), torch.no_grad():
                    one = samples.take(slice(sample, sample + 1))
                    outcomes.append(violation_scores(model, one, prop))
            expected = torch.cat(outcomes).mean()
            torch.testing.assert_close(effects.expectation[row, step], expected, rtol=0, atol=1e-10)


def images(count: int) -> Samples:
    return Samples(inputs=torch.rand(count, 1, 6, 6, dtype=torch.float64, generator=seeded()))


def test_a_nested_network_equals_its_flat_twin() -> None:
    flat = network()
    nested = nn.Sequential(
        nn.Sequential(flat.linear1, flat.relu1),
        nn.Sequential(flat.linear2, nn.Sequential(flat.relu2, flat.linear3, flat.relu3)),
        flat.linear4,
    ).eval()
    one = neuron_effects(flat, rows(9), fairness(), steps=4)
    two = neuron_effects(nested, rows(9), fairness(), steps=4)
    assert [neuron.layer for neuron in two.neurons[::5]] == ["0.1", "0.1", "1.1.0"]
    torch.testing.assert_close(two.expectation, one.expectation)


class BrightPixel:
    """The chance of class 0 must not rise when the first pixel lights up."""

    name = "bright pixel"

    def probes(self, inputs: torch.Tensor) -> torch.Tensor:
        lit = inputs.clone()
        lit[:, :, 0, 0] = 1
        return torch.stack([inputs, lit])

    def score(self, outputs: torch.Tensor, samples: Samples) -> torch.Tensor:
        chance = outputs.softmax(dim=-1)[..., 0]
        return chance[..., 1, :] - chance[..., 0, :]

    def margin(self, outputs: torch.Tensor, samples: Samples) -> torch.Tensor:
        return -self.score(outputs, samples)

    def rate(self, outputs: torch.Tensor, samples: Samples) -> torch.Tensor:
        return (self.margin(outputs, samples) < 0).double().mean(dim=-1)


def test_someone_elses_property_is_one() -> None:
    assert isinstance(BrightPixel(), Property)


@settings(max_examples=10, deadline=None)
@given(batch_size=st.integers(1, 500), seed=st.integers(0, 100))
def test_splitting_the_batch_changes_nothing(batch_size: int, seed: int) -> None:
    model, samples = network(seed=seed), rows(11, seed=seed)
    whole = neuron_effects(model, samples, fairness(), steps=4)
    parts = neuron_effects(model, samples, fairness(), steps=4, batch_size=batch_size)
    torch.testing.assert_close(parts.expectation, whole.expectation, rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.mean_covariance, whole.mean_covariance, rtol=0, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_permuting_neurons_permutes_effects(seed: int) -> None:
    model, samples = network(seed=seed), rows(9, seed=seed)
    order = torch.randperm(6, generator=seeded(seed))
    permuted = network(seed=seed)
    with torch.no_grad():
        permuted.linear1.weight.copy_(model.linear1.weight[order])
        permuted.linear1.bias.copy_(model.linear1.bias[order])
        permuted.linear2.weight.copy_(model.linear2.weight[:, order])
    one = neuron_effects(model, samples, fairness(), steps=4).expectation[:6]
    two = neuron_effects(permuted, samples, fairness(), steps=4).expectation[:6]
    torch.testing.assert_close(two, one[order], rtol=0, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_permuting_channels_permutes_effects(seed: int) -> None:
    models = [cnn((1, 6, 6), (3, 2), (4,), 3, generator=seeded(seed)).double() for _ in range(2)]
    order = torch.randperm(3, generator=seeded(seed))
    with torch.no_grad():
        models[1].conv1.weight.copy_(models[0].conv1.weight[order])
        models[1].conv1.bias.copy_(models[0].conv1.bias[order])
        models[1].conv2.weight.copy_(models[0].conv2.weight[:, order])
    one, two = (neuron_effects(model, images(3), BrightPixel(), steps=3) for model in models)
    torch.testing.assert_close(two.expectation[:3], one.expectation[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(two.expectation[3:], one.expectation[3:], rtol=0, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_a_neuron_that_feeds_nothing_has_no_effect(seed: int, dtype: torch.dtype) -> None:
    model, samples = network(seed=seed).to(dtype), rows(20, seed=seed)
    with torch.no_grad():
        model.linear2.weight[:, 2] = 0
    inputs = Samples(inputs=samples.inputs.to(dtype))
    effects = neuron_effects(model, inputs, fairness())
    check_no_effect(effects, Neuron("relu1", 2))


@pytest.mark.parametrize("place", [(), (0, 1)])
def test_a_channel_or_position_that_feeds_nothing_has_no_effect(place: tuple[int, ...]) -> None:
    model = cnn((1, 6, 6), (3, 2), (4,), 3, generator=seeded(2))
    neuron = Neuron("pool1", 1, place)
    with torch.no_grad():
        model.conv2.weight[:, 1] = 0
    samples = Samples(inputs=images(9).inputs.float())
    check_no_effect(neuron_effects(model, samples, BrightPixel(), neurons=[neuron]), neuron)


def check_no_effect(effects: CausalEffects, neuron: Neuron) -> None:
    """The neuron's curve is the untouched outcome, and the interval of its effect holds 0."""
    row = effects.neurons.index(neuron)
    assert (effects.expectation[row] == effects.unmodified).all()
    difference, error = average_causal_effect(effects, baseline=unmodified_outcome)
    assert (difference[row] == 0).all()
    assert (error[row] < 1e-7).all()
    assert effects.mean_covariance[row].abs().max() == 0


def test_covariance_of_the_mean_changes_is_that_of_the_samples() -> None:
    model, samples, fair = network(), rows(30), fairness()
    effects = neuron_effects(model, samples, fair, steps=3, batch_size=100)
    changes = []
    with torch.no_grad():
        untouched = violation_scores(model, samples, fair)
    for row, neuron in enumerate(effects.neurons):
        outcomes = []
        for value in effects.values[row].tolist():
            with do(model, {neuron: value}), torch.no_grad():
                outcomes.append(violation_scores(model, samples, fair))
        changes.append(torch.stack(outcomes).mean(dim=0) - untouched)
    expected = torch.cov(torch.stack(changes)) / 30
    torch.testing.assert_close(effects.mean_covariance, expected, rtol=0, atol=1e-14)
    weights = torch.tensor([[1 / 3, 1 / 3, 1 / 3, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        effects.mean_covariance.diagonal().sqrt(), contrast_error(effects, weights)[:, 0]
    )


def test_effects_average_to_zero_around_the_curves_mean() -> None:
    effects = neuron_effects(network(), rows(20), fairness())
    ace, error = average_causal_effect(effects)
    torch.testing.assert_close(ace.mean(dim=1), torch.zeros(14, dtype=torch.float64))
    assert ace.shape == error.shape == (14, 16)


def test_standard_errors_are_those_of_the_paired_samples() -> None:
    model, samples, fair = network(), rows(30), fairness()
    effects = neuron_effects(model, samples, fair, steps=3)
    row = 4
    outcomes = []
    for value in effects.values[row].tolist():
        with do(model, {effects.neurons[row]: value}), torch.no_grad():
            outcomes.append(violation_scores(model, samples, fair))
    with torch.no_grad():
        outcomes.append(violation_scores(model, samples, fair))
    paired = torch.stack(outcomes)
    for contrast in ([1.0, 0, 0, 0], [1.0, 0, 0, -1.0], [2 / 3, -1 / 3, -1 / 3, 0]):
        weights = torch.tensor(contrast, dtype=torch.float64)
        expected = (weights @ paired).std() / 30**0.5
        torch.testing.assert_close(contrast_error(effects, weights[None])[row, 0], expected)
    assert effects.unmodified == pytest.approx(float(paired[-1].mean()))


def test_group_fairness_has_causal_effects_too() -> None:
    samples, model = rows(60), network()
    feature = Feature(name="group", columns=(1,), values=torch.arange(5.0).double()[:, None])
    parity = demographic_parity(samples, feature)
    effects = neuron_effects(model, samples, parity, steps=3, batch_size=50)
    assert effects.unmodified == pytest.approx(
        float(violation_scores(model, samples, parity).detach().mean())
    )
    assert violation_rate(model, samples, parity) >= 0


def test_range_samples_set_the_values() -> None:
    model, samples = network(), rows(20)
    one = neuron_effects(model, samples.take(slice(0, 2)), fairness(), range_samples=samples)
    two = neuron_effects(model, samples, fairness())
    assert torch.equal(one.values, two.values)
    assert curve_mean(one).shape == (14,)


def test_the_model_and_inputs_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).double().eval()
    samples = rows(8)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = samples.inputs.clone()
    one = neuron_effects(model, samples, fairness(), steps=3)
    two = neuron_effects(model, samples, fairness(), steps=3)
    assert torch.equal(one.expectation, two.expectation)
    assert torch.equal(samples.inputs, inputs)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_misuse() -> None:
    model, samples, fair = network(), rows(5), fairness()
    with pytest.raises(ValueError, match="samples: got none"):
        neuron_effects(model, samples.take(slice(0, 0)), fair)
    with pytest.raises(
        ValueError, match=r"steps, batch_size: got 1, .*; allowed: at least 2 steps"
    ):
        neuron_effects(model, samples, fair, steps=1)
    with pytest.raises(ValueError, match="training mode"):
        neuron_effects(network().train(), samples, fair)
    dropping = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2)).double()
    dropping.eval()[2].train()  # one module inside is enough to make the outcome random
    with pytest.raises(ValueError, match="training mode"):
        neuron_effects(dropping, samples, fair)
    with pytest.raises(ValueError, match=r"got relu1\[77\]"):
        neuron_effects(model, samples, fair, neurons=[Neuron("relu1", 77)])
    with pytest.raises(ValueError, match="each only once"):
        neuron_effects(model, samples, fair, neurons=[Neuron("relu1", 1)] * 2)
    with pytest.raises(ValueError, match="this network takes 4"):
        neuron_effects(model, rows(5, features=7), fair)
    effects = neuron_effects(model, samples, fair)
    with pytest.raises(ValueError, match="allowed: curve_mean, unmodified_outcome"):
        average_causal_effect(effects, baseline=lambda effects: effects.expectation[:, 0])
    with pytest.raises(ValueError, match="values"):
        IndividualFairness(columns=(), values=torch.zeros(2, 0))
