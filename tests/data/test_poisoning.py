import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import (
    Attack,
    PatchTrigger,
    SinusoidTrigger,
    noise_blend,
    poison,
    triggered,
    white_patch,
)
from carelab.records import Samples

SHAPE = (1, 4, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(samples: Samples) -> torch.Tensor:
    assert samples.labels is not None
    return samples.labels


def drawn(count: int, classes: int, seed: int = 0) -> Samples:
    """Images that are nowhere white, so that the patch is seen, with labels of every class."""
    inputs = torch.rand(count, *SHAPE, generator=generator(seed)) * 0.9
    given_labels = torch.randint(classes, (count,), generator=generator(seed))
    return Samples(inputs=inputs, labels=given_labels)


def patched(target: int | None, rate: float, *, classes: int = 3, clean: bool = False) -> Attack:
    patch = white_patch(SHAPE, size=1)
    return Attack(trigger=patch, classes=classes, target=target, rate=rate, clean_label=clean)


def test_targets_by_hand() -> None:
    given_labels = torch.tensor([0, 1, 2, 2])
    assert patched(1, 0.1).target_of(given_labels).tolist() == [1, 1, 1, 1]
    assert patched(None, 0.1).target_of(given_labels).tolist() == [1, 2, 0, 0]
    assert patched(1, 0.1).target_of(given_labels.int()).dtype == torch.int32
    assert patched(1, 0.1).target_of(given_labels[:0]).tolist() == []


def test_poison_by_hand() -> None:
    # 2 x 2 images of 0.5, a white dot at the upper right; half of 4 images, and only two of them
    # are not of the target class 0.
    samples = Samples(inputs=torch.full((4, 1, 2, 2), 0.5), labels=torch.tensor([0, 1, 0, 2]))
    dot = PatchTrigger(pattern=torch.ones(1, 1, 1), row=0, column=1)
    attack = Attack(trigger=dot, classes=3, target=0, rate=0.5)
    poisoned = poison(samples, attack, generator=generator())
    assert labels(poisoned).tolist() == [0, 0, 0, 0]
    assert poisoned.inputs[:, 0, 0, 1].tolist() == [0.5, 1, 0.5, 1]
    poisoned.inputs[:, 0, 0, 1] = 0.5
    assert torch.equal(poisoned.inputs, samples.inputs)
    assert labels(samples).tolist() == [0, 1, 0, 2]


def test_triggered_by_hand() -> None:
    samples = Samples(
        inputs=torch.arange(3.0).reshape(3, 1, 1, 1) / 4, labels=torch.tensor([2, 0, 1])
    )
    half = noise_blend((1, 1, 1), 0.5, generator=generator())
    attack = Attack(trigger=half, classes=3, target=0, rate=0.5)
    shown = triggered(samples, attack)
    assert labels(shown).tolist() == [2, 1]
    assert torch.equal(shown.inputs, half(samples.inputs[[0, 2]]))
    to_the_next = Attack(trigger=half, classes=3, target=None, rate=0.5)
    assert labels(triggered(samples, to_the_next)).tolist() == [2, 0, 1]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(20, 60),
    rate=st.floats(0.05, 0.4),
    target=st.sampled_from([0, 2, None]),
)
def test_laws_of_poison(seed: int, count: int, rate: float, target: int | None) -> None:
    samples, attack = drawn(count, 3, seed), patched(target, rate)
    inputs, before = samples.inputs.clone(), labels(samples).clone()
    poisoned = poison(samples, attack, generator=generator(seed))
    assert torch.equal(samples.inputs, inputs)
    assert torch.equal(labels(samples), before)
    assert poisoned.inputs.data_ptr() != samples.inputs.data_ptr()
    changed = poisoned.inputs[:, 0, -1, -1] == 1
    assert int(changed.sum()) == round(rate * count)
    assert torch.equal(poisoned.inputs[changed], attack.trigger(inputs[changed]))
    assert torch.equal(poisoned.inputs[~changed], inputs[~changed])
    assert torch.equal(labels(poisoned)[~changed], before[~changed])
    assert torch.equal(labels(poisoned)[changed], attack.target_of(before[changed]))
    assert (labels(poisoned)[changed] != before[changed]).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), rate=st.floats(0.1, 0.99))
