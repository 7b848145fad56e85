"""How often a backdoor works: triggered images that are taken for the attack's target class."""

from __future__ import annotations

from torch import nn

from carelab.data import Attack, triggered
from carelab.networks import predict
from carelab.records import Samples

__all__ = ["attack_success_rate"]


def attack_success_rate(
    model: nn.Module, samples: Samples, attack: Attack, *, batch_size: int = 8192
) -> float:
    """Fraction of triggered images, not of the target class, that are taken for the target class.

    Args:
        model: the network, in evaluation mode.
        samples: clean images with their true labels; the trigger is put on here.
        attack: the attack; in an all-to-all attack every class has its own target.
        batch_size: images a pass; bounds the memory of the network, not of the images.

    Returns:
        The fraction, in [0, 1].

    Raises:
        ValueError: no image that is not of its target class, samples without labels, or a network
            in training mode.

    Source: Gu et al., BadNets, arXiv 1708.06733. Departs: images of the target class, which count
        as successes there, are left out.

    Example:
        >>> import torch
        >>> from carelab import data, networks, properties
        >>> g = torch.Generator().manual_seed(0)
        >>> small, patch = data.digits(generator=g), data.white_patch((1, 8, 8), size=2)
        >>> model = networks.cnn((1, 8, 8), (4,), (8,), 10, generator=g)
        >>> attack = data.Attack(trigger=patch, classes=10, target=3, rate=0.1)
        >>> 0 <= properties.attack_success_rate(model, small.test, attack) <= 1
        True
    """
    attacked = triggered(samples, attack)
    if attacked.labels is None or len(attacked) == 0:
        raise ValueError(
            f"samples: got {len(samples)}, all of the target class; "
            "allowed: at least one image of another class"
        )
    predicted = predict(model, attacked.inputs, batch_size=batch_size)
    wanted = attack.target_of(attacked.labels)
    return (predicted == wanted).double().mean().item()
