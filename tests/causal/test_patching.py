import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.causal import (
    confidence_interval,
    first_probe_values,
    patching_average,
    patching_effects,
    patching_gain,
    reference_values,
)
from carelab.networks import hidden_neurons, mlp
from carelab.properties import violation_scores
from carelab.records import Neuron, Samples, WholeLayer
from tests.causal.small_networks import (
    CONV_UNITS,
    Margin,
    column,
    conv_network,
    images,
    redundant,
    three_neurons,
)
from tests.reference.mediation import falls, mean_and_error, score, value
from tests.tables import fairness, network, rows, seeded

PAIRS = (
    Samples(inputs=torch.tensor([[1.0, 1.0], [3.0, 1.0]]).double()),
    Samples(inputs=torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()),
)


def test_by_hand() -> None:
    # y = 2 relu(s) + relu(a): 3 and 5 at the samples, 1 and 1 at the references. h0 carries 2 of
    # it in both rows, h1 carries 0 and 2, h2 feeds nothing.
    samples, references = PAIRS
    for effects in (patching_effects, patching_gain, patching_average):
        found = effects(three_neurons(), samples, Margin(), references=references)
        assert found.effect.tolist() == [2.0, 1.0, 0.0]
        assert found.standard_error.tolist() == [0.0, 1.0, 0.0]
        assert found.units == hidden_neurons(three_neurons())


def test_two_units_of_which_either_is_enough() -> None:
    # s = 1 at the samples, 0 at the references. Curing one h leaves the other: g = relu(1 - 1)
    # stays 0 and y stays 1. Infecting one alone brings g from 1 to 0 and y from 0 to 1.
    model = redundant()
    ones, zeros = column(1.0, 1.0), column(0.0, 0.0)
    cured = patching_effects(model, ones, Margin(), references=zeros)
    gain = patching_gain(model, ones, Margin(), references=zeros)
    both = patching_average(model, ones, Margin(), references=zeros)
    assert cured.effect.tolist() == [0.0, 0.0, 1.0]
    assert gain.effect.tolist() == [1.0, 1.0, 1.0]
    assert both.effect.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_fairness_equals_the_slow_reference(activation: type[nn.Module]) -> None:
    model = mlp(4, (5, 3), 2, activation=activation, generator=seeded(1)).double()
    layer = next(name for name, module in model.named_children() if type(module) is activation)
    units = (*hidden_neurons(model), Neuron("linear2", 1), WholeLayer(layer))
    samples, fair = rows(6), fairness()

    def at_first_probe(unit: Neuron | WholeLayer, row: int, probe: int) -> torch.Tensor:
        return value(model, fair.probes(samples.inputs[row : row + 1])[0, 0], unit)

    cured = torch.stack(
        [falls(model, samples.inputs, fair, [unit], at_first_probe) for unit in units]
    )
    gain = torch.zeros(len(units), 6, dtype=torch.float64)
    for number, unit in enumerate(units):
        for row, one in enumerate(samples.inputs):
            probes = fair.probes(one[None])[:, 0]
            alike = Repeated(fair)
            held = [{unit: value(model, probe, unit)} for probe in probes]
            gain[number, row] = score(model, one, alike, held)
    for found, slow in (
        (patching_effects(model, samples, fair, units=units), cured),
        (patching_gain(model, samples, fair, units=units), gain),
        (patching_average(model, samples, fair, units=units), (cured + gain) / 2),
    ):
        mean, error = mean_and_error(slow)
        torch.testing.assert_close(found.effect, mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.standard_error, error, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.covariance, torch.cov(slow) / 6, rtol=0, atol=1e-12)


