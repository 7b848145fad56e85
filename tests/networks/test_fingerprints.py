import pytest
import torch
from torch import nn

from carelab.networks import cnn, fingerprint


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_fingerprint_ignores_insertion_order_but_sees_every_bit() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    first, second = nn.Module(), nn.Module()
    first.a, first.b = one, two
    second.b, second.a = two, one
    assert fingerprint(first) == fingerprint(second)
    before = fingerprint(one)
    with torch.no_grad():
        one.bias[1] = torch.nextafter(one.bias[1], torch.tensor(9.0))
    assert fingerprint(one) != before


def test_fingerprint_sees_names_shapes_and_number_types() -> None:
    def zeros(name, *shape, dtype=torch.float32):
        module = nn.Module()
        module.register_buffer(name, torch.zeros(shape, dtype=dtype))
        return fingerprint(module)

    # All of 24 zero bytes.
    prints = [zeros("a", 2, 3), zeros("b", 2, 3), zeros("a", 3, 2), zeros("a", 6)]
    prints += [zeros("a", 3, dtype=torch.float64), zeros("a", 6, dtype=torch.int32)]
    assert len(set(prints)) == len(prints)
    assert zeros("a", 2, 3) == prints[0]


def test_fingerprint_takes_buffers_and_strided_weights_and_refuses_other_state() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    before = fingerprint(model)
    model[1].num_batches_tracked += 1
    assert fingerprint(model) != before
    copied = nn.Linear(3, 2, bias=False)
    strided = nn.Linear(3, 2, bias=False)
    strided.weight = nn.Parameter(copied.weight.detach().T.contiguous().T)
    assert fingerprint(strided) == fingerprint(copied)

    class Noted(nn.Module):
        def get_extra_state(self):
            return "note"

    with pytest.raises(ValueError, match="_extra_state is no tensor"):
        fingerprint(Noted())


def test_fingerprint_of_a_cnn_is_that_of_its_copy_on_the_same_seed() -> None:
    one, two = (cnn((1, 4, 4), (2,), (), 2, generator=generator()) for _ in range(2))
    assert fingerprint(one) == fingerprint(two)
