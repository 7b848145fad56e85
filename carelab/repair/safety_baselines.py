"""What repairs of controllers are held against: fine-tuning on corrected advice, one advice."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import reduce

import torch
from jaxtyping import Int
from torch import Tensor, nn

from carelab.networks import logits, ordered_modules
from carelab.properties import OutputRegion, OutputRegions
from carelab.records import Samples
from carelab.repair.backdoor_baselines import fine_tune
from carelab.repair.safety_repair import as_classifier

__all__ = ["constant_advice", "fine_tune_advice", "nearest_safe_advice"]

Safety = OutputRegion | OutputRegions


def constant_advice(model: nn.Module, samples: Samples) -> nn.Module:
    """A network of the same layers that always gives the advice most frequent at the points.

    Its scores are the original's means, that of the advice lowered below all others.

    Args:
        model: the network, which ends with a linear layer with biases.
        samples: the points, at least one.

    Raises:
        ValueError: no point, or a network that ends with something else.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> rows = records.Samples(inputs=torch.rand(9, 2))
        >>> len(repair.constant_advice(model, rows)(rows.inputs).argmin(1).unique())
        1
    """
    _, last = ordered_modules(model)[-1]
    if len(samples) == 0 or not isinstance(last, nn.Linear) or last.bias is None:
        raise ValueError(
            f"model, samples: got {len(samples)} points and a network that ends with "
            f"{type(last).__name__}; allowed: at least one, a linear layer with biases"
        )
    scores = logits(model, samples.inputs)
    advice = int(scores.argmin(dim=1).mode().values)
    means = scores.mean(dim=0)
    means[advice] = means.min() - scores.std()
    constant = deepcopy(model)
    _, changed = ordered_modules(constant)[-1]
    assert isinstance(changed, nn.Linear)
    with torch.no_grad():
        changed.weight.zero_()
        changed.bias.copy_(means)
    return constant


def fine_tune_advice(
    model: nn.Module,
    kept: Sequence[Samples],
    violating: Samples,
    prop: Safety,
    *,
    sharpness: int = 8,
    epochs: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    progress: bool = False,
    generator: torch.Generator,
) -> nn.Module:
    """A copy trained on the advice it gives, at counterexamples on the nearest that is safe.

    All weights move down the cross entropy of softmin(2**sharpness x scores).

    Args:
        model: the controller, which ends with a linear layer; it is not changed.
        kept: groups of points whose advice is to stay.
        violating: counterexamples, labelled by `nearest_safe_advice`; never test points.
        prop: the property.
        sharpness: base-2 logarithm of the factor of the scores.
        epochs: passes through all points.
        learning_rate: step size of Adam.
        batch_size: points a step, at most.
        progress: show a bar.
        generator: draws the order of the points.

    Raises:
        ValueError: what `fine_tune` refuses.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records, repair
        >>> g, rows = torch.Generator().manual_seed(0), records.Samples(inputs=torch.rand(9, 2))
        >>> model, prop = networks.mlp(2, (3,), 3, generator=g), properties.never_lowest(0, 3)
        >>> tuned = repair.fine_tune_advice(model, [rows], rows, prop, epochs=1, generator=g)
    """
    groups = [
        Samples(inputs=one.inputs, labels=logits(model, one.inputs).argmin(dim=1)) for one in kept
    ]
    safe = nearest_safe_advice(model, violating, prop)
    groups.append(Samples(inputs=violating.inputs, labels=safe))
    tuned = fine_tune(
        as_classifier(model, sharpness),
        reduce(Samples.joined, groups),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        progress=progress,
        generator=generator,
    )
    return as_classifier(tuned, -sharpness)


def nearest_safe_advice(model: nn.Module, samples: Samples, prop: Safety) -> Int[Tensor, " batch"]:
    """The first advisory, in the order of the scores, that could be given without a violation.

    Giving it means: its score becomes the lowest, by 1, all others stay. Where no advisory helps,
    the one given.

    Args:
        model: the network, in evaluation mode.
        samples: the points.
        prop: the property.

    Example:
        >>> import torch
        >>> from carelab import properties, records, repair
        >>> model = torch.nn.Sequential(torch.nn.Identity()).eval()
        >>> prop, rows = properties.never_lowest(0, 3), torch.tensor([[1.0, 3.0, 2.0]])
        >>> repair.nearest_safe_advice(model, records.Samples(inputs=rows), prop).tolist()
        [2]
    """
    scores = logits(model, samples.inputs)
    order = scores.argsort(dim=1)
    advice, open_ = order[:, 0].clone(), torch.ones(len(scores), dtype=torch.bool)
    open_ = open_.to(scores.device)
    for place in range(scores.shape[1]):
        tried = order[:, place]
        lowered = scores.scatter(1, tried[:, None], scores.amin(dim=1, keepdim=True) - 1)
        safe = open_ & (prop.margin(lowered.unsqueeze(0), samples) > 0)
        advice[safe] = tried[safe]
        open_ &= ~safe
    return advice
