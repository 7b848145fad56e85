from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from carelab.causal import activations
from carelab.causal.outcomes import IntervenedBlock, intervened_scores
from carelab.networks import cnn, feature_positions, hidden_neurons
from carelab.properties import IndividualFairness, violation_scores
from carelab.records import Neuron, Samples, Unit, WholeLayer
from tests.reference.effects import counterfactuals, fairness_outcome, run_replaced
from tests.tables import fairness, network, rows, seeded


class Lead:
    """One probe; the score is the lead of class 1, the unit's effect on it nothing hidden."""

    name = "lead of class 1"

    def probes(self, inputs: Tensor) -> Tensor:
        return inputs[None]

    def score(self, outputs: Tensor, samples: Samples) -> Tensor:
        return outputs[..., 0, :, 1] - outputs[..., 0, :, 0]

    def margin(self, outputs: Tensor, samples: Samples) -> Tensor:
        return -self.score(outputs, samples)

    def rate(self, outputs: Tensor, samples: Samples) -> Tensor:
        return (self.score(outputs, samples) > 0).double().mean(dim=-1)


def small_cnn() -> tuple[nn.Sequential, Samples, list[Unit]]:
    model = cnn((1, 6, 6), (3, 2), (4,), 3, generator=seeded(2)).double()
    images = torch.rand(7, 1, 6, 6, dtype=torch.float64, generator=seeded())
    units: list[Unit] = [
        Neuron("relu3", 1),
        Neuron("pool2", 1, (0, 0)),
        WholeLayer("relu1"),
        *hidden_neurons(model, layers=["relu1"]),
        *feature_positions(model, "pool1", (1, 6, 6))[::4],
        Neuron("relu3", 0),
    ]
    return model, Samples(inputs=images), units


def constant(value: float, steps: int = 1) -> Callable[[tuple[Unit, ...], Tensor, slice], Tensor]:
    return lambda units, activations, samples: torch.full((len(units), steps), value)


def whole(blocks: list[IntervenedBlock], units: int, steps: int, samples: int) -> Tensor:
    """Scores of all units, steps and samples; each must come exactly once."""
    scores = torch.full((units, steps, samples), torch.nan, dtype=torch.float64)
    for block in blocks:
        assert scores[block.rows, :, block.samples].isnan().all()
        scores[block.rows, :, block.samples] = block.scores.double()
    assert not scores.isnan().any()
    return scores


def test_constants_equal_the_slow_reference() -> None:
    model, samples, fair = network(), rows(5), fairness()
    units = hidden_neurons(model)
    grid = torch.tensor([[-1.0, 0.0, 2.5]], dtype=torch.float64).expand(len(units), 3)
    blocks = list(
        intervened_scores(
            model, samples, fair, units, lambda some, *_: grid[: len(some)], steps=3, batch_size=40
        )
    )
    scores = whole(blocks, len(units), 3, 5)
    for number, unit in enumerate(units):
        for step, value in enumerate(grid[0]):
            for sample, row in enumerate(samples.inputs):
                probes = counterfactuals(row, fair.columns, fair.values)
                outputs = [
                    run_replaced(model, one, unit.layer, unit.place, value) for one in probes
                ]
                expected = fairness_outcome(outputs)
                assert float(scores[number, step, sample]) == pytest.approx(expected, abs=1e-10)


def test_values_of_another_input_equal_the_slow_reference() -> None:
    model, samples, units = small_cnn()
    others = samples.inputs.flip(0)
    recorded = activations(model, others, ["relu1", "pool1", "pool2", "relu3"])

    def swapped(some: tuple[Unit, ...], before: Tensor, where: slice) -> Tensor:
        there = recorded[some[0].layer][where]
        return torch.stack([there[(slice(None), *unit.place)] for unit in some])[:, None, None]

    blocks = list(intervened_scores(model, samples, Lead(), units, swapped, batch_size=3))
    scores = whole(blocks, len(units), 1, 7)
    for number, unit in enumerate(units):
        for sample, row in enumerate(samples.inputs):
            value = recorded[unit.layer][(sample, *unit.place)]
            logits = run_replaced(model, row, unit.layer, unit.place, value)
            expected = float(logits[1] - logits[0])
            assert float(scores[number, 0, sample]) == pytest.approx(expected, abs=1e-10)


