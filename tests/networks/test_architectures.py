import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from carelab.networks import (
    cnn,
    conv_network,
    fingerprint,
    mlp,
    ordered_modules,
    residual_network,
    seeded,
)


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


@pytest.mark.parametrize(
    "build",
    [
        lambda g: mlp(5, (4,), 2, generator=g),
        lambda g: cnn((1, 4, 4), (2,), (3,), 2, generator=g),
        lambda g: conv_network((1, 4, 4), ("c2",), (3,), 2, generator=g),
        lambda g: residual_network((1, 4, 4), (2,), 1, 2, generator=g),
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
