import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from carelab.causal import columns
from carelab.causal.pieces import Suffix, piece_of
from carelab.causal.samples_last import rows_last
from carelab.records import Neuron
from tests.tables import seeded

ROWS, CUT = 7, 4


def layers(shift: float, seed: int, *, bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    """A map to six neurons, some shifted up and some down, and a map to two outputs."""
    generator = seeded(seed)
    first, second = nn.Linear(3, 6).double(), nn.Linear(6, 2, bias=bias).double()
    for module in (first, second):
        for parameter in module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator).double()
    first.bias.data += shift * torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 0.0]).double()
    return first, second


def fast(first: nn.Linear, second: nn.Linear, own: Tensor, values: Tensor) -> Tensor:
    """Logits (outputs, neurons x values, rows) from passes over pieces of four rows."""
    suffix = Suffix(head=(), linear=first, tail=(nn.ReLU(), second))
    cuts = (slice(0, CUT), slice(CUT, ROWS))
    with torch.no_grad():
        pieces = [piece_of(suffix, own, rows) for rows in cuts]
        tail = [rows_last(module) for module in suffix.tail]
        run = columns.column_passes(suffix, tail, pieces, CUT)
        logits = torch.full((2, values.numel(), ROWS), torch.nan).double()
        for held, rows, some in run([Neuron("layer", index) for index in range(3)], values):
            logits[:, held, rows] = some
    return logits


@torch.no_grad()
def slow(first: nn.Linear, second: nn.Linear, own: Tensor, values: Tensor) -> Tensor:
    """The same, one row with one neuron overwritten at a time."""
    outputs = []
    for index, of_neuron in enumerate(values):
        for value in of_neuron:
            changed = own.clone()
            changed[index] = value
            outputs.append(torch.stack([second(first(row).relu()) for row in changed.T]))
    return torch.stack(outputs).movedim(-1, 0)


@settings(max_examples=25, deadline=None)
@given(
    shift=st.sampled_from([0.0, 1.0, 3.0, 10.0, 100.0]),
    seed=st.integers(0, 100),
    bias=st.booleans(),
)
def test_neurons_above_and_below_their_relu_change_nothing(
    shift: float, seed: int, bias: bool
) -> None:
    first, second = layers(shift, seed, bias=bias)
    own = torch.randn(3, ROWS, generator=seeded(seed + 1)).double()
    values = torch.randn(3, 4, generator=seeded(seed + 2)).double()
    torch.testing.assert_close(
        fast(first, second, own, values), slow(first, second, own, values), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize(("shift", "rectified"), [(0.0, 6), (100.0, 2), (-100.0, 2)])
def test_only_neurons_that_can_be_on_either_side_are_rectified(
    shift: float, rectified: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []
    bare = columns._one_value_a_call

    def counted(bounds: Tensor, weight: Tensor, *others: Tensor) -> Tensor:
        widths.append(weight.shape[1])
        return bare(bounds, weight, *others)

    monkeypatch.setattr(columns, "_one_value_a_call", counted)
    first, second = layers(shift, seed=0)
    own = torch.randn(3, ROWS, generator=seeded(1)).double()
    values = torch.randn(3, 4, generator=seeded(2)).double()
    fast(first, second, own, values)
    assert widths == [rectified] * 2


def test_a_value_beyond_what_the_rows_show_counts() -> None:
    # x = 1 + h is above 0 for every h in [0, 1], and below it when h is held at -3.
    first, second = nn.Linear(3, 6).double(), nn.Linear(6, 2).double()
    first.weight.data = torch.zeros(6, 3).double()
    first.weight.data[:, 0] = 1.0
    first.bias.data = torch.ones(6).double()
    second.weight.data, second.bias.data = torch.ones(2, 6).double(), torch.zeros(2).double()
    own = torch.rand(3, ROWS, generator=seeded()).double()
    logits = fast(first, second, own, torch.tensor([[-3.0, 2.0], [0.0, 0.0], [0.0, 0.0]]).double())
    assert logits[:, 0].tolist() == [[0.0] * ROWS] * 2  # 6 relu(1 - 3)
    assert logits[:, 1].tolist() == [[18.0] * ROWS] * 2  # 6 relu(1 + 2)
