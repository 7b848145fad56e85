import pytest
import torch
from torch import nn
from torch.func import functional_call

from carelab.networks import cnn, hidden_neurons, mlp
from carelab.records import Neuron
from carelab.repair import factor_space, revive, scale_neurons, weight_space
from tests.tables import network, rows, seeded


def under(model: nn.Module, space, vector: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return functional_call(model, dict(space.parameters(vector)), (inputs,))


def test_factors_in_a_space_are_factors_in_the_weights() -> None:
    model, inputs = network(), rows(9).inputs
    neurons = [Neuron("relu1", 2), Neuron("relu1", 4), Neuron("relu3", 0)]
    factors = torch.tensor([0.0, 1.5, 0.3], dtype=torch.float64)
    expected = scale_neurons(model, neurons, factors)[0](inputs)
    torch.testing.assert_close(
        under(model, factor_space(model, neurons), factors, inputs), expected
    )


def test_a_channel_has_all_its_columns_behind_a_flatten() -> None:
    model = cnn((1, 8, 8), (3, 4), (5,), 2, generator=seeded()).double()
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=seeded())
    neurons = [Neuron("relu1", 1), Neuron("relu2", 3)]
    factors = torch.tensor([0.5, 0.0], dtype=torch.float64)
    expected = scale_neurons(model, neurons, factors)[0](images)
    torch.testing.assert_close(
        under(model, factor_space(model, neurons), factors, images), expected
    )


@pytest.mark.parametrize(
    ("incoming", "outgoing", "size"), [(True, False, 5), (False, True, 5), (True, True, 10)]
)
def test_the_weights_of_one_neuron(incoming, outgoing, size) -> None:
    # relu1 of 4-6-5-3-2 reads 4 features and a bias, and 5 neurons read it.
    model = network()
    space = weight_space(model, [Neuron("relu1", 2)], incoming=incoming, outgoing=outgoing)
    assert len(space.start) == size
    parameters = space.parameters(space.start + 1)
    for name, weight in model.named_parameters():
        moved = parameters.get(name, weight) - weight
        expected = torch.zeros_like(weight)
        if incoming and name in ("linear1.weight", "linear1.bias"):
            expected[2] = 1
        if outgoing and name == "linear2.weight":
            expected[:, 2] = 1
        torch.testing.assert_close(moved, expected)


def test_an_entry_that_belongs_to_two_neurons_stands_once() -> None:
    # Row of relu2[1] and column of relu1[2] cross in one weight: 6 + 1 + 3 and 5 + 4 + 1, less 1.
    space = weight_space(network(), [Neuron("relu1", 2), Neuron("relu2", 1)])
    assert len(space.start) == 10 + 10 - 1


def test_fixed_inputs_stay() -> None:
    model = network()
    space = weight_space(model, hidden_neurons(model, layers=["relu1"]), fixed_inputs=[1, 3])
    moved = space.parameters(space.start + 1)["linear1.weight"] - model.linear1.weight
    assert moved[:, [1, 3]].abs().max() == 0
    assert (moved[:, [0, 2]] == 1).all()


def test_the_start_is_the_network_bit_for_bit() -> None:
    model = network()
    space = weight_space(model, hidden_neurons(model))
    for name, weight in space.parameters(space.start).items():
        assert torch.equal(weight, model.get_parameter(name))


def test_a_dead_neuron_is_given_a_row_and_the_function_stays() -> None:
    model, inputs = network(), rows(200).inputs
    dead = Neuron("relu2", 3)
    with torch.no_grad():
        model.linear2.bias[3] = -1000
    expected = model(inputs)
    changed = revive(model, hidden_neurons(model, layers=["relu2"]), inputs, generator=seeded())
    touched = (changed["linear2.weight"] != model.linear2.weight).any(dim=1)
    assert touched.nonzero().flatten().tolist() == [dead.index]
    model.load_state_dict({**model.state_dict(), **changed})
    torch.testing.assert_close(model(inputs), expected)
    fires = model.relu2(model.linear2(model.relu1(model.linear1(inputs))))[:, 3] > 0
    assert 0.05 < float(fires.double().mean()) < 0.95


def test_misuse() -> None:
    model = mlp(2, (3,), 2, generator=seeded())
    one = Neuron("relu1", 0)
    with pytest.raises(ValueError, match="neurons: got 2; allowed: at least one, and each only"):
        weight_space(model, [one, one])
    with pytest.raises(ValueError, match="got neither"):
        weight_space(model, [one], incoming=False, outgoing=False)
    with pytest.raises(ValueError, match="an interval that holds 1"):
        factor_space(model, [one], low=2.0, high=3.0)
    with pytest.raises(ValueError, match="allowed: 0 to 2"):
        weight_space(model, [Neuron("relu1", 3)])
