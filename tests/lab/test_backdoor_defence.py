from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from carelab import data
from carelab.data import Attack, MaskTrigger, Trigger, white_patch
from carelab.lab import backdoor_defence
from carelab.lab.backdoor_cases import BackdoorCase
from carelab.lab.backdoor_defence import Defence, Knowledge, known_attack, prepare_defence
from carelab.networks import paper_network, predict
from carelab.properties import Reconstruction, TargetClasses
from carelab.records import Samples
from tests.lab.backdoors import CLASSES, handmade_case
from tests.tables import seeded

PARTS = ("clean", "selection", "known", "known_selection")


def digits_case() -> BackdoorCase:
    """An untrained network on the digits: what the defender is given does not depend on it."""
    dataset = data.digits(generator=seeded())
    patch = white_patch((1, 8, 8), 2)
    return BackdoorCase(
        name="digits",
        attack_name="badnets",
        activation="relu",
        dataset=dataset,
        attack=Attack(trigger=patch, classes=10, target=3, rate=0.1),
        model=paper_network("digits", generator=seeded()),
    )


def origins(samples: Samples, rows: int) -> set[bytes]:
    """Each image by its first pixel rows, which no trigger here touches."""
    return {image[0, :rows].numpy().tobytes() for image in samples.inputs}


def given_parts(defence: Defence) -> dict[str, Samples]:
    named = {name: getattr(defence, name) for name in PARTS}
    return {name: samples for name, samples in named.items() if samples is not None}


