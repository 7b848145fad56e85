from __future__ import annotations

import pytest
import torch
from torch import nn

from carelab import networks, proof


def test_a_chain_is_the_network():
    model = networks.mlp(4, (5, 3), 2, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chain = proof.affine_chain(model)
    torch.testing.assert_close(chain(inputs), model.double()(inputs))
    assert (chain.features, chain.hidden, chain.outputs) == (4, (5, 3), 2)


def test_a_convolution_becomes_its_matrix():
    with networks.seeded(torch.Generator().manual_seed(0)):
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
            nn.ReLU(),
            nn.Dropout(),
            nn.Conv2d(4, 3, (2, 1), bias=False),
            nn.Flatten(),
            nn.Linear(3 * 2 * 3, 5),
            nn.ReLU(),
            nn.Linear(5, 2),
        ).eval()
    images = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(1)).double()
    chain = proof.affine_chain(model, shape=(2, 5, 6))
    assert chain.rectified == (True, False, True)
    torch.testing.assert_close(chain(images.flatten(1)), model.double()(images))


def test_layers_without_a_relu_between_them_stay_apart():
    model = nn.Sequential(
        nn.Linear(2, 3), nn.Identity(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)
    )
    low, high = -torch.ones(1, 2), torch.ones(1, 2)
    chain = proof.affine_chain(model.eval())
    assert chain.rectified == (False, True)
    inputs = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    outputs = chain(inputs)
    below, above = proof.output_bounds(chain, low, high)
    assert bool(((outputs >= below) & (outputs <= above)).all())


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)], "1 is a Tanh; allowed: Linear"),
        ([nn.Linear(2, 3), nn.ReLU()], "ends with a ReLU"),
        ([nn.ReLU(), nn.Linear(2, 3)], "0 comes first"),
        ([nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 1)], "takes 4 numbers after a layer of 3"),
        ([nn.Conv2d(1, 1, 2), nn.Flatten(), nn.Linear(4, 1)], "shape: got None"),
    ],
)
def test_other_networks_are_refused(modules, message):
    with pytest.raises(ValueError, match=message):
        proof.affine_chain(nn.Sequential(*modules).eval())


def test_weights_that_are_not_finite_are_refused():
    model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
    model.linear1.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        proof.affine_chain(model)
