"""The samples of one frontier run, and the measures of anything that labels them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from carelab.data import crossed_rows, sample_box
from carelab.lab.tasks import FairnessTask
from carelab.networks import predict
from carelab.properties import GroupFairness, demographic_parity, equalized_odds
from carelab.records import Samples
from carelab.repair import Anchors, Objective, blind_targets, edited_share, hold_constant

__all__ = ["Bench", "FrontierPoint", "measured_point", "prepare_bench"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierPoint:
    """One network on the trade-off; rates are fractions, measured on test rows and a fresh box.

    Args:
        method: how it was made, such as "ours".
        knob: the setting that moves along the trade-off, as text.
        accuracy: of the test rows, those classified right.
        accuracy_drop: accuracy of the network given, minus that.
        unfair_rate_rows: of the test rows, those whose label flips with the sensitive feature.
        unfair_rate_box: the same of inputs drawn uniformly from the feature box.
        edited_share: hidden neurons edited, as a fraction; 1 where a model is trained anew.
        demographic_parity_gap: fairlearn's difference between the groups, on the test rows.
        equalized_odds_gap: the same for equalised odds.
        predictions_changed: of the test rows, those whose label differs from before.
        selection_drop: accuracy drop on the selection rows, which choose.
        selection_rows: unfair rate on the selection rows.
        selection_box: unfair rate on a box of its own, drawn for choosing.
    """

    method: str
    knob: str
    accuracy: float
    accuracy_drop: float
    unfair_rate_rows: float
    unfair_rate_box: float
    edited_share: float
    demographic_parity_gap: float
    equalized_odds_gap: float
    predictions_changed: float
    selection_drop: float
    selection_rows: float
    selection_box: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Bench:
    """What the repairs of one run see, what chooses among them, and what measures them.

    Args:
        case: the network, its data and its property.
        repair_box: inputs drawn from the feature box for the repairs.
        selection_box: others, for choosing.
        test_box: others, for measuring.
        targets: class probabilities of the network with the sensitive feature averaged out.
        anchors: these targets on training rows, on rows crossed from them, and on the box.
        selection_anchors: the same on selection rows and box, for choosing.
        blind: the network with the sensitive feature held constant.
    """

    case: FairnessTask
    repair_box: Samples
    selection_box: Samples
    test_box: Samples
    targets: Callable[[Tensor], Tensor]
    anchors: tuple[Anchors, ...]
    selection_anchors: tuple[Anchors, ...]
    blind: nn.Module

    def objective(self, violation: float, labels: float) -> Objective:
        """The objective of all gradient repairs, for given weights of violations and labels."""
        train = self.case.dataset.train
        return Objective(
            prop=self.case.property,
            labelled=train,
            guarded=[train, self.repair_box],
            anchors=self.anchors,
            accuracy=labels,
            violation=violation,
        )


def prepare_bench(case: FairnessTask, box: int, *, generator: torch.Generator) -> Bench:
    """The samples and targets of one run.

    Args:
        case: the network, its data and its property.
        box: inputs drawn from the feature box, for repair, choice and measurement each.
        generator: draws everything.

    Example:
        >>> import torch
        >>> from carelab.lab.frontier_bench import prepare_bench
        >>> from carelab.lab.tasks import fairness_task
        >>> g = torch.Generator().manual_seed(0)
        >>> bench = prepare_bench(fairness_task("embedded-credit", generator=g), 9, generator=g)
        >>> len(bench.test_box)
        9
    """
    boxes = [sample_box(case.dataset, box, generator=generator) for _ in range(3)]
    train = case.dataset.train
    targets = blind_targets(case.model, train, case.property, generator=generator)
    groups = (train, crossed_rows(train, 2 * box, generator=generator), boxes[0])

    def anchored(*samples: Samples) -> tuple[Anchors, ...]:
        return tuple(Anchors(inputs=s.inputs, chances=targets(s.inputs)) for s in samples)

    return Bench(
        case=case,
        repair_box=boxes[0],
        selection_box=boxes[1],
        test_box=boxes[2],
        targets=targets,
        anchors=anchored(*groups),
        selection_anchors=anchored(case.dataset.selection, boxes[1]),
        blind=hold_constant(case.model, train, case.property),
    )


def measured_point(
    bench: Bench,
    method: str,
    knob: str,
    judged: nn.Module | Callable[[Tensor], Tensor],
    *,
    edited: float | None = None,
) -> FrontierPoint:
    """All measures of a network, or of anything that gives labels.

    Args:
        bench: the samples.
        method: how it was made.
        knob: its setting, as text.
        judged: a network, or a function from inputs to labels.
        edited: share of the neurons edited; by default counted (`edited_share`).

    Example:
        >>> import torch
        >>> from carelab.lab.frontier_bench import measured_point, prepare_bench
        >>> from carelab.lab.tasks import fairness_task
        >>> g = torch.Generator().manual_seed(0)
        >>> bench = prepare_bench(fairness_task("embedded-credit", generator=g), 9, generator=g)
        >>> measured_point(bench, "hold_constant", "", bench.blind).unfair_rate_box
        0.0
    """
    case = bench.case
    test, selection = case.dataset.test, case.dataset.selection
    label = partial(predict, judged) if isinstance(judged, nn.Module) else judged
    given = partial(predict, case.model)
    feature = case.dataset.feature(case.feature)
    if edited is None:
        assert isinstance(judged, nn.Module)
        edited = edited_share(case.model, judged)
    right = _right(label, test)
    return FrontierPoint(
        method=method,
        knob=knob,
        accuracy=right,
        accuracy_drop=_right(given, test) - right,
        unfair_rate_rows=_flips(label, test, bench),
        unfair_rate_box=_flips(label, bench.test_box, bench),
        edited_share=edited,
        demographic_parity_gap=_gap(label, test, demographic_parity(test, feature), bench),
        equalized_odds_gap=_gap(label, test, equalized_odds(test, feature), bench),
        predictions_changed=float((label(test.inputs) != given(test.inputs)).double().mean()),
        selection_drop=_right(given, selection) - _right(label, selection),
        selection_rows=_flips(label, selection, bench),
        selection_box=_flips(label, bench.selection_box, bench),
    )


def _outputs(label: Callable[[Tensor], Tensor], inputs: Tensor, bench: Bench) -> Tensor:
    """Labels as outputs (batch, classes) that properties can judge: 1 for the label, else 0."""
    classes = len(bench.case.dataset.classes)
    return torch.nn.functional.one_hot(label(inputs), classes).to(inputs)


def _right(label: Callable[[Tensor], Tensor], samples: Samples) -> float:
    assert samples.labels is not None
    return float((label(samples.inputs) == samples.labels).double().mean())


def _flips(label: Callable[[Tensor], Tensor], samples: Samples, bench: Bench) -> float:
    probes = bench.case.property.probes(samples.inputs)
    outputs = _outputs(label, probes.flatten(0, 1), bench).unflatten(0, probes.shape[:2])
    return float(bench.case.property.rate(outputs, samples))


def _gap(
    label: Callable[[Tensor], Tensor], samples: Samples, groups: GroupFairness, bench: Bench
) -> float:
    return float(groups.rate(_outputs(label, samples.inputs, bench)[None], samples))
