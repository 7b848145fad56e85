import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.causal import (
    class_margin,
    class_probability,
    confidence_interval,
    mediated_effects,
    pair_groups,
)
from carelab.networks import hidden_layers, hidden_neurons, mlp
from carelab.records import Neuron, WholeLayer
from tests.causal.small_networks import (
    CONV_UNITS,
    conv_network,
    images,
    linear_network,
    redundant,
    three_neurons,
)
from tests.reference.mediation import mean_and_error, mediation
from tests.tables import network, rows, seeded


def test_by_hand() -> None:
    # y = 2 relu(s) + relu(a). From (1, 0) to (1, 1) it rises by 2, all of it through h0; from
    # (1, 0) to (3, 1) by 4, half through h0 and half through h1; h2 feeds nothing.
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()
    other = torch.tensor([[1.0, 1.0], [3.0, 1.0]]).double()
    found = mediated_effects(three_neurons(), x, other, class_margin(1))
    assert (found.total, found.total_error, found.samples) == (3.0, 1.0, 2)
    assert found.indirect.effect.tolist() == [2.0, 1.0, 0.0]
    assert found.indirect.standard_error.tolist() == [0.0, 1.0, 0.0]
    assert found.total_indirect.effect.tolist() == [2.0, 1.0, 0.0]
    assert found.direct.effect.tolist() == [1.0, 2.0, 3.0]
    assert found.direct.standard_error.tolist() == [1.0, 0.0, 1.0]
    assert found.units == hidden_neurons(three_neurons())


def test_natural_and_total_indirect_effects_differ_where_units_work_together() -> None:
    # Either h is enough: alone it raises y by 1, and all the more nothing is lost without it.
    zeros, ones = torch.zeros(2, 1).double(), torch.ones(2, 1).double()
    found = mediated_effects(redundant(), zeros, ones, class_margin(1))
    assert found.total == 1.0
    assert found.indirect.effect.tolist() == [1.0, 1.0, 1.0]
    assert found.total_indirect.effect.tolist() == [0.0, 0.0, 1.0]
    assert found.direct.effect.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_neurons_equal_the_slow_reference(activation: type[nn.Module]) -> None:
    model = mlp(4, (5, 3), 3, activation=activation, generator=seeded(1)).double()
    units = (*hidden_neurons(model), Neuron("linear1", 2), WholeLayer("linear2"))
    _compare(model, rows(6).inputs, rows(6, seed=1).inputs, units)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_channels_positions_and_layers_equal_the_slow_reference(
    activation: type[nn.Module],
) -> None:
    units = (*CONV_UNITS, WholeLayer("pool1"))
    _compare(conv_network(activation), images(4).inputs, images(4, seed=1).inputs, units)


def _compare(model: nn.Sequential, x: torch.Tensor, other: torch.Tensor, units) -> None:
    outcome = class_probability(2)
    found = mediated_effects(model, x, other, outcome, units=units, batch_size=5)
    slow = [mediation(model, x, other, outcome, unit) for unit in units]
    total = slow[0][0]
    direct = torch.stack([one[1] for one in slow])
    indirect = torch.stack([one[2] for one in slow])
    mean, error = mean_and_error(total)
    assert found.total == pytest.approx(float(mean), abs=1e-12)
    assert found.total_error == pytest.approx(float(error), abs=1e-12)
    for effects, expected in (
        (found.direct, direct),
        (found.indirect, indirect),
        (found.total_indirect, total - direct),
    ):
        torch.testing.assert_close(effects.effect, expected.mean(dim=1), rtol=0, atol=1e-12)
        covariance = torch.cov(expected) / len(x)
        torch.testing.assert_close(effects.covariance, covariance, rtol=0, atol=1e-12)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_a_layer_that_everything_passes_through_carries_the_total_effect(seed: int) -> None:
    model = network(seed=seed)
    x, other = rows(12, seed=seed).inputs, rows(12, seed=seed + 1).inputs
    layers = [WholeLayer(layer) for layer in ("linear1", *hidden_layers(model))]
    found = mediated_effects(model, x, other, class_probability(1), units=layers)
    total = torch.full((4,), found.total, dtype=torch.float64)
    torch.testing.assert_close(found.indirect.effect, total, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.direct.effect, torch.zeros_like(total), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        found.indirect.standard_error,
        torch.full((4,), found.total_error, dtype=torch.float64),
        rtol=0,
        atol=1e-12,
    )
    assert float(found.direct.standard_error.max()) < 1e-7


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_in_a_linear_network_the_indirect_effects_of_a_layer_add_up_to_the_total(
    seed: int,
) -> None:
    model = linear_network(seed)
    x, other = rows(12, seed=seed).inputs, rows(12, seed=seed + 1).inputs
    found = mediated_effects(model, x, other, class_margin(0))
    for units in (slice(0, 5), slice(5, 9)):
        assert float(found.indirect.effect[units].sum()) == pytest.approx(found.total, abs=1e-10)
        # The same holds sample by sample, so the error of the sum is that of the total too.
        together = float(found.indirect.covariance[units, units].sum()) ** 0.5
        assert together == pytest.approx(found.total_error, abs=1e-10)
    torch.testing.assert_close(found.indirect.effect, found.total_indirect.effect)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), dead=st.integers(0, 5))
