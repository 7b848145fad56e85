"""Is there a backdoor? The rules of detection on networks with and without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from carelab.lab.backdoor_cases import BackdoorCase
from carelab.lab.backdoor_defence import SCAN_STEPS, suspected
from carelab.networks import accuracy
from carelab.properties import (
    Detection,
    attack_success_rate,
    detect_target,
    detect_target_by_deviation,
    reconstruct_triggers,
)

__all__ = ["RULES", "Examination", "examine", "summarise_examinations"]

RULES: Mapping[str, Callable[..., Detection]] = {
    "log_sizes": detect_target,
    "median_deviation": detect_target_by_deviation,
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Examination:
    """What reconstructed triggers say of one network.

    Args:
        seed: the seed of the network and of the images.
        attack: name of the attack, or "none".
        target: the class attacked, None without an attack.
        accuracy: of the network, on clean test images.
        attack_success_rate: with the true trigger, on test images; None without an attack.
        sizes: size of the smallest trigger found for each class, in pixels (classes).
        successes: fraction of the images that it moves (classes).
        suspects: the classes that each rule suspects, by its name.
        seconds: of the processor, for the reconstructions.
    """

    seed: int
    attack: str
    target: int | None
    accuracy: float
    attack_success_rate: float | None
    sizes: Float[Tensor, " classes"]
    successes: Float[Tensor, " classes"]
    suspects: Mapping[str, tuple[int, ...]]
    seconds: float


def examine(case: BackdoorCase, *, images: int = 1000, seed: int) -> Examination:
    """Smallest trigger for every class, from clean training images, and what each rule suspects.

    Args:
        case: the network, clean or with a backdoor, which is used to measure alone.
        images: clean images that the defender has, at most.
        seed: draws the images and starts the reconstructions.

    Raises:
        ValueError: fewer than one image.

    Example:
        >>> from carelab.lab.backdoor_detection import RULES
        >>> list(RULES)
        ['log_sizes', 'median_deviation']
    """
    if images < 1:
        raise ValueError(f"images: got {images}; allowed: at least 1")
    generator = torch.Generator().manual_seed(seed)
    train, test = case.dataset.train, case.dataset.test
    own = train.take(torch.randperm(len(train), generator=generator)[:images])
    started = time.process_time()
    found = reconstruct_triggers(
        case.model,
        own.inputs,
        targets=range(len(case.dataset.classes)),
        steps=SCAN_STEPS,
        generator=generator,
    )
    seconds = time.process_time() - started
    attacked = case.attack_name != "none"
    return Examination(
        seed=seed,
        attack=case.attack_name,
        target=case.attack.target if attacked else None,
        accuracy=accuracy(case.model, test),
        attack_success_rate=attack_success_rate(case.model, test, case.attack)
        if attacked
        else None,
        sizes=torch.tensor([one.size for one in found]),
        successes=torch.tensor([one.success for one in found]),
        suspects={name: suspected(found, rule) for name, rule in RULES.items()},
        seconds=seconds,
    )


def summarise_examinations(examinations: Sequence[Examination]) -> dict[str, object]:
    """True and false alarms of each rule, in the layout of a result file.

    Args:
        examinations: of networks with and without a backdoor.

    Returns:
        ``results.rules.<rule>`` with ``true_alarms`` (networks with a backdoor that are suspected
        of the right class), ``wrong_class`` (suspected, but of others alone) and ``false_alarms``
        (clean networks that are suspected), each as ``{count, of, mean, low, high}`` with the
        exact 95 % interval of Clopper and Pearson; ``results.networks``, one record each.

    Raises:
        ValueError: no examination.

    Example:
        >>> from carelab.lab.backdoor_detection import summarise_examinations
        >>> summarise_examinations([])
        Traceback (most recent call last):
        ValueError: examinations: got none; allowed: at least one
    """
    if not examinations:
        raise ValueError("examinations: got none; allowed: at least one")
    attacked = [one for one in examinations if one.target is not None]
    clean = [one for one in examinations if one.target is None]
    rules = {}
    for name in RULES:
        hits = [one.target in one.suspects[name] for one in attacked]
        alarms = [bool(one.suspects[name]) for one in attacked]
        wrong = [alarm and not hit for alarm, hit in zip(alarms, hits, strict=True)]
        rules[name] = {
            "true_alarms": _share(hits),
            "wrong_class": _share(wrong),
            "false_alarms": _share([bool(one.suspects[name]) for one in clean]),
        }
    return {
        "results": {
            "rules": rules,
            "networks": [
                {
                    "seed": one.seed,
                    "attack": one.attack,
                    "target": one.target,
                    "accuracy": one.accuracy,
                    "attack_success_rate": one.attack_success_rate,
                    "sizes": one.sizes.tolist(),
                    "successes": one.successes.tolist(),
                    "suspects": {name: list(found) for name, found in one.suspects.items()},
                }
                for one in examinations
            ],
        },
        "seconds": {"examination": sum(one.seconds for one in examinations) / len(examinations)},
    }


def _share(happened: Sequence[bool]) -> dict[str, float | int | None]:
    count, of = sum(happened), len(happened)
    if of == 0:
        return {"count": 0, "of": 0, "mean": None, "low": None, "high": None}
    interval = binomtest(count, of).proportion_ci(0.95)
    return {
        "count": count,
        "of": of,
        "mean": count / of,
        "low": float(interval.low),
        "high": float(interval.high),
    }
