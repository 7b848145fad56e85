from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from carelab.networks import (
    Residual,
    hidden_layers,
    hidden_neurons,
    mlp,
    ordered_modules,
    pre_activation,
    split,
    width,
)
from carelab.networks.layers import assemble
from carelab.records import Neuron


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def nested():
    """A convolution and a head, each in a container, with a softmax at the end."""
    body = OrderedDict(conv=nn.Conv2d(2, 3, 3), act=nn.ReLU(), pool=nn.MaxPool2d(2))
    head = OrderedDict(flat=nn.Flatten(), fc=nn.Linear(3 * 4, 5), tanh=nn.Tanh())
    last = OrderedDict(drop=nn.Dropout(), out=nn.Linear(5, 2))
    parts = {"body": nn.Sequential(body), "head": nn.Sequential(head)}
    parts |= {"tail": nn.Sequential(last), "soft": nn.Softmax(dim=1)}
    return nn.Sequential(OrderedDict(parts)).eval()


NESTED = ["body.conv", "body.act", "body.pool", "head.flat", "head.fc", "head.tanh"]
NESTED += ["tail.drop", "tail.out", "soft"]


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(x)


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def test_ordered_modules_are_the_leaves_under_their_full_names() -> None:
    model = nested()
    found = ordered_modules(model)
    assert [name for name, _ in found] == NESTED
    assert all(model.get_submodule(name) is module for name, module in found)
    assert ordered_modules(nn.Sequential()) == ()


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Branching(), "Branching"),
        (nn.Linear(2, 2), "Linear"),
        (nn.Sequential(nn.Linear(4, 4), Branching()), r"1 \(Branching\)"),
        (Residual(nn.Sequential(nn.Linear(4, 4))), "Residual"),
        (Doubled(nn.Linear(4, 4)), "Doubled"),
        (nn.Sequential(OrderedDict(a=Doubled(nn.Linear(4, 4)))), r"a \(Doubled\)"),
    ],
)
def test_what_is_no_plain_sequence_is_refused(model, named) -> None:
    with pytest.raises(ValueError, match=f"got {named}; only sequential .*as_sequential"):
        ordered_modules(model)


def test_a_module_that_runs_twice_is_refused_because_its_calls_share_a_name() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), relu, nn.Sequential(nn.Linear(2, 2), relu))
    with pytest.raises(ValueError, match=r"2\.1 is the same module as 1.*as_sequential"):
        ordered_modules(model)


def test_hidden_layers_are_activations_between_the_weight_layers() -> None:
    assert hidden_layers(nested()) == ("body.act", "head.tanh")
    around = nn.Sequential(nn.Tanh(), nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2), nn.Sigmoid())
    assert hidden_layers(around) == ("2",)
    assert hidden_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == ()
    assert hidden_layers(nn.Sequential(nn.ReLU())) == ()


def test_pre_activation_is_the_weight_layer_right_before() -> None:
    assert pre_activation(nested(), "body.act") == "body.conv"
    assert pre_activation(nested(), "head.tanh") == "head.fc"
    dropped = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.ReLU(), nn.Linear(2, 2))
    assert pre_activation(dropped, "2") == "0"


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (nested(), "head.fc", "got 'head.fc', which is no activation; allowed: body.act, head"),
        (nested(), "fc", "got 'fc'; allowed: body.conv, body.act"),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "0", "which takes the inputs"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
            "2",
            "which takes the output of 1",
        ),
    ],
)
def test_pre_activation_refuses_other_layers(model, layer, message) -> None:
    with pytest.raises(ValueError, match=message):
        pre_activation(model, layer)


