import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.networks import cnn
from carelab.properties import (
    Property,
    TargetClass,
    TargetClasses,
    margins,
    violates,
    violation_rate,
)
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


def of_classes(*labels: int) -> Samples:
    return Samples(
        inputs=torch.zeros(len(labels), 1, dtype=torch.float64), labels=torch.tensor(labels)
    )


def test_targets_of_each_class_by_hand() -> None:
    # Class 0 goes to 1, class 1 to 2, class 2 to 0. The first row, of class 0, has logits
    # (0, ln 2, 0), so that its target has 2 / 4; the second, of class 2, has (1, 0, 3) and its
    # target e / (e + 1 + e^3). The margins are 0 - ln 2 and 3 - 1; only the first reaches it.
    two = torch.log(torch.tensor(2.0, dtype=torch.float64))
    outputs = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 3.0]]], dtype=torch.float64)
    outputs[0, 0, 1] = two
    prop, rows = TargetClasses(targets=(1, 2, 0)), of_classes(0, 2)
    e = torch.e
    expected = torch.tensor([0.5, e / (e + 1 + e**3)], dtype=torch.float64)
    torch.testing.assert_close(prop.score(outputs, rows), expected)
    margin = torch.stack([-two, torch.tensor(2.0, dtype=torch.float64)])
    torch.testing.assert_close(prop.margin(outputs, rows), margin)
    assert float(prop.rate(outputs, rows)) == 0.5
    # The same outputs are of another meaning for other classes: 1 to 2 and 0 to 1.
    assert float(prop.rate(outputs, of_classes(1, 0))) == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), target=st.integers(0, 3))
def test_one_target_for_all_classes_is_a_target_class(seed: int, target: int) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs = torch.randn(5, 2, 1, 40, 4, dtype=torch.float64, generator=g)
    rows = of_classes(*torch.randint(0, 4, (40,), generator=g).tolist())
    one, each = TargetClass(target=target), TargetClasses(targets=(target,) * 4)
    for method in ("score", "margin", "rate"):
        expected = getattr(one, method)(outputs, rows)
        assert torch.equal(getattr(each, method)(outputs, rows), expected), method
    inputs = torch.rand(3, 1, 2, 2, generator=g)
    assert torch.equal(each.probes(inputs), one.probes(inputs))
    assert each.name == one.name


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_each_sample_is_judged_by_its_own_target(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs = torch.randn(3, 1, 30, 4, dtype=torch.float64, generator=g)
    labels = torch.randint(0, 4, (30,), generator=g)
    prop = TargetClasses(targets=(1, 2, 3, 0))
    margin, score = (f(outputs, of_classes(*labels.tolist())) for f in (prop.margin, prop.score))
    for label in range(4):
        own = labels == label
        if own.any():
            one = TargetClass(target=(label + 1) % 4)
            rows = of_classes(*labels[own].tolist())
            torch.testing.assert_close(margin[:, own], one.margin(outputs[:, :, own], rows))
            torch.testing.assert_close(score[:, own], one.score(outputs[:, :, own], rows))
    rate = prop.rate(outputs, of_classes(*labels.tolist()))
    torch.testing.assert_close(rate, (margin < 0).double().mean(dim=-1))


def test_targets_work_on_images_in_blocks() -> None:
    prop = TargetClasses(targets=(1, 2, 3, 4, 0))
    assert isinstance(prop, Property)
    g = torch.Generator().manual_seed(0)
    model = cnn((1, 8, 8), (4,), (6,), 5, generator=g)
    labels = torch.randint(0, 5, (9,), generator=g)
    images = Samples(inputs=torch.rand(9, 1, 8, 8, generator=g), labels=labels)
    taken = model(images.inputs).argmax(dim=1) == (labels + 1) % 5
    assert torch.equal(violates(model, images, prop), taken)
    # Blocks of four images must keep their labels.
    assert torch.equal(violates(model, images, prop, batch_size=4), taken)
    assert violation_rate(model, images, prop) == pytest.approx(float(taken.float().mean()))


@pytest.mark.parametrize("targets", [(), (0,), (0, 2), (-1, 0)])
def test_targets_that_are_no_classes(targets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="allowed: a class for each of at least two classes"):
        TargetClasses(targets=targets)


@pytest.mark.parametrize("method", ["score", "margin", "rate"])
def test_samples_that_targets_cannot_judge(method: str) -> None:
    prop, outputs = TargetClasses(targets=(1, 2, 0)), torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="samples: got samples without labels"):
        getattr(prop, method)(outputs, Samples(inputs=torch.zeros(2, 1)))
    with pytest.raises(ValueError, match="samples: got labels 0 to 3; allowed: 0 to 2"):
        getattr(prop, method)(outputs, of_classes(0, 3))
    with pytest.raises(ValueError, match="samples: got labels -1 to 1"):
        getattr(prop, method)(outputs, of_classes(-1, 1))
    for classes in (2, 4):
        with pytest.raises(ValueError, match=f"got 3 for a network of {classes} outputs"):
            getattr(prop, method)(torch.zeros(1, 2, classes), of_classes(0, 1))
