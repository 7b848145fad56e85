from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from carelab.causal.choice import ALL_LAYERS, choose_units
from carelab.causal.localizers import Localizer
from carelab.networks import hidden_neurons
from carelab.properties import Property
from carelab.records import Evidence, Neuron, Samples, Unit, UnitEffects
from tests.faults import LowLogit, backup_evidence, backup_network
from tests.tables import fairness, network, rows, seeded


def by_hand(*order: Unit) -> Localizer:
    """A localiser that always ranks the units in this order, and all others below."""

    def localize(
        model: nn.Module,
        evidence: Evidence,
        prop: Property,
        *,
        units: Sequence[Unit] | None = None,
        generator: torch.Generator,
    ) -> UnitEffects:
        chosen = tuple(hidden_neurons(model) if units is None else units)
        places = {unit: len(order) - place for place, unit in enumerate(order)}
        effect = torch.tensor([float(places.get(unit, 0)) for unit in chosen])
        return UnitEffects(
            measure="by hand",
            units=chosen,
            effect=effect,
            covariance=torch.zeros(len(chosen), len(chosen)),
            samples=0,
        )

    return localize


def hand_case() -> tuple[nn.Sequential, Evidence, Samples]:
    """The backup network, in which label 1 follows from b (through h2) and the fault from a."""
    model = backup_network()
    with torch.no_grad():
        # Logit 0 falls with b = h2 by way of a third neuron of the second layer.
        wide = nn.Linear(3, 3).double()
        wide.weight.copy_(torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))
        wide.bias.copy_(torch.tensor([0.0, -1, 0]))
        last = nn.Linear(3, 2).double()
        last.weight.copy_(torch.tensor([[0.0, 0, -1], [1, -1, 0]]))
        last.bias.copy_(torch.tensor([2.6, 2.0]))
        model.linear2, model.linear3 = wide.eval(), last.eval()
    # Logit 0 = 2.6 - b, logit 1 = 2 + fault: without it label 1 from b = 1 on, with it at b = 0.
    b = torch.tensor([0.0, 1.0] * 100, dtype=torch.float64)
    labelled = Samples(
        inputs=torch.stack([torch.zeros(200, dtype=torch.float64), b], dim=1), labels=b.long()
    )
    low, high = labelled.take(b == 0), torch.ones(100, dtype=torch.float64)
    evidence = Evidence(
        violating=Samples(inputs=torch.stack([high, low.inputs[:, 1]], dim=1)),
        references=Samples(inputs=low.inputs),
        passing=labelled,
    )
    return model, evidence, labelled


def test_the_fewest_units_that_end_the_fault_are_chosen() -> None:
    # Holding g0 at its mean over passing rows, 0, ends the fault alone; h0 and h1 only together.
    model, evidence, labelled = hand_case()
    order = [Neuron("relu1", 0), Neuron("relu1", 1), Neuron("relu2", 0)]
    choice = choose_units(
        model,
        evidence,
        LowLogit(),
        evidence.violating,
        labelled,
        localizers={"by hand": by_hand(*order)},
        generator=seeded(),
    )
    assert [candidate.layer for candidate in choice.candidates] == ["relu1", "relu2", ALL_LAYERS]
    assert choice.units == (Neuron("relu2", 0),)
    assert choice.candidates[choice.candidate].layer == "relu2"
    assert choice.point == 1
    assert choice.why.startswith("1 units of relu2 by by hand cost 0.000")
    # Removing h0 leaves every violation (cost 1), h0 and h1 none (0); h2 too takes all skill.
    torch.testing.assert_close(
        choice.candidates[0].cost, torch.tensor([1.0, 1, 0, 1], dtype=torch.float64)
    )


def test_without_a_unit_that_helps_nothing_is_chosen() -> None:
    # Only the neurons that carry the task may go: every removal costs skill and saves nothing.
    model, evidence, labelled = hand_case()
    choice = choose_units(
        model,
        evidence,
        LowLogit(),
        evidence.violating,
        labelled,
        units=[Neuron("relu1", 2), Neuron("relu2", 2)],
        localizers={"by hand": by_hand()},
        generator=seeded(),
    )
    assert choice.units == ()
    assert choice.point == 0


def test_costs_of_doing_nothing_and_of_removing_everything() -> None:
    model, prop, data = network(seed=3), fairness(), rows(300)
    with torch.no_grad():
        labels = model(data.inputs).argmax(dim=1)
    labelled = Samples(inputs=data.inputs, labels=labels)
    evidence = Evidence(violating=data, references=data, passing=data)
    choice = choose_units(model, evidence, prop, data, labelled, generator=seeded())
    for candidate in choice.candidates:
        assert candidate.cost[0] == 1
        assert bool((candidate.cost_error > 0).all())
    everything = choice.candidates[-1]
    # A constant network names one class: all violations are gone, and all skill or more.
    assert everything.layer == ALL_LAYERS
    assert float(everything.cost[-1]) >= 1
    lowest = min(float(candidate.cost.min()) for candidate in choice.candidates)
    best = choice.candidates[choice.best_candidate]
    chosen = choice.candidates[choice.candidate]
    assert float(best.cost[choice.best_point]) == lowest
    limit = lowest + float(best.cost_error[choice.best_point])
    assert float(chosen.cost[choice.point]) <= limit
    fewest = min(
        int(count)
        for candidate in choice.candidates
        for count, cost in zip(candidate.curve.counts, candidate.cost, strict=True)
        if float(cost) <= limit
    )
    assert len(choice.units) == fewest


def test_several_localizers_compete() -> None:
    model, evidence, labelled = hand_case()
    choice = choose_units(
        model,
        evidence,
        LowLogit(),
        evidence.violating,
        labelled,
        localizers={
            "blind": by_hand(Neuron("relu1", 2), Neuron("relu2", 2)),
            "sighted": by_hand(Neuron("relu2", 0)),
        },
        generator=seeded(),
    )
    assert len(choice.candidates) == 6
    assert choice.candidates[choice.candidate].localizer == "sighted"


def test_misuse() -> None:
    evidence = backup_evidence()
    given_samples = (backup_network(), evidence, LowLogit())
    with pytest.raises(ValueError, match="localizers: got none"):
        choose_units(
            *given_samples, evidence.violating, evidence.passing, localizers={}, generator=seeded()
        )
    with pytest.raises(ValueError, match="violating: got selection samples of which none"):
        choose_units(*given_samples, evidence.passing, evidence.passing, generator=seeded())
