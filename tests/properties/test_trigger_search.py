from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from carelab import data, networks
from carelab.data import MaskTrigger
from carelab.networks import cnn, fingerprint, mlp
from carelab.properties import (
    attack_success_rate,
    detect_target,
    reconstruct_blend,
    reconstruct_trigger,
    reconstruct_triggers,
)
from carelab.records import Samples

TARGET = 7


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(weights: Tensor, bias: float) -> nn.Sequential:
    """Two classes on 4 x 4 images: logit 0 is 0, logit 1 is weights . x + bias."""
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(16), weights]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return nn.Sequential(nn.Flatten(), layer).eval()


@dataclass(frozen=True, kw_only=True)
class Backdoored:
    model: nn.Module
    images: Tensor
    attack: data.Attack
    test: Samples


@pytest.fixture(scope="module")
def backdoored() -> Backdoored:
    """A network of the digits with a white 2 x 2 patch in the lower right corner."""
    generator = seeded()
    digits = data.digits(generator=generator)
    patch = data.white_patch((1, 8, 8), size=2)
    attack = data.Attack(trigger=patch, classes=10, target=TARGET, rate=0.1)
    poisoned = data.poison(digits.train, attack, generator=generator)
    model = cnn((1, 8, 8), (8, 16), (32,), 10, generator=generator)
    model = networks.fit(model, poisoned, epochs=15, batch_size=64, generator=generator)
    model.zero_grad()  # the last gradients of the training
    return Backdoored(
        model=model, images=digits.selection.inputs[:150], attack=attack, test=digits.test
    )


def test_by_hand_one_pixel_decides() -> None:
    # Logit 1 is 10 x_5 - 5 and images are black: pixel 5 must rise above 1/2, with the lead of a
    # tenth of 5 logits to 0.55. The other 15 pixels do nothing and cost.
    model = linear(torch.zeros(16).index_fill(0, torch.tensor([5]), 10.0), bias=-5.0)
    found = reconstruct_trigger(model, torch.zeros(20, 1, 4, 4), 1, generator=seeded())
    assert found.success == 1
    assert int(found.trigger.mask.argmax()) == 5
    shown = float(found.trigger.mask.flatten()[5] * found.trigger.pattern.flatten()[5])
    assert 0.5 < shown < 0.6
    assert 0.5 < found.size < 0.75
    assert found.size == pytest.approx(float(found.trigger.mask.sum()))


def test_by_hand_the_whole_image_decides() -> None:
    # Logit 1 is the sum of all pixels - 4.8, so the opacity must rise above 4.8 / 16 = 0.3.
    model = linear(torch.ones(16), bias=-4.8)
    found = reconstruct_blend(model, torch.zeros(20, 1, 4, 4), 1, generator=seeded())
    assert found.success == 1
    opacity = found.trigger.mask.unique()
    assert len(opacity) == 1
    assert 0.3 < float(opacity) < 0.38
    assert found.size == pytest.approx(16 * float(opacity))


def test_a_class_out_of_reach_is_a_result() -> None:
    model = linear(torch.ones(16), bias=-100.0)
    found = reconstruct_trigger(model, torch.rand(9, 1, 4, 4), 1, steps=12, generator=seeded())
    assert found.success == 0
    assert found.history.shape == (12,)


def test_backdoor_is_detected_and_found_in_its_corner(backdoored: Backdoored) -> None:
    model, images = backdoored.model, backdoored.images
    assert attack_success_rate(model, backdoored.test, backdoored.attack) > 0.95
    every = reconstruct_triggers(
        model, images, steps=80, restarts=2, batch_size=24, generator=seeded(1)
    )
    assert [each.target for each in every] == list(range(10))
    assert detect_target(every).suspects == (TARGET,)
    found = reconstruct_trigger(model, images, TARGET, generator=seeded(1))
    mask = found.trigger.mask
    # Two of the four pixels can be enough, helped by one elsewhere that the digit needs.
    assert float(mask[:, 6:, 6:].sum() / mask.sum()) > 0.6
    assert float(mask[:, 6:, 6:].max()) == float(mask.max())
    sent = data.Attack(trigger=found.trigger, classes=10, target=TARGET, rate=0.1)
    assert attack_success_rate(model, backdoored.test, sent) >= 0.95


def test_success_is_that_on_the_images_of_other_classes(backdoored: Backdoored) -> None:
    model, images = backdoored.model, backdoored.images
    found = reconstruct_trigger(model, images, 2, steps=60, generator=seeded())
    others = images[networks.predict(model, images) != 2]
    sent = networks.predict(model, found.trigger(others)) == 2
    assert found.success == pytest.approx(float(sent.float().mean()))
    assert isinstance(found.trigger, MaskTrigger)


def test_repeats_and_leaves_the_network_alone(backdoored: Backdoored) -> None:
    model, images = backdoored.model, backdoored.images
    before = fingerprint(model)
    with torch.no_grad():  # as a caller may have it
        first = reconstruct_trigger(model, images, 4, steps=20, generator=seeded(3))
    again = reconstruct_trigger(model, images, 4, steps=20, generator=seeded(3))
    assert torch.equal(first.trigger.mask, again.trigger.mask)
    assert torch.equal(first.trigger.pattern, again.trigger.pattern)
    assert torch.equal(first.history, again.history)
    assert fingerprint(model) == before
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_follows_the_number_type() -> None:
    model = linear(torch.ones(16), bias=-4.8).double()
    images = torch.zeros(6, 1, 4, 4, dtype=torch.float64)
    found = reconstruct_trigger(model, images, 1, steps=9, generator=seeded())
    assert found.trigger.mask.dtype == torch.float64


def test_misuse() -> None:
    model = linear(torch.ones(16), bias=-4.8)
    dark, light = torch.zeros(6, 1, 4, 4), torch.ones(6, 1, 4, 4)
    with pytest.raises(ValueError, match="target: got 2 for a network of 2 outputs"):
        reconstruct_trigger(model, dark, 2, generator=seeded())
    with pytest.raises(ValueError, match="images: the network takes all of them for class 1"):
        reconstruct_trigger(model, light, 1, generator=seeded())
    with pytest.raises(ValueError, match="images: are empty or leave"):
        reconstruct_trigger(model, 2 * light, 1, generator=seeded())
    with pytest.raises(ValueError, match=r"wanted, lead, learning_rate: got 1.5, 0.1, 0.2"):
        reconstruct_blend(model, dark, 1, wanted=1.5, generator=seeded())
    with pytest.raises(ValueError, match="steps, restarts, batch_size: got 2, 3, 48"):
        reconstruct_trigger(model, dark, 1, steps=2, generator=seeded())
    with pytest.raises(ValueError, match="got 150, 3, 2; allowed"):
        reconstruct_trigger(model, dark, 1, batch_size=2, generator=seeded())
    with pytest.raises(ValueError, match="targets: got none"):
        reconstruct_triggers(model, dark, targets=[], generator=seeded())
    with pytest.raises(ValueError, match="model: is in training mode"):
        reconstruct_trigger(linear(torch.ones(16), 0.0).train(), dark, 1, generator=seeded())
    with pytest.raises(ValueError, match="inputs: got 1 channels; this network takes 3"):
        reconstruct_trigger(
            cnn((3, 8, 8), (2,), (), 2, generator=seeded()), dark, 1, generator=seeded()
        )
    one = nn.Sequential(nn.Flatten(), mlp(16, (2,), 1, generator=seeded())).eval()
    with pytest.raises(ValueError, match="got 0 for a network of 1 outputs"):
        reconstruct_trigger(one, dark, 0, generator=seeded())
