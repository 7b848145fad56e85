"""Scenes of networks that must stay out of unsafe output regions."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.data import AcasXu, uniform_points
from carelab.networks import logits
from carelab.properties import (
    OutputRegion,
    OutputRegions,
    Property,
    region_box,
    safety_samples,
)
from carelab.records import Evidence, Samples
from carelab.show.explorer.portraits import check_showable
from carelab.show.explorer.scenes import Scene, kept_gauge, lowest, violation_gauge
from carelab.show.explorer.slices import SliceSide

__all__ = ["safety_scene"]

_EVIDENCE = 500
_KEPT = 1000


def safety_scene(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    controller: AcasXu | None = None,
    *,
    domain: tuple[Float[Tensor, " features"], Float[Tensor, " features"]] | None = None,
    features: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
    rows: int = 2000,
    evidence: int = _EVIDENCE,
    title: str = "",
    generator: torch.Generator,
) -> Scene:
    """Safety: unseen counterexamples and the whole domain are read out.

    Args:
        model: a sequential network in evaluation mode, whose lowest output is its answer.
        prop: the unsafe regions, with one finite box.
        controller: where the network is one of ACAS Xu: its domain, names and units.
        domain: smallest and largest inputs; needed without a controller.
        features: what each input is, where there is no controller.
        classes: what each output stands for, where there is no controller.
        rows: unseen counterexamples, unseen satisfying points and points of the domain of the
            read-outs, at most so many of each.
        evidence: counterexamples and satisfying points that effects and repair see, at most.
        title: what the explorer is headed with.
        generator: draws points and drives the hunt for counterexamples.

    Raises:
        ValueError: a network that cannot be explored, or for which no counterexample was found.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import safety_scene
        >>> g = torch.Generator().manual_seed(0)
        >>> model = cl.networks.mlp(2, (8,), 3, generator=g)
        >>> rule = cl.properties.never_lowest(0, 3, low=-torch.ones(2), high=torch.ones(2))
        >>> scene = safety_scene(model, rule, rows=50, evidence=50, generator=g)
        >>> [gauge.label for gauge in scene.gauges]
        ['counterexamples left', 'safe points broken', 'advice as before']
    """
    check_showable(model)
    low, high = _domain(prop, controller, domain)
    found = safety_samples(
        model,
        prop,
        violating=(evidence, 0, rows),
        satisfying=(evidence, 0, rows),
        generator=generator,
    )
    seen, unseen = found.repair, found.test
    if len(seen.violating) < 2 or len(unseen.violating) == 0 or len(seen.satisfying) == 0:
        raise ValueError(
            f"model: {len(found.violating.points)} counterexamples to {prop.name} and "
            f"{len(found.satisfying.points)} points that satisfy it were found; allowed: a "
            "network with some of both, or there is nothing to explore"
        )
    everywhere = uniform_points(low, high, rows, generator=generator)
    kept = uniform_points(low, high, _KEPT, generator=generator).joined(seen.satisfying)
    count = min(len(seen.violating), len(seen.satisfying))
    names = controller.features if controller is not None else features
    if not names:
        names = tuple(f"input {at + 1}" for at in range(len(low)))
    outputs = logits(model, everywhere.inputs)
    advisories = controller.advisories if controller is not None else classes
    if not advisories:
        advisories = tuple(str(at) for at in range(outputs.shape[1]))
    box_low, box_high = region_box(prop)
    return Scene(
        title=title or (controller.name if controller is not None else prop.name),
        note="" if controller is None else f"{controller.name}, {controller.source}",
        model=model,
        prop=prop,
        gauges=(
            violation_gauge(unseen.violating, prop, label="counterexamples left"),
            replace(
                violation_gauge(unseen.satisfying, prop, label="safe points broken"),
                name="broken",
            ),
            kept_gauge(
                everywhere,
                lowest(outputs),
                label="advice as before",
                answer=lowest,
            ),
        ),
        evidence=Evidence(
            violating=seen.violating.take(slice(0, count)),
            references=seen.satisfying.take(slice(0, count)),
            passing=seen.satisfying,
        ),
        curves=seen.violating,
        keep=Samples(inputs=kept.inputs, labels=lowest(logits(model, kept.inputs))),
        answer=lowest,
        side=SliceSide(
            prop=prop,
            features=names,
            classes=advisories,
            low=_wider(box_low, box_high, low, high)[0],
            high=_wider(box_low, box_high, low, high)[1],
            point=_worst(model, seen.violating, prop),
            axes=(1, 0) if len(names) > 1 else (0, 0),
            normalisation=None if controller is None else controller.normalisation,
        ),
        alpha=0.7,
        factor_bounds=(-2.0, 4.0),
    )


def _domain(
    prop: OutputRegion | OutputRegions,
    controller: AcasXu | None,
    domain: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    if controller is not None:
        return controller.low, controller.high
    return region_box(prop) if domain is None else domain


def _wider(
    low: Tensor, high: Tensor, lowest_seen: Tensor, highest_seen: Tensor
) -> tuple[Tensor, Tensor]:
    """The box with a margin around it, within the domain."""
    margin = (high - low) * 0.25
    return (
        torch.maximum(low - margin, lowest_seen.to(low)).float(),
        torch.minimum(high + margin, highest_seen.to(high)).float(),
    )


def _worst(model: nn.Module, samples: Samples, prop: Property) -> Float[Tensor, " features"]:
    """The counterexample that violates most: a plane through it shows the unsafe region."""
    outputs = logits(model, samples.inputs)
    return samples.inputs[prop.margin(outputs[None], samples).argmin()]