def test_a_neuron_that_feeds_nothing_carries_nothing(seed: int, dead: int) -> None:
    model = network(seed=seed)
    with torch.no_grad():
        model.linear2.weight[:, dead] = 0
    x, other = rows(12, seed=seed).inputs, rows(12, seed=seed + 1).inputs
    found = mediated_effects(model, x, other, class_margin(1))
    low, high = confidence_interval(found.indirect)
    assert abs(float(found.indirect.effect[dead])) < 1e-12
    assert float(low[dead]) - 1e-12 <= 0 <= float(high[dead]) + 1e-12
    assert float(found.direct.effect[dead]) == pytest.approx(found.total, abs=1e-12)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), batch_size=st.integers(1, 100))
def test_order_of_neurons_and_split_of_the_batch_change_nothing(seed: int, batch_size: int) -> None:
    model = network(seed=seed)
    x, other = rows(11, seed=seed).inputs, rows(11, seed=seed + 1).inputs
    units = hidden_neurons(model)
    order = torch.randperm(len(units), generator=seeded(seed))
    one = mediated_effects(model, x, other, class_margin(1))
    two = mediated_effects(
        model,
        x,
        other,
        class_margin(1),
        units=[units[row] for row in order.tolist()],
        batch_size=batch_size,
    )
    for part in ("indirect", "direct", "total_indirect"):
        first, second = getattr(one, part), getattr(two, part)
        torch.testing.assert_close(second.effect, first.effect[order], rtol=0, atol=1e-12)
        torch.testing.assert_close(
            second.covariance, first.covariance[order][:, order], rtol=0, atol=1e-12
        )


def test_outcomes_by_hand() -> None:
    outputs = torch.tensor([[1.0, 4.0, 2.0], [5.0, 0.0, 3.0]])
    assert class_margin(1)(outputs).tolist() == [2.0, -5.0]
    assert class_margin(2)(outputs).tolist() == [-2.0, -2.0]
    torch.testing.assert_close(class_probability(0)(outputs), outputs.softmax(dim=1)[:, 0])
    for outcome in (class_margin(3), class_probability(3)):
        with pytest.raises(ValueError, match="index: got class 3; allowed: 0 to 2"):
            outcome(outputs)
    for make in (class_margin, class_probability):
        with pytest.raises(ValueError, match="index: got class -1; allowed: 0 or more"):
            make(-1)
    with pytest.raises(ValueError, match="one class, which has no margin"):
        class_margin(0)(outputs[:, :1])


def test_pairs_take_each_row_once() -> None:
    first, second = torch.arange(5.0)[:, None], 10 + torch.arange(8.0)[:, None]
    one, two = pair_groups(first, second, generator=seeded(3))
    assert sorted(one.flatten().tolist()) == [0, 1, 2, 3, 4]
    partners = set(two.flatten().tolist())
    assert len(partners) == 5
    assert partners <= set(second.flatten().tolist())
    again = pair_groups(first, second, generator=seeded(3))
    assert torch.equal(one, again[0])
    assert torch.equal(two, again[1])
    assert {
        float(pair_groups(first, second, generator=seeded(seed))[1][0]) for seed in range(60)
    } == set(second.flatten().tolist())


def test_misuse() -> None:
    model, x = network(), rows(5).inputs
    with pytest.raises(ValueError, match=r"counterfactuals: got shape \(4, 4\) for inputs"):
        mediated_effects(model, x, x[:4], class_margin(1))
    with pytest.raises(ValueError, match="samples: got 1; allowed: at least 2"):
        mediated_effects(model, x[:1], x[:1], class_margin(1))
    with pytest.raises(ValueError, match=r"outcome: returned shape \(\d, 2\) for logits"):
        mediated_effects(model, x, x, lambda outputs: outputs)
    with pytest.raises(ValueError, match="training mode"):
        mediated_effects(network().train(), x, x, class_margin(1))
    with pytest.raises(ValueError, match="units: got 0"):
        mediated_effects(model, x, x, class_margin(1), units=[])
    with pytest.raises(ValueError, match="this network takes 4"):
        mediated_effects(model, rows(5, features=7).inputs, rows(5, features=7).inputs, len)
    for first, second in ((x[:0], x), (x, x[:0]), (x, x[:, :2])):
        with pytest.raises(ValueError, match="first, second: got shapes"):
            pair_groups(first, second, generator=seeded())
