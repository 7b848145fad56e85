from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.causal.kill_curves import (
    KillCurve,
    kill_curve,
    passing_means,
    rank_overlap,
    reference_means,
    removed_performance,
    zeros,
)
from carelab.networks import accuracy, cnn, hidden_neurons
from carelab.properties import violation_rate
from carelab.records import Evidence, Neuron, Samples, UnitEffects, WholeLayer
from tests.faults import LowLogit, backup_evidence, backup_network
from tests.tables import fairness, network, rows, seeded

H0, H1, H2 = (Neuron("relu1", index) for index in range(3))
G0, G1 = (Neuron("relu2", index) for index in range(2))


def ranked(values: list[float], units: tuple[Neuron, ...] = (H0, H1, H2)) -> UnitEffects:
    effect = torch.tensor(values, dtype=torch.float64)
    return UnitEffects(
        measure="by hand",
        units=units,
        effect=effect,
        covariance=torch.zeros(len(values), len(values), dtype=torch.float64),
        samples=9,
    )


def test_by_hand() -> None:
    # Logit 1 = min(1, h0 + h1) against 0.5. With a = 1 it is 1 while h0 or h1 is left, and 0
    # when both are 0: all six violate until the second removal. All labels are 0: the violating
    # rows are classified wrong until then, the passing ones right always.
    evidence = backup_evidence()
    labelled = Samples(
        inputs=torch.cat([evidence.violating.inputs, evidence.passing.inputs]),
        labels=torch.zeros(12, dtype=torch.long),
    )
    curve = kill_curve(
        backup_network(), [H2, H0, H1], evidence, LowLogit(), evidence.violating, labelled
    )
    assert curve.counts.tolist() == [0, 1, 2, 3]
    assert curve.violation_rate.tolist() == [1, 1, 1, 0]
    assert curve.accuracy.tolist() == [0.5, 0.5, 0.5, 1]
    assert curve.changed.tolist() == [0, 0, 0, 0.5]
    assert (curve.violating, curve.labelled) == (6, 12)
    # Trapezoids of width 1 over 3: (1 + 1 + 1/2) / 3 and (1/2 + 1/2 + 3/4) / 3.
    assert curve.area == pytest.approx(2.5 / 3)
    assert curve.accuracy_area == pytest.approx(1.75 / 3)


def test_a_better_order_has_a_smaller_area() -> None:
    evidence = backup_evidence()
    areas = [
        kill_curve(
            backup_network(), order, evidence, LowLogit(), evidence.violating, evidence.passing
        ).area
        for order in ([H0, H1, H2], [H0, H2, H1])
    ]
    assert areas[0] < areas[1]


def test_what_removed_units_are_held_at() -> None:
    # Over the passing rows h0 = 0 and h2 = b + 1 has mean 3.5; over the references b has 2.5.
    model, evidence = backup_network(), backup_evidence()
    assert zeros(model, evidence, [H0, H2]) == {H0: 0.0, H2: 0.0}
    means = passing_means(model, evidence, [H0, H2])
    assert (float(means[H0]), float(means[H2])) == (0, 3.5)
    assert float(reference_means(model, evidence, [H2])[H2]) == 2.5