def test_width_counts_the_neurons_of_axis_1() -> None:
    widths = {"body.conv": 3, "body.act": 3, "body.pool": 3, "head.fc": 5, "head.tanh": 5}
    widths |= {"tail.drop": 5, "tail.out": 2}
    model = nested()
    assert {name: width(model, name) for name in widths} == widths
    outputs, hidden = {}, torch.zeros(1, 2, 6, 6)
    for name, module in ordered_modules(model):
        hidden = module(hidden)
        outputs[name] = hidden.shape[1]
    assert {name: outputs[name] for name in widths} == widths


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("head.flat", r"got 'head.flat', .* because head.flat \(Flatten\) does not keep"),
        ("soft", r"soft \(Softmax\) does not keep"),
        ("nowhere", "got 'nowhere'; allowed: body.conv"),
    ],
)
def test_width_refuses_layers_whose_neurons_cannot_be_counted(layer, message) -> None:
    with pytest.raises(ValueError, match=message):
        width(nested(), layer)


def test_width_refuses_what_comes_before_every_weight_layer_or_behind_a_flatten() -> None:
    with pytest.raises(ValueError, match="got '0', before which there is no weight layer"):
        width(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "0")
    late = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"got '2', .* because 1 \(Flatten\)"):
        hidden_neurons(late)


def test_hidden_neurons_are_all_of_the_hidden_layers_or_of_the_named_ones() -> None:
    model = mlp(4, (2, 1), 2, generator=generator())
    expected = (Neuron("relu1", 0), Neuron("relu1", 1), Neuron("relu2", 0))
    assert hidden_neurons(model) == expected
    assert hidden_neurons(model, layers=["linear2"]) == (Neuron("linear2", 0),)
    assert hidden_neurons(model, layers=[]) == ()
    care = mlp(13, (64, 32, 16, 8, 4), 2, generator=generator())
    assert len(hidden_neurons(care)) == 124
    with pytest.raises(ValueError, match="layer: got 'relu9'"):
        hidden_neurons(model, layers=["relu9"])


@pytest.mark.parametrize("layer", NESTED)
def test_split_gives_the_same_outputs_and_shares_the_named_modules(layer) -> None:
    model, inputs = nested(), torch.rand(3, 2, 6, 6, generator=generator())
    prefix, suffix = split(model, layer)
    assert torch.equal(suffix(prefix(inputs)), model(inputs))
    parts = [*ordered_modules(prefix), *ordered_modules(suffix)]
    assert parts == list(ordered_modules(model))
    assert ordered_modules(prefix)[-1][0] == layer


@given(data=st.data(), widths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_split_of_any_mlp_anywhere_changes_no_bit(data, widths) -> None:
    model = mlp(3, widths, 2, generator=generator(data.draw(st.integers(0, 99))))
    layer = data.draw(st.sampled_from([name for name, _ in ordered_modules(model)]))
    inputs = torch.randn(4, 3, generator=generator())
    prefix, suffix = split(model, layer)
    assert torch.equal(suffix(prefix(inputs)), model(inputs))


def test_split_leaves_the_mode_of_every_module_alone() -> None:
    model = nested().train()
    model.get_submodule("tail.drop").eval()
    modes = [module.training for module in model.modules()]
    prefix, suffix = split(model, "body.act")
    assert [module.training for module in model.modules()] == modes
    assert prefix.training
    assert suffix.training
    assert not suffix.get_submodule("tail.drop").training
    assert not any(part.training for part in split(nested(), "soft"))


def test_split_refuses_an_unknown_layer_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"layer: got 'x'; allowed: linear1, relu1, linear2$"):
        split(mlp(2, (2,), 2, generator=generator()), "x")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "a comes twice"),
        (["a", "a.b"], "a in a.b is a leaf"),
        (["forward"], "forward"),
        (["a..b"], "cannot be nested"),
        (["a.x", "b", "a.y"], "another order: a.x, a.y, b"),
    ],
)
def test_assemble_refuses_names_that_cannot_be_nested(names, message) -> None:
    leaves = [(name, nn.ReLU()) for name in names]
    with pytest.raises(ValueError, match=message):
        assemble(leaves)
    assert not any(leaf._modules for _, leaf in leaves)