class Repeated:
    """Individual fairness whose probes are all the input itself."""

    def __init__(self, fair) -> None:
        self.fair, self.name = fair, "repeated"

    def probes(self, inputs):
        return inputs.expand(len(self.fair.values) + 1, *inputs.shape)

    def score(self, outputs, samples):
        return self.fair.score(outputs, samples)

    margin = rate = score


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid])
def test_references_on_feature_maps_equal_the_slow_reference(activation: type[nn.Module]) -> None:
    model, samples, references = conv_network(activation), images(4), images(4, seed=5)
    units = (*CONV_UNITS, WholeLayer("pool1"), WholeLayer("relu3"))
    found = patching_effects(
        model, samples, Margin(), references=references, units=units, batch_size=3
    )
    slow = torch.stack(
        [
            falls(
                model,
                samples.inputs,
                Margin(),
                [unit],
                lambda u, row, _: value(model, references.inputs[row], u),
            )
            for unit in units
        ]
    )
    torch.testing.assert_close(found.effect, slow.mean(dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.covariance, torch.cov(slow) / 4, rtol=0, atol=1e-12)
    back = patching_gain(model, references, Margin(), references=samples, units=units)
    torch.testing.assert_close(back.effect, -found.effect, rtol=0, atol=1e-12)


def test_references_of_a_property_of_several_probes_are_taken_probe_by_probe() -> None:
    model, samples, references, fair = network(), rows(5), rows(5, seed=7), fairness()
    probes = fair.probes(references.inputs)
    unit = Neuron("relu2", 3)
    found = patching_effects(model, samples, fair, references=references, units=[unit])
    slow = falls(
        model,
        samples.inputs,
        fair,
        [unit],
        lambda u, row, probe: value(model, probes[probe, row], u),
    )
    torch.testing.assert_close(found.effect[0], slow.mean(), rtol=0, atol=1e-12)


def test_a_layer_that_everything_passes_through_carries_everything() -> None:
    model, samples, references = network(), rows(30), rows(30, seed=1)
    layers = [WholeLayer(layer) for layer in ("linear1", "relu1", "relu2", "relu3")]
    total = violation_scores(model, samples, Margin()) - violation_scores(
        model, references, Margin()
    )
    for effects in (patching_effects, patching_gain):
        found = effects(model, samples, Margin(), references=references, units=layers)
        expected = total.detach().mean().expand(4)
        torch.testing.assert_close(found.effect, expected, rtol=0, atol=1e-12)
    unfair = violation_scores(model, samples, fairness()).detach().mean()
    cured = patching_effects(model, samples, fairness(), units=layers)
    torch.testing.assert_close(cured.effect, unfair.expand(4), rtol=0, atol=1e-12)


@settings(max_examples=4)
@given(batch_size=st.integers(16, 300), seed=st.integers(0, 100))
def test_splitting_the_batch_changes_nothing(batch_size: int, seed: int) -> None:
    model, samples, references = network(seed=seed), rows(11, seed=seed), rows(11, seed=seed + 1)
    for given_references in (None, references):
        for effects in (patching_effects, patching_gain, patching_average):
            whole = effects(model, samples, fairness(), references=given_references)
            parts = effects(
                model, samples, fairness(), references=given_references, batch_size=batch_size
            )
            torch.testing.assert_close(parts.effect, whole.effect, rtol=0, atol=1e-12)
            torch.testing.assert_close(parts.covariance, whole.covariance, rtol=0, atol=1e-12)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_permuting_neurons_permutes_effects(seed: int) -> None:
    model, samples = network(seed=seed), rows(9, seed=seed)
    order = torch.randperm(5, generator=seeded(seed))
    permuted = network(seed=seed)
    with torch.no_grad():
        permuted.linear2.weight.copy_(model.linear2.weight[order])
        permuted.linear2.bias.copy_(model.linear2.bias[order])
        permuted.linear3.weight.copy_(model.linear3.weight[:, order])
    one = patching_average(model, samples, fairness()).effect[6:11]
    two = patching_average(permuted, samples, fairness()).effect[6:11]
    torch.testing.assert_close(two, one[order], rtol=0, atol=1e-12)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), blind=st.integers(0, 5))
