from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from carelab import networks, proof
from carelab.proof.covering import Parts
from carelab.proof.duality import Dual, Layers, lagrangian_bounds
from carelab.proof.rounding import magnitudes, rounding_factor
from tests.proof.small import small_box, small_network
from tests.reference.activation_patterns import cells, exact_minimum


def by_hand() -> nn.Sequential:
    # h = relu(x0 + x1), relu(x0 - x1); y = h0 - h1
    first, last = nn.Linear(2, 2), nn.Linear(2, 1)
    first.weight.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    last.weight.data = torch.tensor([[1.0, -1.0]])
    first.bias.data.zero_()
    last.bias.data.zero_()
    return nn.Sequential(first, nn.ReLU(), last).eval()


def boxes(*ends: float) -> tuple[torch.Tensor, torch.Tensor]:
    low = torch.tensor([ends[::2]], dtype=torch.float64)
    return low, torch.tensor([ends[1::2]], dtype=torch.float64)


def test_intervals_by_hand():
    # Sums in [-2, 2] and [-2, 2], so activations in [0, 2], the output in [-2, 2].
    lower, upper = proof.interval_bounds(proof.affine_chain(by_hand()), *boxes(-1, 1, -1, 1))[-1]
    torch.testing.assert_close(lower, torch.tensor([[-2.0]], dtype=torch.float64))
    torch.testing.assert_close(upper, torch.tensor([[2.0]], dtype=torch.float64))


def test_linear_bounds_by_hand():
    # Lines above: (z + 2) / 2; below: 0 (since u = -l). Lower bound of h0 - h1 is
    # 0 - (x0 - x1 + 2) / 2, smallest at x = (1, -1): -2.
    chain = proof.affine_chain(by_hand())
    low, high = boxes(-1, 1, -1, 1)
    hidden = proof.hidden_bounds(chain, low, high)
    row = torch.ones(1, 1, 1, dtype=torch.float64)
    linear = proof.linear_bounds(chain, hidden, row, row[..., 0] * 0, low, high)
    expected = torch.tensor([[[-0.5, 0.5]]], dtype=torch.float64)
    torch.testing.assert_close(linear.coefficients, expected)
    assert linear.constants.item() == pytest.approx(-1)
    assert linear.minimum.item() == pytest.approx(-2)
    assert linear.vertex(low, high).tolist() == [[[1.0, -1.0]]]
    # With slope 1 below the first ReLU: x0 + x1 - (x0 - x1 + 2) / 2, smallest at (-1, -1): -3.
    slopes = [torch.tensor([[1.0, 0.0]], dtype=torch.float64)]
    linear = proof.linear_bounds(chain, hidden, row, row[..., 0] * 0, low, high, slopes=slopes)
    assert linear.minimum.item() == pytest.approx(-3)


def test_where_no_sign_is_open_the_bounds_are_exact():
    # Both sums are positive on [2, 3] x [0, 1]: y = 2 x1.
    low, high = proof.output_bounds(proof.affine_chain(by_hand()), *boxes(2, 3, 0, 1))
    assert (low.item(), high.item()) == pytest.approx((0.0, 2.0), abs=1e-9)


def test_a_phase_closes_the_gap_of_its_neuron():
    chain = proof.affine_chain(by_hand())
    low, high = boxes(-1, 1, -1, 1)
    phases = [torch.tensor([[1, -1]], dtype=torch.int8)]
    hidden = proof.hidden_bounds(chain, low, high, phases=phases)
    assert not bool(hidden.unstable[0].any())
    # With h0 = z0 >= 0 and h1 = 0 the output is x0 + x1 = z0; taking z0 off it leaves 0.
    row = torch.ones(1, 1, 1, dtype=torch.float64)
    multipliers = [torch.tensor([[1.0, 0.0]], dtype=torch.float64)]
    linear = proof.linear_bounds(
        chain, hidden, row, row[..., 0] * 0, low, high, multipliers=multipliers
    )
    assert linear.minimum.item() == pytest.approx(0)


def test_the_rounding_margin_by_hand():
    # |W1| [1, 1] = [2, 2], |W2| [2, 2] = 4; two layers, sums of at most 3 terms.
    chain = proof.affine_chain(by_hand())
    one = torch.ones(2, dtype=torch.float64)
    assert [size.tolist() for size in magnitudes(chain, -one, one)] == [[2.0, 2.0], [4.0]]
    assert rounding_factor(chain) == 16 * 3 * (3 + 8) * 2.0**-53
    assert proof.rounding_margins(chain, -one, one)[-1].item() == 4 * rounding_factor(chain)


@pytest.mark.parametrize("seed", range(10))
def test_no_bound_is_ever_on_the_wrong_side(seed):
    # 500 networks in all, against every activation pattern in rational numbers.
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        model = small_network(generator)
        low, high = small_box(generator)
        chain = proof.affine_chain(model)
        found = cells(chain.weights, chain.biases, low.tolist(), high.tolist())
        matrix = torch.randn(3, 2, generator=generator, dtype=torch.float64)
        limits = torch.randn(3, generator=generator, dtype=torch.float64)
        check_outputs(chain, found, low, high)
        check_duals(chain, found, matrix, limits, low, high, generator)


def check_outputs(chain, found, low, high):
    box = low.unsqueeze(0), high.unsqueeze(0)
    for lower, upper in (proof.interval_bounds(chain, *box)[-1], proof.output_bounds(chain, *box)):
        for output, row in enumerate(torch.eye(2).tolist()):
            assert Fraction(lower[0, output].item()) <= exact_minimum(found, row)
            assert Fraction(-upper[0, output].item()) <= exact_minimum(found, [-r for r in row])