def reachable(value: object) -> Iterator[object]:
    """The value and all that its fields and items lead to."""
    yield value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from reachable(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from reachable(item)


@pytest.mark.parametrize(
    ("setting", "sizes"),
    [
        ("a", {"clean": 800, "selection": 200, "known": 800, "known_selection": 200}),
        ("b", {"clean": 800, "selection": 200, "known": 40, "known_selection": 10}),
        ("c", {"clean": 800, "selection": 200}),
        ("d", {"clean": 80, "selection": 20}),
    ],
)
def test_settings_give_the_counts(setting: str, sizes: dict[str, int]) -> None:
    case = handmade_case()
    parts = given_parts(prepare_defence(case, setting, generator=seeded()))
    assert {name: len(samples) for name, samples in parts.items()} == sizes


@pytest.mark.parametrize("setting", ["a", "b", "c", "d"])
@pytest.mark.parametrize("make", [handmade_case, digits_case])
def test_no_image_is_given_twice_and_none_is_a_test_image(
    setting: str, make: Callable[[], BackdoorCase]
) -> None:
    case = make()
    rows = 3 if case.name == "pictures" else 6
    train, test = origins(case.dataset.train, rows), origins(case.dataset.test, rows)
    # The upper rows name an image, or the sets below would prove nothing.
    assert len(train) == len(case.dataset.train)
    parts = given_parts(prepare_defence(case, setting, generator=seeded(3)))
    seen = [origins(samples, rows) for samples in parts.values()]
    assert sum(len(samples) for samples in parts.values()) == len(set().union(*seen))
    for images in seen:
        assert images
        assert images <= train
        assert not images & test


@pytest.mark.parametrize("target", [2, None])
def test_known_images_are_triggered_and_keep_their_true_labels(target: int | None) -> None:
    case = handmade_case(target=target)
    defence = prepare_defence(case, "a", generator=seeded())
    for part in (defence.known, defence.known_selection):
        assert part is not None
        assert part.labels is not None
        assert (part.inputs[:, 0, 3, 3] == 1).all()
        # The first row of a picture says which class it is.
        assert torch.equal(part.inputs[:, 0, 0].argmax(dim=1), part.labels)
        assert not (case.attack.target_of(part.labels) == part.labels).any()
    for part in (defence.clean, defence.selection):
        assert (part.inputs[:, 0, 3, 3] < 1).all()


def test_small_data_are_shared_half_and_half() -> None:
    # 1078 training digits: 539 clean ones, of which a fifth is kept for choosing, and of the
    # others those that are no 3.
    case = digits_case()
    defence = prepare_defence(case, "a", generator=seeded())
    assert (len(case.dataset.train), len(defence.clean), len(defence.selection)) == (1078, 432, 107)
    assert defence.known is not None
    assert defence.known_selection is not None
    known = len(defence.known) + len(defence.known_selection)
    assert 539 * 0.85 < known < 539
    assert len(defence.known_selection) == known // 5


@pytest.mark.parametrize("setting", ["a", "b", "c", "d"])
def test_the_defender_holds_no_trigger(setting: str) -> None:
    case = handmade_case()
    defence = prepare_defence(case, setting, generator=seeded())
    found = list(reachable(defence))
    assert len(found) > 4
    assert not any(isinstance(value, Trigger | Attack) for value in found)
    # Tensors are those of the samples: images and labels, nothing of the trigger's shape.
    tensors = [value for value in found if isinstance(value, Tensor)]
    assert len(tensors) == 2 * len(given_parts(defence))
    assert all(len(tensor) > 1 for tensor in tensors)


@pytest.mark.parametrize("setting", ["c", "d"])
def test_without_known_images_the_attack_decides_nothing(setting: str) -> None:
    one = handmade_case()
    other = replace(one.attack, trigger=white_patch((1, 4, 4), 2), target=None)
    first, second = (
        given_parts(prepare_defence(case, setting, generator=seeded(1)))
        for case in (one, replace(one, attack=other))
    )
    assert first.keys() == second.keys() == {"clean", "selection"}
    for name, samples in first.items():
        assert torch.equal(samples.inputs, second[name].inputs)
        assert torch.equal(samples.labels, second[name].labels)


def test_the_seed_decides_the_images() -> None:
    case = handmade_case()
    one, same, other = (
        prepare_defence(case, "b", generator=seeded(seed)).clean.inputs for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_unknown_setting() -> None:
    with pytest.raises(ValueError, match="setting: got 'e'; allowed: a, b, c, d"):
        prepare_defence(handmade_case(), "e", generator=seeded())


@pytest.mark.parametrize(
    ("target", "expected"), [(2, (2, 2, 2, 2)), (0, (0, 0, 0, 0)), (None, (1, 2, 3, 0))]
)
@pytest.mark.parametrize("setting", ["a", "b"])
def test_targets_are_found(setting: str, target: int | None, expected: tuple[int, ...]) -> None:
    case = handmade_case(target=target)
    defence = prepare_defence(case, setting, generator=seeded())
    found = known_attack(case.model, defence, CLASSES, generator=seeded())
    assert found.targets == expected
    assert isinstance(found.prop, TargetClasses)
    assert found.prop.targets == expected
    assert (found.reconstructions, found.detected) == ((), ())
    assert found.seconds > 0


@pytest.mark.parametrize("target", [2, 0, None])
def test_the_trigger_is_estimated_from_many_images(target: int | None) -> None:
    # Clean images of the target class, of which no known image is, must not blur the estimate:
    # the pixel that marks the class would look changed.
    case = handmade_case(target=target)
    defence = prepare_defence(case, "a", generator=seeded())
    found = known_attack(case.model, defence, CLASSES, generator=seeded())
    assert found.source == "moments"
    (trigger,) = found.triggers
    # The true trigger is a white pixel in the lower right corner.
    assert trigger.mask.nonzero().tolist() == [[0, 3, 3]]
    assert trigger.mask[0, 3, 3] > 0.9
    assert trigger.pattern[0, 3, 3] > 0.9
    # What it does to other images is what the attack does to them.
    victims = found.victims(case.dataset.test)
    assert victims.labels is not None
    taken = predict(case.model, trigger(victims.inputs))
    assert torch.equal(taken, case.attack.target_of(victims.labels))


@pytest.mark.parametrize(("target", "expected"), [(2, (2, 2, 2, 2)), (None, (1, 2, 3, 0))])
def test_a_weak_attack_still_shows_its_targets(
    target: int | None, expected: tuple[int, ...]
) -> None:
    # Two of three known images keep their class, as if the trigger had not worked on them.
    case = handmade_case(target=target)
    defence = prepare_defence(case, "b", generator=seeded())
    assert defence.known is not None
    others = case.dataset.train.take(slice(0, 80))
    kept = others.take(case.attack.target_of(others.labels) != others.labels)
    weak = replace(defence, known=defence.known.joined(kept))
    found = known_attack(case.model, weak, CLASSES, generator=seeded())
    assert found.targets == expected


def test_a_class_that_no_known_image_has_takes_the_usual_target() -> None:
    # All-to-all, but of the known images two thirds are of class 1, the others of class 2 and 3.
    case = handmade_case(target=None)
    defence = prepare_defence(case, "a", generator=seeded())
    assert defence.known is not None
    labels = defence.known.labels
    rows = torch.cat(
        [(labels == label).nonzero()[:count, 0] for label, count in ((1, 9), (2, 8), (3, 7))]
    )
    few = replace(defence, known=defence.known.take(rows))
    assert known_attack(case.model, few, CLASSES, generator=seeded()).targets == (2, 2, 3, 0)


def test_an_estimate_that_does_not_work_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = MaskTrigger(mask=torch.zeros(1, 4, 4), pattern=torch.zeros(1, 4, 4))
    monkeypatch.setattr(
        backdoor_defence, "estimate_trigger", lambda known, clean, *, generator: nothing
    )
    case = handmade_case()
    defence = prepare_defence(case, "b", generator=seeded())
    found = known_attack(case.model, defence, CLASSES, generator=seeded())
    assert (found.source, found.triggers, found.targets) == ("images alone", (), (2,) * CLASSES)


def dot_of_size(target: int, size: float, success: float) -> Reconstruction:
    return Reconstruction(
        target=target,
        trigger=MaskTrigger(mask=torch.zeros(1, 4, 4), pattern=torch.zeros(1, 4, 4)),
        success=success,
        size=size,
        history=torch.zeros(1),
    )


@pytest.mark.parametrize(
    ("sizes", "successes", "chosen", "detected"),
    [
        # One class is far smaller than the others, which are alike: it is suspected.
        ((9.0, 8.0, 9.5, 0.1), (1.0, 1.0, 1.0, 1.0), 3, (3,)),
        # None stands out: the smallest.
        ((9.0, 7.5, 9.5, 8.0), (1.0, 1.0, 1.0, 1.0), 1, ()),
        # The smallest does not work, and too few do for the rule.
        ((9.0, 0.5, 9.5, 8.0), (1.0, 0.3, 1.0, 0.9), 3, ()),
        # None works at all: the smallest is the best guess there is.
        ((9.0, 7.5, 9.5, 8.0), (0.1, 0.2, 0.0, 0.7), 1, ()),
    ],
)
def test_without_known_images_the_target_is_the_class_of_the_smallest_trigger(
    sizes: tuple[float, ...],
    successes: tuple[float, ...],
    chosen: int,
    detected: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [dot_of_size(*values) for values in zip(range(CLASSES), sizes, successes, strict=True)]

    case = handmade_case()
    defence = prepare_defence(case, "d", generator=seeded())
    again: list[Reconstruction] = []

    def scan(
        model: object, images: Tensor, *, targets: Sequence[int], **knobs: object
    ) -> tuple[Reconstruction, ...]:
        assert torch.equal(images, defence.clean.inputs)
        return tuple(made[target] for target in targets)

    def search(model: object, images: Tensor, target: int, **knobs: object) -> Reconstruction:
        assert torch.equal(images, defence.clean.inputs)
        again.append(dot_of_size(target, 5.0, 1.0))
        return again[-1]

    monkeypatch.setattr(backdoor_defence, "reconstruct_triggers", scan)
    monkeypatch.setattr(backdoor_defence, "reconstruct_trigger", search)
    found = known_attack(case.model, defence, CLASSES, generator=seeded())
    assert found.source == "reconstruction"
    assert found.reconstructions == tuple(made)
    assert (found.targets, found.detected) == ((chosen,) * CLASSES, detected)
    # The class is searched again from other starts, and all triggers found count.
    assert [one.target for one in again] == [chosen] * len(again)
    assert found.triggers == (*(one.trigger for one in again), made[chosen].trigger)
    assert len(again) > 1


def test_victims_are_those_not_of_their_target() -> None:
    knowledge = Knowledge(
        targets=(1, 1, 2),
        triggers=(),
        source="images alone",
        reconstructions=(),
        detected=(),
        seconds=0.0,
    )
    rows = Samples(inputs=torch.arange(6.0)[:, None], labels=torch.tensor([0, 1, 2, 0, 1, 2]))
    victims = knowledge.victims(rows)
    assert victims.labels is not None
    assert victims.labels.tolist() == [0, 0]
    assert victims.inputs.flatten().tolist() == [0, 3]
