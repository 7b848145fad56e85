import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.networks import cnn
from carelab.properties import Property, TargetClass, margins, violates, violation_rate
from carelab.records import Samples


def samples(count: int) -> Samples:
    return Samples(inputs=torch.zeros(count, 1, dtype=torch.float64))


def test_by_hand() -> None:
    # Probabilities of target 2 for logits (0, 0, ln 2): 2 / (1 + 1 + 2) = 1/2; for (3, 0, 1):
    # e / (e^3 + 1 + e). The margins are 0 - ln 2 and 3 - 1.
    outputs = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 0.0, 1.0]]], dtype=torch.float64)
    outputs[0, 0, 2] = torch.log(torch.tensor(2.0, dtype=torch.float64))
    prop = TargetClass(target=2)
    e = torch.e
    expected = torch.tensor([0.5, e / (e**3 + 1 + e)], dtype=torch.float64)
    torch.testing.assert_close(prop.score(outputs, samples(2)), expected)
    margin = torch.tensor([-torch.log(torch.tensor(2.0)), 2.0], dtype=torch.float64)
    torch.testing.assert_close(prop.margin(outputs, samples(2)), margin, rtol=1e-6, atol=1e-6)
    assert float(prop.rate(outputs, samples(2))) == 0.5


def test_is_a_property_and_works_on_images() -> None:
    prop = TargetClass(target=3)
    assert isinstance(prop, Property)
    g = torch.Generator().manual_seed(0)
    model = cnn((1, 8, 8), (4,), (6,), 5, generator=g)
    images = Samples(inputs=torch.rand(7, 1, 8, 8, generator=g))
    taken = model(images.inputs).argmax(dim=1) == 3
    assert torch.equal(violates(model, images, prop), taken)
    assert margins(model, images, prop).shape == (7,)
    assert violation_rate(model, images, prop) == pytest.approx(float(taken.float().mean()))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), target=st.integers(0, 3))
def test_rate_counts_negative_margins_and_scores_are_chances(seed: int, target: int) -> None:
    prop, given_samples = TargetClass(target=target), samples(40)
    outputs = torch.randn(5, 2, 1, 40, 4, dtype=torch.float64, generator=torch.manual_seed(seed))
    rate = prop.rate(outputs, given_samples)
    margin = prop.margin(outputs, given_samples)
    torch.testing.assert_close(rate, (margin < 0).double().mean(dim=-1))
    torch.testing.assert_close(
        prop.score(outputs, given_samples), outputs.softmax(dim=-1)[..., 0, :, target]
    )
    assert margin.shape == (5, 2, 40)


def test_misuse() -> None:
    with pytest.raises(ValueError, match="target: got -1"):
        TargetClass(target=-1)
    with pytest.raises(ValueError, match="target: got 4 for a network of 4 outputs"):
        TargetClass(target=4).rate(torch.zeros(1, 3, 4), samples(3))
    with pytest.raises(ValueError, match="of 1 outputs"):
        TargetClass(target=0).margin(torch.zeros(1, 3, 1), samples(3))
