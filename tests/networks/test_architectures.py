import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from carelab.networks import cnn, fingerprint, mlp, ordered_modules, seeded


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def names(model):
    return [name for name, _ in ordered_modules(model)]


def test_mlp_has_the_named_layers_in_order_and_their_sizes() -> None:
    model = mlp(5, (4, 3), 2, activation=nn.Tanh, generator=generator())
    assert names(model) == ["linear1", "tanh1", "linear2", "tanh2", "linear3"]
    sizes = [m.weight.shape for m in model if isinstance(m, nn.Linear)]
    assert sizes == [(4, 5), (3, 4), (2, 3)]
    assert not model.training
    assert model(torch.zeros(7, 5)).shape == (7, 2)


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
    "build",
    [
        lambda g: mlp(5, (4,), 2, generator=g),
        lambda g: cnn((1, 4, 4), (2,), (3,), 2, generator=g),
    ],
)
def test_the_generator_alone_decides_the_weights(build) -> None:
    torch.manual_seed(1)
    first = fingerprint(build(generator(0)))
    torch.manual_seed(2)
    assert fingerprint(build(generator(0))) == first
    assert fingerprint(build(generator(1))) != first


@given(seed=st.integers(0, 2**32))
def test_seeded_leaves_the_global_state_alone_and_advances_its_generator(seed) -> None:
    source = generator(seed)
    before, own = torch.get_rng_state(), source.get_state()
    with seeded(source):
        drawn = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(source.get_state(), own)
    with seeded(generator(seed)):
        assert torch.equal(torch.rand(3), drawn)


def test_seeded_puts_the_global_state_back_after_an_error() -> None:
    def fail():
        with seeded(generator()):
            torch.rand(1)
            raise RuntimeError("inside")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("features", "widths", "classes"), [(0, (3,), 2), (3, (), 2), (3, (3, 0), 2), (3, (3,), 0)]
)
def test_mlp_refuses_impossible_sizes(features, widths, classes) -> None:
    with pytest.raises(ValueError, match="features, widths, classes: got"):
        mlp(features, widths, classes, generator=generator())


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
        ({"channels": (2, 2, 2, 2)}, "which 4 poolings by 2 leave empty"),
    ],
)
def test_cnn_refuses_impossible_sizes(change, message) -> None:
    sizes = {"image": (1, 8, 8), "channels": (2,), "widths": (3,), "classes": 2, **change}
    with pytest.raises(ValueError, match=message):
        cnn(**sizes, generator=generator())


def test_cnn_allows_pooling_down_to_a_single_pixel() -> None:
    model = cnn((1, 8, 8), (2, 2, 2), (), 2, generator=generator())
    assert model.linear1.in_features == 2
