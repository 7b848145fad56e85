import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.causal import (
    ablation_effects,
    activations,
    confidence_interval,
    mean_activation,
    resampled_activation,
    score_falls,
    zero_activation,
)
from carelab.networks import hidden_neurons, mlp
from carelab.records import Neuron, Samples, WholeLayer
from tests.causal.small_networks import (
    CONV_UNITS,
    Margin,
    column,
    conv_network,
    images,
    three_neurons,
)
from tests.reference.mediation import falls, mean_and_error, value
from tests.tables import fairness, network, rows, seeded


def test_by_hand() -> None:
    # y = 2 relu(s) + relu(a) at (a, s) = (1, 1) and (3, 1): cutting h0 takes 2 from both, cutting
    # h1 takes 1 and 3, h2 feeds nothing. Sample variances 0, 2, 0, divided by 2 rows.
    samples = Samples(inputs=torch.tensor([[1.0, 1.0], [3.0, 1.0]]).double())
    found = ablation_effects(three_neurons(), samples, Margin(), replacement=zero_activation)
    assert found.effect.tolist() == [2.0, 2.0, 0.0]
    assert found.standard_error.tolist() == [0.0, 1.0, 0.0]
    assert found.samples == 2
    # Over a background of a = 1 and 5 the mean of h1 is 3: y falls by 1 - 3 and 3 - 3.
    background = Samples(inputs=torch.tensor([[1.0, 1.0], [5.0, 1.0]]).double())
    mean = mean_activation(three_neurons(), background)
    found = ablation_effects(three_neurons(), samples, Margin(), replacement=mean)
    assert found.effect.tolist() == [0.0, -1.0, 0.0]
    whole = ablation_effects(
        three_neurons(),
        samples,
        Margin(),
        replacement=zero_activation,
        units=[WholeLayer("relu1"), Neuron("relu1", 1)],
    )
    assert whole.effect.tolist() == [4.0, 2.0]
    assert whole.covariance.tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_neurons_equal_the_slow_reference(activation: type[nn.Module]) -> None:
    model = mlp(4, (5, 3), 2, activation=activation, generator=seeded(1)).double()
    first, second = (name for name, module in model.named_children() if type(module) is activation)
    units = (*hidden_neurons(model), Neuron("linear1", 2), WholeLayer(first), WholeLayer(second))
    samples, fair = rows(6), fairness()
    found = ablation_effects(model, samples, fair, replacement=zero_activation, units=units)
    slow = torch.stack(
        [falls(model, samples.inputs, fair, [unit], lambda *_: 0.0) for unit in units]
    )
    mean, error = mean_and_error(slow)
    torch.testing.assert_close(found.effect, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.standard_error, error, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.covariance, torch.cov(slow) / 6, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_channels_positions_and_layers_equal_the_slow_reference(
    activation: type[nn.Module],
) -> None:
    model, samples, background = conv_network(activation), images(4), images(5, seed=3)
    units = (*CONV_UNITS, WholeLayer("relu2"), WholeLayer("pool2"))
    means = {
        unit: torch.stack([value(model, row, unit) for row in background.inputs]).mean(dim=0)
        for unit in units
    }
    found = ablation_effects(
        model,
        samples,
        Margin(),
        replacement=mean_activation(model, background, batch_size=2),
        units=units,
    )
    slow = torch.stack(
        [falls(model, samples.inputs, Margin(), [unit], lambda u, *_: means[u]) for unit in units]
    )
    torch.testing.assert_close(found.effect, slow.mean(dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.covariance, torch.cov(slow) / 4, rtol=0, atol=1e-12)


def test_resampling_from_all_other_rows_equals_the_slow_reference() -> None:
    # With as many draws as there are other rows, nothing is left to chance.
    model, samples, fair = network(), rows(6), fairness()
    units = hidden_neurons(model)[::3]
    others = resampled_activation(model, samples, draws=5, generator=seeded())
    found = ablation_effects(model, samples, fair, replacement=others, units=units)
    recorded = activations(model, samples.inputs, [unit.layer for unit in units])
    slow = []
    for unit in units:
        away = torch.stack(
            [
                falls(
                    model,
                    samples.inputs,
                    fair,
                    [unit],
                    lambda u, row, _, shift=shift: recorded[u.layer][(row + shift) % 6, u.index],
                )
                for shift in range(1, 6)
            ]
        )
        slow.append(away.mean(dim=0))
    torch.testing.assert_close(found.effect, torch.stack(slow).mean(dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.covariance, torch.cov(torch.stack(slow)) / 6)


def test_a_draw_is_never_the_row_itself_and_the_same_for_all_units_and_batches() -> None:
    model, samples = conv_network(), images(7)
    units = (Neuron("relu2", 0), Neuron("relu2", 1))
    recorded = activations(model, samples.inputs, ["relu2"])["relu2"]
    before = recorded.expand(3, *recorded.shape)
    drawn = resampled_activation(model, samples, draws=6, generator=seeded(4))
    seen = torch.stack([one(units, before, slice(0, 7)) for one in drawn])
    assert seen.shape == (6, 2, 1, 3, 7, 3, 3)
    for row in range(7):
        sources = [
            next(
                number
                for number in range(7)
                if torch.equal(seen[draw, 0, 0, 0, row], recorded[number, 0])
            )
            for draw in range(6)
        ]
        assert sorted(sources) == [number for number in range(7) if number != row]
        for draw, source in enumerate(sources):
            assert torch.equal(seen[draw, 1, 0, 2, row], recorded[source, 1])
    part = drawn[0](units, before[:, 3:5], slice(3, 5))
    assert torch.equal(part, seen[0][:, :, :, 3:5])


def test_constants_and_values_of_samples_can_be_averaged() -> None:
    # y falls by 2 h0: 2 each at s = 1 by zero, 0 by its own value, so 1 on average.
    samples = Samples(inputs=torch.tensor([[1.0, 1.0], [3.0, 1.0]]).double())

    def own(units: tuple[Neuron, ...], before: torch.Tensor, where: slice) -> torch.Tensor:
        return torch.stack([before[..., unit.index] for unit in units])[:, None]

    both = ablation_effects(three_neurons(), samples, Margin(), replacement=[zero_activation, own])
    assert both.effect.tolist() == [1.0, 1.0, 0.0]


@settings(max_examples=5)
@given(batch_size=st.integers(4, 300), seed=st.integers(0, 100))
def test_splitting_the_batch_changes_nothing(batch_size: int, seed: int) -> None:
    model, samples, background = network(seed=seed), rows(11, seed=seed), rows(8, seed=seed + 1)
    for replacement in (
        mean_activation(model, background),
        resampled_activation(model, background, draws=3, generator=seeded(seed)),
    ):
        whole = ablation_effects(model, samples, fairness(), replacement=replacement)
        parts = ablation_effects(
            model, samples, fairness(), replacement=replacement, batch_size=batch_size
        )
        torch.testing.assert_close(parts.effect, whole.effect, rtol=0, atol=1e-12)
        torch.testing.assert_close(parts.covariance, whole.covariance, rtol=0, atol=1e-12)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_permuting_neurons_permutes_effects(seed: int) -> None:
    model, samples = network(seed=seed), rows(9, seed=seed)
    order = torch.randperm(6, generator=seeded(seed))
    permuted = network(seed=seed)
    with torch.no_grad():
        permuted.linear1.weight.copy_(model.linear1.weight[order])
        permuted.linear1.bias.copy_(model.linear1.bias[order])
        permuted.linear2.weight.copy_(model.linear2.weight[:, order])
    one = ablation_effects(model, samples, fairness(), replacement=zero_activation)
    two = ablation_effects(permuted, samples, fairness(), replacement=zero_activation)
    torch.testing.assert_close(two.effect[:6], one.effect[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(
        two.covariance[:6, :6], one.covariance[order][:, order], rtol=0, atol=1e-12
    )


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), dead=st.integers(0, 5))
def test_a_neuron_that_feeds_nothing_has_no_effect(seed: int, dead: int) -> None:
    model, samples = network(seed=seed), rows(20, seed=seed)
    with torch.no_grad():
        model.linear2.weight[:, dead] = 0
    drawn = resampled_activation(model, samples, draws=3, generator=seeded(seed))
    found = ablation_effects(model, samples, fairness(), replacement=drawn)
    low, high = confidence_interval(found)
    assert abs(float(found.effect[dead])) < 1e-12
    assert float(low[dead]) - 1e-12 <= 0 <= float(high[dead]) + 1e-12


def test_single_precision_is_summed_in_double() -> None:
    model, samples = network().float(), rows(300)
    single = Samples(inputs=samples.inputs.float())
    one = ablation_effects(model, single, fairness(), replacement=zero_activation)
    two = ablation_effects(network(), samples, fairness(), replacement=zero_activation)
    assert one.effect.dtype == one.covariance.dtype == torch.float64
    torch.testing.assert_close(one.effect, two.effect, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one.standard_error, two.standard_error, rtol=1e-4, atol=1e-6)


def test_blocks_come_in_order_with_all_units() -> None:
    model, samples = network(), rows(11)
    units = (*hidden_neurons(model), WholeLayer("relu2"))
    blocks = list(score_falls(model, samples, fairness(), units, zero_activation, batch_size=12))
    assert [(rows.start, rows.stop) for rows, _ in blocks] == [(0, 3), (3, 6), (6, 9), (9, 11)]
    assert [len(block) for _, block in blocks] == [15] * 4


def test_misuse() -> None:
    model, samples, fair = network(), rows(5), fairness()
    with pytest.raises(ValueError, match="replacement: got none"):
        ablation_effects(model, samples, fair, replacement=[])
    with pytest.raises(ValueError, match="samples: got 1; allowed: at least 2"):
        ablation_effects(model, rows(1), fair, replacement=zero_activation)
    with pytest.raises(ValueError, match="background: got no sample"):
        mean_activation(model, samples.take(slice(0, 0)))
    with pytest.raises(ValueError, match="got 5 of a background of 5 samples; allowed: 1 to 4"):
        resampled_activation(model, samples, draws=5, generator=seeded())
    with pytest.raises(ValueError, match="training mode"):
        mean_activation(network().train(), samples)
    with pytest.raises(ValueError, match="training mode"):
        resampled_activation(network().train(), samples, generator=seeded())
    with pytest.raises(ValueError, match=r"got relu1\[77\]"):
        ablation_effects(
            model, samples, fair, replacement=zero_activation, units=[Neuron("relu1", 77)]
        )
    with pytest.raises(ValueError, match="replacement: returned shape"):
        ablation_effects(
            model, samples, fair, replacement=lambda units, before, where: before.new_zeros(3)
        )
    with pytest.raises(ValueError, match="each only once"):
        ablation_effects(
            model,
            column(1.0, 2.0),
            Margin(),
            replacement=zero_activation,
            units=[Neuron("relu1", 0)] * 2,
        )