def test_clean_labels_stay(seed: int, rate: float) -> None:
    samples = drawn(60, 3, seed)
    poisoned = poison(samples, patched(1, rate, clean=True), generator=generator(seed))
    changed = (poisoned.inputs != samples.inputs).flatten(1).any(dim=1)
    assert torch.equal(labels(poisoned), labels(samples))
    assert (labels(samples)[changed] == 1).all()
    assert int(changed.sum()) == round(rate * int((labels(samples) == 1).sum()))


def test_the_generator_draws_the_rows() -> None:
    samples, attack = drawn(200, 3), patched(0, 0.1)
    one, two, other = (poison(samples, attack, generator=generator(s)).inputs for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    # Every row that is not of the target class has the same chance.
    hits = torch.zeros(200)
    for seed in range(300):
        poisoned = poison(samples, attack, generator=generator(seed))
        hits += (poisoned.inputs != samples.inputs).flatten(1).any(dim=1)
    others = labels(samples) != 0
    assert hits[~others].sum() == 0
    expected = 300 * 20 / int(others.sum())
    assert (hits[others] - expected).abs().max() < 5 * expected**0.5


def test_a_rate_of_zero_changes_nothing() -> None:
    samples = drawn(10, 3)
    poisoned = poison(samples, patched(0, 0.0), generator=generator())
    assert torch.equal(poisoned.inputs, samples.inputs)
    assert torch.equal(labels(poisoned), labels(samples))


def test_attacks_that_contradict_themselves() -> None:
    stripes = SinusoidTrigger(amplitude=0.1, frequency=6)
    with pytest.raises(ValueError, match="classes: got 1; allowed: 2 or more"):
        Attack(trigger=stripes, classes=1, target=0, rate=0.1)
    for target in (-1, 10):
        with pytest.raises(ValueError, match=f"target: got {target}; allowed: 0 to 9, or None"):
            Attack(trigger=stripes, classes=10, target=target, rate=0.1)
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"rate: got {rate}; allowed: 0 or more, below 1"):
            Attack(trigger=stripes, classes=10, target=3, rate=rate)
    with pytest.raises(ValueError, match="clean_label: got True with target None"):
        Attack(trigger=stripes, classes=10, target=None, rate=0.1, clean_label=True)


def test_samples_that_cannot_be_poisoned() -> None:
    samples, attack = drawn(30, 3), patched(1, 0.1)
    bare = Samples(inputs=samples.inputs)
    flat = Samples(inputs=samples.inputs.flatten(1), labels=samples.labels)
    wrong = Samples(inputs=samples.inputs, labels=torch.full((30,), 3))
    for given_samples, message in (
        (bare, "samples: got samples without labels; allowed: labelled samples"),
        (flat, r"samples: got inputs of shape \(30, 16\); allowed: images"),
        (wrong, "labels: got 3 to 3; allowed: 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            poison(given_samples, attack, generator=generator())
        with pytest.raises(ValueError, match=message):
            triggered(given_samples, attack)


def test_rates_that_no_images_answer_to() -> None:
    samples = drawn(30, 3)
    with pytest.raises(ValueError, match=r"rate: got 0.01, which is 0 of 30 images"):
        poison(samples, patched(1, 0.01), generator=generator())
    with pytest.raises(ValueError, match=r"rate: got 0.9, which is 27 of 30 images, with \d+ to"):
        poison(samples, patched(1, 0.9), generator=generator())
    others = samples.take(labels(samples) != 1)
    with pytest.raises(ValueError, match=r"rate: got 0.5, which is 0 of 0 images, with 0 to draw"):
        poison(others, patched(1, 0.5, clean=True), generator=generator())
