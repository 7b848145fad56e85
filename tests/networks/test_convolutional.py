import pytest
import torch
from torch import nn

from carelab.networks import (
    PAPER_PLANS,
    cnn,
    conv_network,
    fingerprint,
    hidden_layers,
    ordered_modules,
    paper_network,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def names(model):
    return [name for name, _ in ordered_modules(model)]


def numbers(model):
    return sum(weight.numel() for weight in model.parameters())


def test_cnn_has_the_named_layers_in_order_and_the_flattened_size() -> None:
    model = cnn((3, 9, 8), (4, 5), (6,), 10, kernel=5, generator=generator())
    assert names(model) == [
        *("conv1", "relu1", "pool1", "conv2", "relu2", "pool2"),
        *("flatten", "linear1", "relu3", "linear2"),
    ]
    # 9 x 8 pooled by 2 twice, rounding down: 4 x 4, then 2 x 2, of 5 channels.
    assert model.linear1.in_features == 5 * 2 * 2
    assert model(torch.zeros(2, 3, 9, 8)).shape == (2, 10)


def test_cnn_without_hidden_linear_layers_classifies_the_flattened_map() -> None:
    model = cnn((1, 4, 4), (2,), (), 3, generator=generator())
    assert names(model) == ["conv1", "relu1", "pool1", "flatten", "linear1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": (8, 8)}, r"image: got \(8, 8\); allowed: \(channels, height, width\)"),
        ({"image": (0, 8, 8)}, "image: got"),
        ({"channels": ()}, "channels, widths, classes: got"),
        ({"widths": (0,)}, "channels, widths, classes: got"),
        ({"kernel": 4}, "kernel, pool: got 4, 2; allowed: an odd kernel"),
        ({"kernel": -1}, "kernel, pool: got -1"),
        ({"pool": 0}, "kernel, pool: got 3, 0"),
        ({"channels": (2, 2, 2, 2)}, r"image: got \(1, 8, 8\), of which p leaves no pixel"),
    ],
)
def test_cnn_refuses_impossible_sizes(change, message) -> None:
    sizes = {"image": (1, 8, 8), "channels": (2,), "widths": (3,), "classes": 2, **change}
    with pytest.raises(ValueError, match=message):
        cnn(**sizes, generator=generator())


def test_cnn_allows_pooling_down_to_a_single_pixel() -> None:
    model = cnn((1, 8, 8), (2, 2, 2), (), 2, generator=generator())
    assert model.linear1.in_features == 2


def test_a_plan_gives_its_layers_in_order_with_each_kind_counted_by_itself() -> None:
    plan = ("c2", "s3", "p", "c4", "p")
    model = conv_network((1, 10, 11), plan, (6,), 5, activation=nn.GELU, generator=generator())
    assert names(model) == [
        *("conv1", "gelu1", "conv2", "gelu2", "pool1", "conv3", "gelu3", "pool2"),
        *("flatten", "linear1", "gelu4", "linear2"),
    ]
    assert [model.get_submodule(f"conv{n}").padding for n in (1, 2, 3)] == [(0, 0), (1, 1), (0, 0)]
    # 10 x 11 -> 8 x 9 -> 8 x 9 -> 4 x 4 -> 2 x 2 -> 1 x 1, of 4 channels.
    assert model.linear1.in_features == 4
    assert model(torch.zeros(7, 1, 10, 11)).shape == (7, 5)
    assert not model.training


def test_a_plan_needs_pixels_to_the_end() -> None:
    with pytest.raises(ValueError, match=r"image: got \(1, 10, 8\), of which p leaves no pixel"):
        conv_network((1, 10, 8), ("c2", "p", "c4", "p"), (), 5, generator=generator())
    with pytest.raises(ValueError, match="of which c2 leaves no pixel"):
        conv_network((1, 4, 4), ("c2",), (), 5, kernel=5, generator=generator())


# Convolutions: outputs x (inputs x kernel + 1); fully connected: outputs x (inputs + 1).
NN4 = 32 * (27 + 1) + 32 * (288 + 1) + 64 * (288 + 1) + 64 * (576 + 1) + 128 * (576 + 1)
NN4 += 128 * (1152 + 1) + 512 * (512 + 1) + 43 * (512 + 1)
NN5 = 16 * (25 + 1) + 32 * (400 + 1) + 512 * (1568 + 1) + 10 * (512 + 1)
NN6 = 32 * (9 + 1) + 64 * (288 + 1) + 128 * (576 + 1) + 128 * (1152 + 1) + 10 * (128 + 1)
CIFAR = 32 * (27 + 1) + 32 * (288 + 1) + 64 * (288 + 1) + 64 * (576 + 1)
CIFAR += 512 * (1600 + 1) + 10 * (512 + 1)


@pytest.mark.parametrize(
    ("name", "flat", "weights", "activations"),
    [
        ("nn4", 512, NN4, 7),
        ("nn5", 1568, NN5, 3),
        ("nn6", 1152, NN6, 4),
        ("cifar", 1600, CIFAR, 5),
    ],
)
def test_the_networks_of_the_paper_have_its_sizes(name, flat, weights, activations) -> None:
    model, plan = paper_network(name, generator=generator()), PAPER_PLANS[name]
    assert model.linear1.in_features == flat
    assert numbers(model) == weights
    assert len(hidden_layers(model)) == activations
    assert model(torch.zeros(2, *plan.image)).shape == (2, plan.classes)


@pytest.mark.parametrize("name", PAPER_PLANS)
def test_every_plan_is_built_with_any_activation(name) -> None:
    model = paper_network(name, activation=nn.Sigmoid, generator=generator())
    assert {type(model.get_submodule(layer)) for layer in hidden_layers(model)} == {nn.Sigmoid}
    same = paper_network(name, activation=nn.Sigmoid, generator=generator())
    assert fingerprint(same) == fingerprint(model)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="name: got 'nn9'; allowed: nn4, nn5, nn6, cifar, digits"):
        paper_network("nn9", generator=generator())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": ()}, r"plan: got \(\); allowed: cN and sN"),
        ({"plan": ("p", "p")}, "plan: got .* at least one of them"),
        ({"plan": ("c4", "x")}, "plan: got"),
        ({"plan": ("c0",)}, "plan: got"),
        ({"plan": ("c-3",)}, "plan: got"),
        ({"plan": ("c4 ",)}, "plan: got"),
        ({"plan": ("c99999999",)}, "plan: got"),
        ({"widths": (3, 0)}, r"widths, classes: got \(3, 0\), 2"),
        ({"classes": 0}, "widths, classes: got"),
        ({"image": (8, 8)}, r"image: got \(8, 8\); allowed: \(channels, height, width\)"),
        ({"kernel": 2}, "kernel, pool: got 2, 2; allowed: an odd kernel"),
    ],
)
def test_conv_network_refuses_impossible_sizes(change, message) -> None:
    sizes = {"image": (1, 8, 8), "plan": ("c4", "p"), "widths": (3,), "classes": 2, **change}
    with pytest.raises(ValueError, match=message):
        conv_network(**sizes, generator=generator())


def test_cnn_keeps_the_weights_that_torch_draws() -> None:
    # Planted faults and their published figures stand on these weights.
    model = cnn((1, 8, 8), (4, 5), (6,), 3, generator=generator())
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator())))
    drawn = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(20, 6), nn.Linear(6, 3)]
    for name, expected in zip(("conv1", "conv2", "linear1", "linear2"), drawn, strict=True):
        assert torch.equal(model.get_submodule(name).weight, expected.weight)
        assert torch.equal(model.get_submodule(name).bias, expected.bias)
