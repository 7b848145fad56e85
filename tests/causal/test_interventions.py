import pytest
import torch

from carelab.causal import activations, do
from carelab.networks import cnn
from carelab.records import Neuron
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
    with pytest.raises(ValueError, match=r"got neurons \[99\] of relu1; allowed: 0 to 5"):
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