def test_blocks_come_in_order_and_share_layer_and_shape() -> None:
    model, samples, units = small_cnn()
    seen: list[tuple[int, ...]] = []

    def zero(some: tuple[Unit, ...], before: Tensor, where: slice) -> Tensor:
        assert len({(unit.layer, len(unit.place)) for unit in some}) == 1
        assert before.shape[:2] == (1, where.stop - where.start)
        own = activations(model, samples.inputs[where], [some[0].layer])[some[0].layer]
        torch.testing.assert_close(before[0], own, rtol=0, atol=1e-12)
        seen.append(tuple(units.index(unit) for unit in some))
        return torch.zeros(len(some), 2)

    blocks = list(intervened_scores(model, samples, Lead(), units, zero, steps=2, batch_size=6))
    assert [tuple(block.rows.tolist()) for block in blocks] == seen
    starts = [block.samples.start for block in blocks]
    assert starts == sorted(starts)
    assert len(set(starts)) == 3  # 6 rows a pass are 3 samples of 2 steps
    for start in set(starts):
        together = [row for block in blocks if block.samples.start == start for row in block.rows]
        assert sorted(int(row) for row in together) == list(range(len(units)))
    whole(blocks, len(units), 2, 7)


@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 300), seed=st.integers(0, 50))
def test_splitting_the_batch_changes_nothing(batch_size: int, seed: int) -> None:
    model, samples, units = network(seed=seed), rows(9, seed=seed), hidden_neurons(network())
    scores = [
        whole(
            list(
                intervened_scores(
                    model, samples, fairness(), units, constant(0.5, 2), steps=2, batch_size=size
                )
            ),
            len(units),
            2,
            9,
        )
        for size in (batch_size, 32_768)
    ]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-12)


def test_recorded_activations_bound_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples, units = small_cnn()
    expected = whole(
        list(intervened_scores(model, samples, Lead(), units, constant(0.3))), len(units), 1, 7
    )
    monkeypatch.setattr("carelab.causal.outcomes._MOST_RECORDED", 400)
    blocks = list(intervened_scores(model, samples, Lead(), units, constant(0.3)))
    assert max(block.samples.stop - block.samples.start for block in blocks) == 2
    torch.testing.assert_close(whole(blocks, len(units), 1, 7), expected, rtol=0, atol=1e-12)


def test_a_unit_that_has_the_value_already_changes_no_bit() -> None:
    model, samples, units = small_cnn()
    model, samples = model.float(), Samples(inputs=samples.inputs.float())

    def own(some: tuple[Unit, ...], before: Tensor, where: slice) -> Tensor:
        return torch.stack([before[(slice(None), slice(None), *one.place)] for one in some])[
            :, None
        ]

    for block in intervened_scores(model, samples, Lead(), units, own):
        assert torch.equal(block.scores, block.untouched.expand_as(block.scores))
    neuron = hidden_neurons(model, layers=["relu3"])[0]
    with torch.no_grad():
        model.linear1.bias[neuron.index] = -1000  # never active, so that 0 is what it has
        model.conv1.bias[1] = -1000
    for unit in (neuron, Neuron("relu1", 1)):
        for block in intervened_scores(model, samples, Lead(), [unit], constant(0.0)):
            assert torch.equal(block.scores, block.untouched.expand_as(block.scores))