def test_neurons_that_feed_nothing_or_do_not_see_the_cause_have_no_effect(
    seed: int, blind: int
) -> None:
    model, samples = network(seed=seed), rows(20, seed=seed)
    with torch.no_grad():
        model.linear1.weight[blind, 1] = 0  # column 1 is the sensitive one
        model.linear3.weight[:, 2] = 0
    for effects in (patching_effects, patching_gain):
        found = effects(model, samples, fairness())
        low, high = confidence_interval(found)
        for row in (blind, 6 + 2):
            assert abs(float(found.effect[row])) < 1e-12
            assert float(low[row]) - 1e-12 <= 0 <= float(high[row]) + 1e-12


def test_in_single_precision_too_nothing_is_exactly_nothing() -> None:
    model, samples = network().float(), rows(300)
    single, fair = Samples(inputs=samples.inputs.float()), fairness()
    with torch.no_grad():
        model.linear1.weight[3, 1] = 0  # the sensitive column
    pictured, other = conv_network().float(), images(40)
    pictures = Samples(inputs=other.inputs.float())
    changed = pictures.inputs.clone()
    changed[:, :, 0, 0] = 1.0  # seen by the upper left of the maps only
    far = Neuron("relu1", 0, (4, 4))
    for effects in (patching_effects, patching_gain, patching_average):
        found = effects(model, single, fair)
        assert float(found.effect[3]) == float(found.standard_error[3]) == 0
        found = effects(
            pictured, Samples(inputs=changed), Margin(), references=pictures, units=[far]
        )
        assert float(found.effect[0]) == float(found.standard_error[0]) == 0


def test_values_of_references_and_first_probes() -> None:
    model, samples, fair = network(), rows(6), fairness()
    before = torch.stack([model[:2](probe) for probe in fair.probes(samples.inputs)]).detach()
    units = (Neuron("relu1", 4), Neuron("relu1", 0))
    first = first_probe_values(units, before, slice(0, 6))
    assert torch.equal(first, before[:1, :, [4, 0]].expand(4, 6, 2).movedim(-1, 0)[:, None])
    patch = reference_values(model, samples, fair)
    for where in (slice(2, 5), slice(0, 2), slice(2, 5)):
        values = patch(units, before, where)
        assert torch.equal(values, before[:, where, [4, 0]].movedim(-1, 0)[:, None])
    other = patch((Neuron("relu2", 1),), before, slice(2, 5))
    assert other.shape == (1, 1, 4, 3)
    expected = torch.stack([model[:4](probe[2:5])[:, 1] for probe in fair.probes(samples.inputs)])
    torch.testing.assert_close(other[0, 0], expected.detach(), rtol=0, atol=1e-14)


def test_the_model_and_inputs_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).double().eval()
    samples, references = rows(8), rows(8, seed=1)
    kept = samples.inputs.clone(), references.inputs.clone()
    one = patching_average(model, samples, Margin(), references=references)
    two = patching_average(model, samples, Margin(), references=references)
    assert torch.equal(one.effect, two.effect)
    assert torch.equal(samples.inputs, kept[0])
    assert torch.equal(references.inputs, kept[1])


@pytest.mark.parametrize("effects", [patching_effects, patching_gain, patching_average])
def test_misuse(effects) -> None:
    model, samples = network(), rows(5)
    with pytest.raises(
        ValueError, match="references: got none, and class 1 must not win has a single probe"
    ):
        effects(model, samples, Margin())
    with pytest.raises(ValueError, match="references: got 4 for 5 samples; allowed: one for each"):
        effects(model, samples, Margin(), references=rows(4))
    with pytest.raises(ValueError, match="samples: got 1; allowed: at least 2"):
        effects(model, rows(1), fairness())
    with pytest.raises(ValueError, match="samples: got none"):
        effects(model, samples.take(slice(0, 0)), fairness())
    with pytest.raises(ValueError, match="this network takes 4"):
        effects(model, samples, fairness(), references=rows(5, features=7))
    with pytest.raises(ValueError, match="training mode"):
        effects(network().train(), samples, fairness())
    with pytest.raises(ValueError, match=r"got relu1\[77\]"):
        effects(model, samples, fairness(), units=[Neuron("relu1", 77)])
