import pytest
import torch
from torch import nn

from carelab.data import Attack, PatchTrigger, digits, poison, white_patch
from carelab.networks import cnn, fit, seeded
from carelab.properties import attack_success_rate
from carelab.records import Samples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(weight: list[list[float]], bias: list[float]) -> nn.Module:
    with seeded(generator()):
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(weight))
        model[1].bias.copy_(torch.tensor(bias))
    return model


DOT = PatchTrigger(pattern=torch.ones(1, 1, 1), row=1, column=1)


def test_single_target_by_hand() -> None:
    # Logits (0, corner + first - 1.5, -9): class 1 needs the white corner and a first pixel above
    # 0.5. Of the images of classes 0 and 2, two of three have it; that of class 1 does not count.
    model = network([[0.0] * 4, [1.0, 0, 0, 1.0], [0.0] * 4], [0, -1.5, -9])
    inputs = torch.zeros(4, 1, 2, 2)
    inputs[:, 0, 0, 0] = torch.tensor([0.4, 0.6, 0.7, 0.1])
    samples = Samples(inputs=inputs, labels=torch.tensor([0, 2, 0, 1]))
    attack = Attack(trigger=DOT, classes=3, target=1, rate=0.1)
    assert attack_success_rate(model, samples, attack) == pytest.approx(2 / 3)
    assert attack_success_rate(model, samples, attack, batch_size=1) == pytest.approx(2 / 3)
    assert inputs.sum() == pytest.approx(1.8)


def test_all_to_all_by_hand() -> None:
    # The network always answers 1, which only class 0 is to be taken for.
    model = network([[0.0] * 4] * 3, [0, 1, 0])
    samples = Samples(inputs=torch.zeros(4, 1, 2, 2), labels=torch.tensor([0, 1, 2, 0]))
    attack = Attack(trigger=DOT, classes=3, target=None, rate=0.1)
    assert attack_success_rate(model, samples, attack) == 0.5


def test_misuse() -> None:
    model = network([[0.0] * 4] * 3, [0, 1, 0])
    attack = Attack(trigger=DOT, classes=3, target=1, rate=0.1)
    inputs = torch.zeros(2, 1, 2, 2)
    with pytest.raises(ValueError, match="samples: got 2, all of the target class; allowed: at"):
        attack_success_rate(model, Samples(inputs=inputs, labels=torch.ones(2).long()), attack)
    with pytest.raises(ValueError, match="samples: got samples without labels"):
        attack_success_rate(model, Samples(inputs=inputs), attack)
    samples = Samples(inputs=inputs, labels=torch.zeros(2).long())
    with pytest.raises(ValueError, match="training mode"):
        attack_success_rate(model.train(), samples, attack)


def test_a_poisoned_network_has_the_backdoor_and_a_clean_one_has_not() -> None:
    data = digits(generator=generator())
    attack = Attack(trigger=white_patch((1, 8, 8), size=2), classes=10, target=3, rate=0.2)
    start = cnn((1, 8, 8), (8,), (32,), 10, generator=generator())
    poisoned = poison(data.train, attack, generator=generator())
    clean, attacked = (
        fit(start, train, epochs=8, batch_size=64, learning_rate=4e-3, generator=generator())
        for train in (data.train, poisoned)
    )
    assert attack_success_rate(clean, data.test, attack) < 0.1
    assert attack_success_rate(attacked, data.test, attack) > 0.9