def test_a_unit_that_never_changes_is_not_run_again() -> None:
    model, samples, _ = small_cnn()
    with torch.no_grad():
        model.linear1.bias[0] = -1000  # never active, so that 0 is what it has
    neurons, judged = hidden_neurons(model, layers=["relu3"]), []

    class Counting(Lead):
        def score(self, outputs: Tensor, samples: Samples) -> Tensor:
            judged.append(outputs.shape[:-3].numel())
            return super().score(outputs, samples)

    blocks = list(intervened_scores(model, samples, Counting(), neurons, constant(0.0)))
    assert sum(judged) == 1 + len(neurons) - 1  # once untouched, then the others
    expected = list(intervened_scores(model, samples, Lead(), neurons[1:], constant(0.0)))
    assert torch.equal(blocks[0].scores[0], blocks[0].untouched[None])
    torch.testing.assert_close(blocks[0].scores[1:], expected[0].scores, rtol=0, atol=1e-12)


def test_only_samples_in_which_all_probes_have_the_value_are_left() -> None:
    # h = relu(s) with s set to 0 and 2 by the probes: held at 0 it moves the second probe.
    model, fair = network(), IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [2.0]]))
    unit, samples = Neuron("relu1", 0), rows(20)
    held = torch.cat(
        [
            block.scores[0, 0]
            for block in intervened_scores(model, samples, fair, [unit], constant(0))
        ]
    )
    for sample, row in enumerate(samples.inputs):
        probes = counterfactuals(row, fair.columns, fair.values.double())
        outputs = [run_replaced(model, one, "relu1", (0,), torch.zeros(())) for one in probes]
        assert float(held[sample]) == pytest.approx(fairness_outcome(outputs), abs=1e-10)


def test_scores_may_be_used_and_changed_freely() -> None:
    model, samples = network(), rows(4)
    with torch.no_grad():
        expected = violation_scores(model, samples, fairness())
    for block in intervened_scores(
        model, samples, fairness(), hidden_neurons(model), constant(0.0), progress=True
    ):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        torch.testing.assert_close(block.untouched, expected)
        block.scores.mul_(2)
        block.untouched.requires_grad_()


def test_misuse() -> None:
    model, samples, fair = network(), rows(5), fairness()
    units = hidden_neurons(model)[:2]
    with pytest.raises(ValueError, match="samples: got none"):
        intervened_scores(model, samples.take(slice(0, 0)), fair, units, constant(0.0))
    with pytest.raises(ValueError, match="units: got 0; allowed: at least one"):
        intervened_scores(model, samples, fair, [], constant(0.0))
    with pytest.raises(ValueError, match="each only once"):
        intervened_scores(model, samples, fair, [units[0], units[0]], constant(0.0))
    with pytest.raises(ValueError, match="steps, batch_size: got 0, 32768"):
        intervened_scores(model, samples, fair, units, constant(0.0), steps=0)
    with pytest.raises(
        ValueError, match=r"unit: got relu1\[6\]; allowed: relu1\[0\] to relu1\[5\]"
    ):
        intervened_scores(model, samples, fair, [Neuron("relu1", 6)], constant(0.0))
    with pytest.raises(ValueError, match="layer: got 'relu9'; allowed: linear1, relu1"):
        intervened_scores(model, samples, fair, [WholeLayer("relu9")], constant(0.0))
    with pytest.raises(ValueError, match="training mode"):
        intervened_scores(network().train(), samples, fair, units, constant(0.0))
    with pytest.raises(ValueError, match="this network takes 4"):
        intervened_scores(model, rows(5, features=7), fair, units, constant(0.0))
    by_batch = nn.BatchNorm1d(3, track_running_stats=False)
    normalised = nn.Sequential(nn.Linear(4, 3), by_batch, nn.ReLU(), nn.Linear(3, 2)).double()
    with pytest.raises(ValueError, match="model: 1 normalises by the batch itself"):
        intervened_scores(normalised.eval(), samples, fair, [Neuron("2", 0)], constant(0.0))
    blocks = intervened_scores(model, samples, fair, units, constant(0.0, 3), steps=2)
    with pytest.raises(
        ValueError,
        match=r"returned shape \(2, 3\); allowed: \(2, 2\) for constants, \(2, 2, 4, 5\)",
    ):
        next(blocks)
