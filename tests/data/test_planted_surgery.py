"""Surgery keeps the function; a cut network is the whole one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab import networks
from carelab.data.planted_surgery import (
    balance,
    disguise,
    field,
    follow,
    incoming,
    rebuild,
    respond,
    stages,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(seed: int = 0) -> nn.Sequential:
    return networks.mlp(5, (7, 6), 3, generator=generator(seed)).double()


def image(seed: int = 0) -> nn.Sequential:
    return networks.cnn((2, 8, 8), (4, 5), (6,), 3, generator=generator(seed)).double()


def given_inputs(model: nn.Sequential, seed: int = 0) -> torch.Tensor:
    shape = (9, 5) if isinstance(model[0], nn.Linear) else (9, 2, 8, 8)
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("make", [flat, image])
def test_stages_run_as_the_network_does(make):
    model = make()
    inputs = given_inputs(model)
    reached = inputs
    for stage in stages(model):
        reached = follow(stage, respond(stage, reached, stage.weight, stage.bias))
    torch.testing.assert_close(reached, model(inputs), rtol=1e-12, atol=1e-12)
    assert [stage.layer for stage in stages(model)] == [*networks.hidden_layers(model), ""]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), make=st.sampled_from([flat, image]))
def test_disguise_keeps_the_function_and_tells_the_places(seed, make):
    model = make(seed)
    weights = [stage.weight for stage in stages(model)]
    biases = [stage.bias for stage in stages(model)]
    new, shifts, places = disguise(weights, biases, generator=generator(seed))
    inputs = given_inputs(model, seed)
    hidden = rebuild(model, new, shifts)
    torch.testing.assert_close(hidden(inputs), model(inputs), rtol=1e-9, atol=1e-9)
    first = stages(model)[0].layer
    prefixes = [networks.split(one, first)[0](inputs).detach() for one in (model, hidden)]
    for unit, place in enumerate(places[0].tolist()):
        before, after = prefixes[0][:, unit].flatten(), prefixes[1][:, place].flatten()
        factor = after.sum() / before.sum() if before.sum() > 0 else torch.ones(())
        torch.testing.assert_close(after, before * factor)
        assert 1 / 3 - 1e-9 <= float(factor) <= 3 + 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), make=st.sampled_from([flat, image]))
def test_balance_keeps_the_function_and_the_clean_units(seed, make):
    model = make(seed)
    weights = [stage.weight for stage in stages(model)]
    biases = [stage.bias for stage in stages(model)]
    clean = [3] * (len(weights) - 1)
    new, shifts = balance(weights, biases, clean, generator=generator(seed))
    inputs = given_inputs(model, seed)
    torch.testing.assert_close(
        rebuild(model, new, shifts)(inputs), model(inputs), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(new[0][:3], weights[0][:3])
    ratios = incoming(new[0]) / incoming(new[1].transpose(0, 1))
    old = incoming(weights[0]) / incoming(weights[1].transpose(0, 1))
    # What a later layer's factors do to the outgoing weights changes ratios of this one.
    if len(weights) == 2:
        assert all(float((ratio - old[:3]).abs().min()) < 1e-9 for ratio in ratios[3:])


@pytest.mark.parametrize("make", [flat, image])
def test_an_added_unit_without_outgoing_weights_changes_nothing(make):
    model = make()
    parts = stages(model)
    weights, biases = [stage.weight for stage in parts], [stage.bias for stage in parts]
    drawn = torch.randn(2, *weights[0].shape[1:], generator=generator(), dtype=torch.float64)
    weights[0] = torch.cat([weights[0], drawn])
    biases[0] = torch.cat([biases[0], torch.ones(2, dtype=torch.float64)])
    silent = torch.zeros(len(weights[1]), 2, *weights[1].shape[2:], dtype=torch.float64)
    weights[1] = torch.cat([weights[1], silent], dim=1)
    widened = rebuild(model, weights, biases)
    assert networks.width(widened, parts[0].layer) == networks.width(model, parts[0].layer) + 2
    inputs = given_inputs(model)
    torch.testing.assert_close(widened(inputs), model(inputs), rtol=1e-12, atol=1e-12)
    assert not widened.training


def test_field_is_what_a_unit_reads():
    model = image()
    first, inputs = stages(model)[0], given_inputs(image())
    outputs = respond(first, inputs, first.weight, first.bias)
    for place in (0, 9, 63):
        seen = field(first, inputs, place)
        by_hand = torch.einsum("brij,urij->bu", seen, first.weight) + first.bias
        torch.testing.assert_close(by_hand, outputs.flatten(2)[:, :, place])


def test_misuse():
    with pytest.raises(ValueError, match="tanh1 is a Tanh; allowed: Linear"):
        stages(networks.mlp(3, (4,), 2, activation=nn.Tanh, generator=generator()))
    with pytest.raises(ValueError, match="0 has no bias"):
        stages(nn.Sequential(nn.Linear(3, 4, bias=False)))
    with pytest.raises(ValueError, match="grouped channels"):
        stages(nn.Sequential(nn.Conv2d(2, 4, 3, groups=2)))
    with pytest.raises(ValueError, match="has no weight layer"):
        stages(nn.Sequential(nn.ReLU()))