def check_duals(chain, found, matrix, limits, low, high, generator):
    box = low.unsqueeze(0), high.unsqueeze(0)
    hidden = proof.hidden_bounds(chain, *box)
    neurons = sum(chain.hidden)
    drawn = proof.DualValues(
        weights=torch.rand(1, 3, generator=generator, dtype=torch.float64),
        slopes=torch.randint(256, (1, neurons), generator=generator, dtype=torch.uint8),
    )
    plain = proof.plain_values(hidden, torch.tensor([0]), 3)
    best, _ = proof.tighten(chain, hidden, matrix, limits, *box, plain, steps=3)
    for values in (drawn, plain, best):
        bound = proof.dual_bounds(chain, hidden, matrix, limits, *box, values).minimum.item()
        weights = [Fraction(w) for w in values.weights[0].tolist()]
        rows = [[Fraction(a) for a in row] for row in matrix.tolist()]
        row = [sum(w * r[at] for w, r in zip(weights, rows, strict=True)) for at in range(2)]
        limit = sum(w * Fraction(b) for w, b in zip(weights, limits.tolist(), strict=True))
        exact = exact_minimum(found, row, limit)
        sizes = magnitudes(chain, low, high)[-1]
        margin = rounding_factor(chain) * float(
            values.weights[0] @ (matrix.abs() @ sizes + limits.abs())
        )
        assert Fraction(bound) - Fraction(margin) <= exact
        assert Fraction(second_way(chain, matrix, limits, *box, values)) <= exact


def second_way(chain, matrix, limits, low, high, values) -> float:
    neurons = values.slopes.shape[1]
    return float(
        lagrangian_bounds(
            Layers(
                weights=tuple(weight.numpy() for weight in chain.weights),
                biases=tuple(bias.numpy() for bias in chain.biases),
                rectified=chain.rectified,
            ),
            matrix.numpy(),
            limits.numpy(),
            Parts(low=low.numpy(), high=high.numpy(), phases=np.zeros((1, neurons), np.int8)),
            Dual(
                weights=values.weights.numpy(),
                slopes=values.slopes.numpy().astype(float),
                multipliers=None,
            ),
        )[0]
    )


def test_the_checkers_bound_is_the_searchs_by_another_way():
    model = networks.mlp(3, (8, 8), 2, generator=torch.Generator().manual_seed(1))
    chain = proof.affine_chain(model)
    low, high = boxes(-1, 1, -0.5, 1, 0, 1)
    hidden = proof.hidden_bounds(chain, low, high)
    matrix, limits = torch.eye(2).double(), torch.zeros(2).double()
    start = proof.plain_values(hidden, torch.tensor([1]), 2)
    values, bounds = proof.tighten(chain, hidden, matrix, limits, low, high, start)
    again = second_way(chain, matrix, limits, low, high, values)
    assert again == pytest.approx(bounds.minimum.item(), abs=1e-9)


def test_tightening_never_makes_a_bound_worse_and_mixes_rows():
    # y0 = x and y1 = -x on [-1, 1]: each alone has minimum -1, their mean is 0.
    first, last = nn.Linear(1, 2), nn.Linear(2, 2)
    first.weight.data = torch.tensor([[1.0], [-1.0]])
    last.weight.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    first.bias.data.zero_()
    last.bias.data.zero_()
    chain = proof.affine_chain(nn.Sequential(first, nn.ReLU(), last).eval())
    low, high = boxes(-1, 1)
    hidden = proof.hidden_bounds(chain, low, high)
    matrix, limits = torch.eye(2).double(), torch.zeros(2).double()
    start = proof.plain_values(hidden, torch.tensor([0]), 2)
    before = proof.dual_bounds(chain, hidden, matrix, limits, low, high, start).minimum.item()
    values, bounds = proof.tighten(chain, hidden, matrix, limits, low, high, start, steps=20)
    assert before < -0.9
    assert bounds.minimum.item() > -0.2
    assert values.weights.sum().item() == pytest.approx(1)


def test_gradients_of_a_bound_reach_the_weights():
    model = networks.mlp(2, (6, 6), 2, generator=torch.Generator().manual_seed(3))
    chain = proof.affine_chain(model, differentiable=True)
    lower, _ = proof.output_bounds(chain, -torch.ones(1, 2), torch.ones(1, 2))
    lower.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    # A small step along the gradient raises the bound.
    before = lower.sum().item()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-3 * parameter.grad
    after, _ = proof.output_bounds(proof.affine_chain(model), -torch.ones(1, 2), torch.ones(1, 2))
    assert after.sum().item() > before


def test_a_batch_of_boxes_is_bounded_box_by_box():
    chain = proof.affine_chain(
        networks.mlp(3, (8, 8, 8), 2, generator=torch.Generator().manual_seed(5))
    )
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    low, high = ends.amin(dim=0), ends.amax(dim=0)
    together = proof.output_bounds(chain, low, high)
    for at in range(6):
        alone = proof.output_bounds(chain, low[at : at + 1], high[at : at + 1])
        torch.testing.assert_close(together[0][at : at + 1], alone[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together[1][at : at + 1], alone[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([[1.0, 0.0]], [[0.0, 1.0]], "a box is empty or unbounded"),
        ([[-torch.inf, 0.0]], [[0.0, 1.0]], "a box is empty or unbounded"),
        ([[0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]], "2 features each"),
    ],
)
def test_boxes_that_cannot_be_bounded_are_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        proof.output_bounds(proof.affine_chain(by_hand()), torch.tensor(low), torch.tensor(high))
