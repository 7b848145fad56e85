import pytest
import torch

from carelab.causal import activations, do
from carelab.causal.interventions import check_unit
from carelab.networks import cnn
from carelab.records import Neuron, Unit, WholeLayer
from tests.tables import network, rows, seeded


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_by_hand() -> None:
    # y = relu(2 x) * 3 + 1: held at 5 after the ReLU it is 16 whatever x is; held at -5 before
    # the ReLU it is 1.
    first, last = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    model = torch.nn.Sequential(first, torch.nn.ReLU(), last).eval()
    with torch.no_grad():
        for layer, weight, bias in ((first, 2.0, 0.0), (last, 3.0, 1.0)):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
    inputs = torch.tensor([[1.0], [-4.0]])
    with do(model, {Neuron("1", 0): 5.0}):
        assert model(inputs).tolist() == [[16.0], [16.0]]
    with do(model, {Neuron("0", 0): -5.0}):
        assert model(inputs).tolist() == [[1.0], [1.0]]
    assert model(inputs).tolist() == [[7.0], [1.0]]


def test_nothing_upstream_changes_and_several_neurons_are_held_together() -> None:
    model, inputs = network(), rows(7).inputs
    before = activations(model, inputs, ["relu1", "relu2"])
    with do(model, {Neuron("relu2", 0): 1.5, Neuron("relu2", 2): -2.0}):
        held = activations(model, inputs, ["relu1", "relu2"])
    assert torch.equal(held["relu1"], before["relu1"])
    assert (held["relu2"][:, 0] == 1.5).all()
    assert (held["relu2"][:, 2] == -2.0).all()
    assert torch.equal(held["relu2"][:, 1], before["relu2"][:, 1])


def test_a_whole_channel_is_held() -> None:
    model = cnn((1, 8, 8), (3,), (4,), 2, generator=seeded())
    inputs = torch.rand(2, 1, 8, 8, generator=seeded())
    with do(model, {Neuron("relu1", 1): 0.25}):
        assert (activations(model, inputs, ["relu1"])["relu1"][:, 1] == 0.25).all()


def test_positions_whole_layers_and_values_of_each_sample() -> None:
    model = cnn((1, 8, 8), (3,), (4,), 2, generator=seeded())
    inputs = torch.rand(2, 1, 8, 8, generator=seeded())
    before = activations(model, inputs, ["relu1"])["relu1"]
    each = torch.tensor([5.0, 6.0])
    values: dict[Unit, float | torch.Tensor] = {
        Neuron("relu1", 1, (2, 3)): 7.0,
        Neuron("relu1", 0, (0, 1)): each,
        Neuron("relu1", 2): before[:, 0].flip(0),
    }
    with do(model, values):
        held = activations(model, inputs, ["relu1"])["relu1"]
    expected = before.clone()
    expected[:, 1, 2, 3] = 7
    expected[:, 0, 0, 1] = each
    expected[:, 2] = before[:, 0].flip(0)
    assert torch.equal(held, expected)
    with do(model, {WholeLayer("relu1"): before.flip(0)}):
        swapped = model(inputs)
    torch.testing.assert_close(swapped, model(inputs.flip(0)))


def test_a_value_keeps_the_precision_of_the_network() -> None:
    with do(network(), {Neuron("relu1", 0): 0.1}) as model:
        assert float(activations(model, rows(1).inputs, ["relu1"])["relu1"][0, 0]) == 0.1


def test_of_units_that_overlap_the_later_one_wins() -> None:
    model, inputs = network(), rows(3).inputs
    neuron, layer = Neuron("relu1", 2), WholeLayer("relu1")
    with do(model, {layer: 1.0, neuron: 4.0}):
        assert activations(model, inputs, ["relu1"])["relu1"][0].tolist() == [1, 1, 4, 1, 1, 1]
    with do(model, {neuron: 4.0, layer: 1.0}):
        assert (activations(model, inputs, ["relu1"])["relu1"] == 1).all()


@pytest.mark.parametrize(
    ("unit", "shape", "message"),
    [
        (Neuron("a", 4), (4,), r"got a\[4\]; allowed: a\[0\] to a\[3\]$"),
        (Neuron("a", -1), (4,), r"got a\[-1\]"),
        (Neuron("a", 0, (1,)), (4,), r"got a\[0, 1\]; allowed: a\[0\] to a\[3\]$"),
        (Neuron("a", 0, (1,)), (4, 2, 3), r"or a\[0, 0, 0\] to a\[3, 1, 2\]$"),
        (Neuron("a", 0, (2, 0)), (4, 2, 3), r"got a\[0, 2, 0\]; allowed: a\[0\] to a\[3\], or"),
        (Neuron("a", 4, (0, 0)), (4, 2, 3), r"got a\[4, 0, 0\]"),
        (Neuron("a", 0), (), "allowed: the whole of a"),
    ],
)
def test_a_place_that_is_not_there(unit: Neuron, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_unit(unit, shape)
    check_unit(WholeLayer("a"), shape)


def run_with_value(value: torch.Tensor) -> None:
    model = cnn((1, 8, 8), (3,), (4,), 2, generator=seeded())
    with do(model, {Neuron("relu1", 1): value}):
        model(torch.rand(2, 1, 8, 8))


def test_a_value_of_another_shape() -> None:
    with pytest.raises(
        ValueError, match=r"values: got shape \(5,\) for relu1\[1\]; .* to \(2, 8, 8\)"
    ):
        run_with_value(torch.zeros(5))


def test_recording_survives_an_activation_that_works_in_place() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(inplace=True)).eval()
    inputs = torch.randn(20, 2, generator=seeded())
    recorded = activations(model, inputs, ["0"])["0"]
    assert torch.equal(recorded, model[0](inputs).detach())
    assert bool((recorded < 0).any())


def run_held(model: torch.nn.Module, *neurons: Neuron) -> None:
    with do(model, dict.fromkeys(neurons, 1.0)):
        assert hooks(model) == len({neuron.layer for neuron in neurons})
        model(rows(2).inputs)
        raise RuntimeError("on purpose")


def test_hooks_come_off_also_after_an_error() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="on purpose"):
        run_held(model, Neuron("relu1", 0), Neuron("relu2", 0))
    with pytest.raises(ValueError, match=r"got relu1\[99\]; allowed: relu1\[0\] to relu1\[5\]"):
        run_held(model, Neuron("relu1", 99))
    with pytest.raises(ValueError, match="layer: got 'relu9'"):
        run_held(model, Neuron("relu1", 0), Neuron("relu9", 0))
    with pytest.raises(RuntimeError):
        activations(model, torch.zeros(2, 9, dtype=torch.float64), ["relu1"])
    assert hooks(model) == 0


def test_recording_refuses_a_network_in_training_mode() -> None:
    with pytest.raises(ValueError, match="training mode"):
        activations(network().train(), rows(2).inputs, ["relu1"])
    inside = network()
    inside.relu2.train()
    with pytest.raises(ValueError, match="training mode"):
        activations(inside, rows(2).inputs, ["relu1"])
    with pytest.raises(ValueError, match="got 0 rows"):
        activations(network(), rows(2).inputs[:0], ["relu1"])
