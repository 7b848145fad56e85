from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from carelab.causal import expectation_mean, guilty_neurons, neuron_effects
from carelab.networks import accuracy, fingerprint
from carelab.properties import observed_violations
from carelab.records import Neuron, Performance, Repair, Samples
from carelab.repair import Compromise, apply_repair, care, choose_alpha, scale_neurons
from tests.tables import fairness, network, rows, seeded


def model() -> nn.Sequential:
    """Label 1 where any of three inputs is on; each has a neuron of its own."""
    made = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    with torch.no_grad():
        made[0].weight.copy_(torch.eye(3))
        made[2].weight.copy_(torch.tensor([[0, 0, 0], [1, 1, 1]]))
        made[2].bias.copy_(torch.tensor([0.5, 0]))
    return made


def selection() -> Samples:
    """Ten rows: input i is on in i + 1 of them, so silencing neuron i costs (i + 1) / 10."""
    on = torch.eye(3).double()[[0, 1, 1, 2, 2, 2]]
    labels = torch.tensor([1] * 6 + [0] * 4)
    return Samples(inputs=torch.cat([on, torch.zeros(4, 3).double()]), labels=labels)


def silence(neurons: Sequence[int], violations: float) -> Repair:
    """The repair that silences these neurons, said to leave so many violations."""
    given, chosen = model(), tuple(Neuron("1", neuron) for neuron in neurons)
    factors = torch.zeros(len(chosen))
    repaired, edits = scale_neurons(given, chosen, factors)
    return Repair(
        method="by hand",
        property_name="none",
        neurons=chosen,
        factors=factors,
        before=Performance(accuracy=1.0, violation_rate=1.0),
        after=Performance(accuracy=0.0, violation_rate=violations),
        history=torch.zeros(1),
        seconds=0.0,
        seed=0,
        network=fingerprint(given),
        repaired=fingerprint(repaired),
        edits=edits,
        status="improved",
    )


def choose(*found: Repair, largest_drop: float) -> Compromise:
    """The choice among these repairs, which the search gives for alpha = 0, 1, ..."""
    search: Callable[[float], Repair] = lambda alpha: found[int(alpha)]  # noqa: E731
    alphas = [float(number) for number in range(len(found))]
    return choose_alpha(model(), selection(), search, alphas=alphas, largest_drop=largest_drop)


def test_fewest_violations_among_those_that_cost_little() -> None:
    dear, cheap, cheapest = silence([2], 0.0), silence([1], 0.1), silence([0], 0.5)
    chosen = choose(dear, cheap, cheapest, largest_drop=0.25)
    assert chosen.drops == pytest.approx((0.3, 0.2, 0.1))
    assert chosen.repair is cheap
    assert (chosen.chosen, chosen.alpha) == (1, 1.0)
    assert chosen.repairs == (dear, cheap, cheapest)
    assert choose(dear, cheap, cheapest, largest_drop=0.15).repair is cheapest
    assert choose(dear, cheap, cheapest, largest_drop=1).repair is dear


@pytest.mark.parametrize(("neuron", "drop"), [(0, 0.1), (1, 0.2), (2, 0.3)])
def test_a_repair_that_costs_just_what_it_may_is_cheap(neuron: int, drop: float) -> None:
    # In floats 1 - 0.7 is above 0.3.
    assert choose(silence([neuron], 0.1), silence([], 0.2), largest_drop=drop).chosen == 0


def test_the_most_accurate_one_where_none_is_cheap() -> None:
    repairs = silence([1, 2], 0.0), silence([0, 1], 0.9), silence([2, 0], 0.1)
    chosen = choose(*repairs, largest_drop=0.02)
    assert chosen.drops == pytest.approx((0.5, 0.3, 0.4))
    assert chosen.chosen == 1


def test_equally_fair_repairs_are_told_by_accuracy_then_by_order() -> None:
    repairs = silence([2], 0.2), silence([0], 0.2), silence([0], 0.2)
    assert choose(*repairs, largest_drop=1).chosen == 1
    assert choose(silence([1], 0.3), silence([1], 0.2), largest_drop=0).chosen == 0


def test_a_gain_in_accuracy_is_cheap_even_where_nothing_may_be_lost() -> None:
    wrong = Samples(inputs=torch.eye(3).double(), labels=torch.tensor([0, 1, 1]))
    found = [silence([0], 0.4), silence([], 0.5)]
    chosen = choose_alpha(
        model(), wrong, lambda alpha: found[int(alpha)], alphas=[0, 1], largest_drop=0
    )
    assert chosen.drops == pytest.approx((-1 / 3, 0))
    assert chosen.chosen == 0


def test_the_repairs_of_a_real_search_with_several_weights() -> None:
    given_model, fair, train, held_out = network(seed=3), fairness(count=5), rows(200), rows(99)
    given = observed_violations(given_model, train, fair)
    guilty = guilty_neurons(expectation_mean(neuron_effects(given_model, given, fair)), count=4)
    before, asked = fingerprint(given_model), []

    def search(alpha: float) -> Repair:
        asked.append(alpha)
        return care(
            given_model, train, given, fair, guilty, alpha=alpha, iterations=8, generator=seeded(5)
        )

    chosen = choose_alpha(given_model, held_out, search, alphas=[0.1, 0.5, 0.9], largest_drop=0.05)
    assert chosen.alphas == tuple(asked) == (0.1, 0.5, 0.9)
    assert fingerprint(given_model) == before
    costs = [
        accuracy(given_model, held_out) - accuracy(apply_repair(given_model, repair), held_out)
        for repair in chosen.repairs
    ]
    assert chosen.drops == tuple(costs)
    left = [repair.after.violation_rate for repair in chosen.repairs]
    cheap = [rate for rate, cost in zip(left, costs, strict=True) if cost <= 0.05]
    assert cheap
    assert chosen.repair.after.violation_rate == min(cheap)


def test_misuse() -> None:
    with pytest.raises(ValueError, match=r"got \[\], 0.02; allowed: at least one alpha"):
        choose(largest_drop=0.02)
    for drop in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=f"got .*, {drop}; allowed: .* a drop of 0 or more"):
            choose(silence([0], 0.0), largest_drop=drop)
    unlabelled = Samples(inputs=selection().inputs)
    with pytest.raises(ValueError, match="labels"):
        choose_alpha(model(), unlabelled, lambda alpha: silence([0], 0.0), alphas=[0.5])
    with pytest.raises(ValueError, match="fingerprint"):
        choose_alpha(network(3), rows(20, 3), lambda alpha: silence([0], 0.0), alphas=[0.5])