def test_means_of_channels_positions_and_layers_keep_their_place() -> None:
    model = cnn((1, 4, 4), (3,), (5,), 2, generator=seeded()).double()
    images = Samples(inputs=torch.rand(6, 1, 4, 4, generator=seeded(1)).double())
    evidence = Evidence(violating=images, references=images, passing=images)
    maps = model.relu1(model.conv1(images.inputs)).detach().mean(dim=0)
    channel, position = Neuron("relu1", 1), Neuron("relu1", 2, (0, 3))
    means = passing_means(model, evidence, [channel, position, WholeLayer("relu1")])
    torch.testing.assert_close(means[channel], maps[1])
    torch.testing.assert_close(means[position], maps[2, 0, 3])
    torch.testing.assert_close(means[WholeLayer("relu1")], maps)
    held = removed_performance(
        model,
        means,
        LowLogit(),
        images,
        Samples(inputs=images.inputs, labels=torch.zeros(6, dtype=torch.long)),
    )
    assert held.violation_rate in {0.0, 1.0}  # all images give the same outputs now


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_nothing_removed_is_the_network_itself_and_all_removed_is_a_constant(seed: int) -> None:
    model, prop, data = network(seed=seed), fairness(), rows(40, seed=seed)
    evidence = Evidence(violating=data, references=data, passing=data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curve = kill_curve(model, hidden_neurons(model), evidence, prop, data, data)
    assert curve.violation_rate[0] == pytest.approx(violation_rate(model, data, prop))
    assert curve.accuracy[0] == pytest.approx(accuracy(model, data))
    assert curve.violation_rate[-1] == 0
    shares = [float((data.labels == label).double().mean()) for label in (0, 1)]
    assert any(float(curve.accuracy[-1]) == pytest.approx(share) for share in shares)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_counts_are_all_at_first_and_then_wider() -> None:
    model, data = network(widths=(40, 30)), rows(5)
    evidence = Evidence(violating=data, references=data, passing=data)
    units = hidden_neurons(model)
    counts = kill_curve(model, units, evidence, fairness(), data, data).counts.tolist()
    assert counts[:33] == list(range(33))
    assert counts[-1] == 70
    assert len(counts) < 45
    chosen = kill_curve(model, units, evidence, fairness(), data, data, counts=[3, 9])
    assert chosen.counts.tolist() == [3, 9]


def test_a_curve_of_one_point() -> None:
    curve = KillCurve(
        units=(H0,),
        counts=torch.tensor([1]),
        violation_rate=torch.tensor([0.25]),
        accuracy=torch.tensor([0.75]),
        changed=torch.tensor([0.0]),
        violating=4,
        labelled=4,
    )
    assert (curve.area, curve.accuracy_area) == (0.25, 0.75)


def test_overlap_by_hand() -> None:
    # Orders 0 1 2, 1 0 2 and 2 1 0: of three pairs one is swapped, then all three. The units of
    # the last ranking come in another order.
    found = rank_overlap(
        {
            "a": ranked([3, 2, 1]),
            "b": ranked([2, 3, 1]),
            "c": ranked([3, 2, 1], units=(H2, H1, H0)),
            "flat": ranked([1, 1, 1]),
        },
        count=2,
    )
    assert found.names == ("a", "b", "c", "flat")
    assert found.shared.tolist()[0] == [1, 1, 0.5, 1]
    torch.testing.assert_close(
        found.correlation[0], torch.tensor([1, 1 / 3, -1, 0], dtype=torch.float64)
    )
    assert torch.equal(found.correlation, found.correlation.T)
    assert torch.equal(found.shared, found.shared.T)


def test_misuse() -> None:
    model, evidence = backup_network(), backup_evidence()
    given_samples = (evidence, LowLogit(), evidence.violating, evidence.passing)
    with pytest.raises(ValueError, match="units: got 0"):
        kill_curve(model, [], *given_samples)
    with pytest.raises(ValueError, match="units: got 2; allowed: at least one, and each only"):
        kill_curve(model, [H0, H0], *given_samples)
    for counts in ([0, 2], [1, 1], [-1], []):
        with pytest.raises(ValueError, match="counts: got"):
            kill_curve(model, [H0], *given_samples, counts=counts)
    unlabelled = Samples(inputs=evidence.passing.inputs)
    with pytest.raises(ValueError, match="labelled: got samples without labels"):
        kill_curve(model, [H0], evidence, LowLogit(), evidence.violating, unlabelled)
    with pytest.raises(ValueError, match="count: got 4 of 3 units"):
        rank_overlap({"a": ranked([1, 2, 3])}, count=4)
    with pytest.raises(ValueError, match="got no ranking"):
        rank_overlap({}, count=1)
    with pytest.raises(ValueError, match="b ranks other units than a"):
        rank_overlap({"a": ranked([1, 2, 3]), "b": ranked([1, 2], units=(H0, H1))}, count=1)
    with pytest.raises(ValueError, match="references: got 5 for 6"):
        Evidence(
            violating=evidence.violating,
            references=evidence.references.take(slice(0, 5)),
            passing=evidence.passing,
        )
    with pytest.raises(ValueError, match="violating, passing: got 6 and 0"):
        Evidence(
            violating=evidence.violating,
            references=evidence.references,
            passing=evidence.passing.take(slice(0, 0)),
        )
