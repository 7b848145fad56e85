"""A network run again from the changed layer on: the same numbers, and no layer too many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from carelab.networks import cnn, hidden_neurons, mlp
from carelab.records import Neuron
from carelab.show.explorer import CachedRun, Change
from tests.show.explorer_worlds import slow_logits

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def _mlp() -> nn.Module:
    return mlp(3, (5, 4, 3), 2, generator=torch.Generator().manual_seed(0)).double()


def _inplace() -> nn.Module:
    linear = [nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)]
    model = nn.Sequential(
        linear[0], nn.ReLU(inplace=True), linear[1], nn.Dropout(inplace=True), nn.Tanh(), linear[2]
    )
    return model.double().eval()


def _cnn() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return cnn((1, 8, 8), (4, 6), (7,), 3, generator=generator).double()


def _normalised() -> nn.Module:
    # Batch normalisation between a layer and the next linear map is no map channel by channel
    # that could run on a few of them alone.
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)
    )
    with torch.no_grad():
        model[2].running_mean.uniform_(-1, 1)
        model[2].weight.uniform_(0.5, 2)
    return model.double().eval()


WORLDS = {
    "mlp": (_mlp, (20, 3)),
    "inplace": (_inplace, (20, 3)),
    "cnn": (_cnn, (6, 1, 8, 8)),
    "normalised": (_normalised, (20, 3)),
}


def _change(kind: bool, number: float) -> Change:
    return Change(value=number) if kind else Change(factor=number)


moves = st.lists(
    st.dictionaries(
        st.integers(0, 10_000),
        st.builds(_change, st.booleans(), st.sampled_from([-1.5, 0.0, 0.5, 1.0, 2.0])),
        max_size=6,
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("world", WORLDS)
@given(moves=moves)
def test_any_moves_give_what_the_whole_network_gives(world, moves):
    make, shape = WORLDS[world]
    model = make()
    inputs = torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    neurons = hidden_neurons(model)
    run = CachedRun(model, inputs)
    for move in moves:
        changes = {neurons[at % len(neurons)]: change for at, change in move.items()}
        expected = slow_logits(model, inputs, changes)
        torch.testing.assert_close(run.logits(changes), expected, **CLOSE)


def test_layers_before_the_changed_one_are_never_run_again():
    model = _mlp()
    run = CachedRun(model, torch.rand(9, 3, dtype=torch.float64))
    called = []
    for name, module in model.named_children():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    run.logits({Neuron("relu2", 0): Change(factor=0.5)})
    # linear3 is updated from what it gave before, by one column.
    assert called == ["relu3", "linear4"]
    called.clear()
    run.logits({Neuron("relu2", 0): Change(factor=0.5), Neuron("relu3", 1): Change(value=1.0)})
    assert called == ["linear4"]
    called.clear()
    run.logits({Neuron("relu2", 0): Change(factor=0.5), Neuron("relu3", 1): Change(value=1.0)})
    run.logits({})
    assert called == []


def test_the_network_and_the_inputs_are_left_as_they_are():
    model, inputs = _inplace(), torch.rand(5, 3, dtype=torch.float64)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    given = inputs.clone()
    run = CachedRun(model, inputs)
    before = run.logits({}).clone()
    run.logits({Neuron("1", 0): Change(value=3.0)})
    assert torch.equal(run.logits({}), before)
    assert torch.equal(inputs, given)
    assert all(torch.equal(model.state_dict()[name], one) for name, one in weights.items())


def test_changes_that_change_nothing_are_none():
    model = _mlp()
    run = CachedRun(model, torch.rand(5, 3, dtype=torch.float64))
    assert run.logits({Neuron("relu1", 0): Change()}) is run.logits({})


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (Neuron("linear1", 0), r"changes: got linear1\[0\]; allowed: whole neurons of relu1"),
        (Neuron("relu1", 5), r"changes: got relu1\[5\]; allowed: relu1\[0\] to relu1\[4\]"),
        (Neuron("relu1", 0, (0,)), "allowed: whole neurons"),
    ],
)
def test_a_neuron_that_cannot_be_changed_is_refused(neuron, message):
    run = CachedRun(_mlp(), torch.rand(5, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=message):
        run.logits({neuron: Change(factor=2.0)})


def test_a_network_without_hidden_layers_and_no_input_are_refused():
    with pytest.raises(ValueError, match="got 0 hidden layers and 3 rows"):
        CachedRun(nn.Sequential(nn.Linear(2, 2)).eval(), torch.rand(3, 2))
    with pytest.raises(ValueError, match="got 3 hidden layers and 0 rows"):
        CachedRun(_mlp(), torch.zeros(0, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="training mode"):
        CachedRun(_mlp().train(), torch.rand(3, 3, dtype=torch.float64))
