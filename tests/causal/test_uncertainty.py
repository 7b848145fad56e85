from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from carelab.causal import (
    ablation_effects,
    activations,
    average_causal_effect,
    bootstrap_interval,
    confidence_interval,
    expectation_drop,
    first_probe_values,
    inseparable_groups,
    mean_contrasts,
    neuron_effects,
    patching_effects,
    rank_units,
    resampled_activation,
    score_falls,
    unmodified_outcome,
    zero_activation,
)
from carelab.causal.uncertainty import streamed_mean
from carelab.networks import hidden_neurons
from carelab.records import Neuron, Samples, UnitEffects
from tests.tables import fairness, network, rows, seeded

DRAWS = 400
ROWS = 100
FEWER_DRAWS = 200  # where one takes longer


def units(count: int) -> tuple[Neuron, ...]:
    return tuple(Neuron("relu1", index) for index in range(count))


def effects(
    numbers: list[float], covariance: list[list[float]] | float = 0.0, samples: int = 1000
) -> UnitEffects:
    effect = torch.tensor(numbers, dtype=torch.float64)
    return UnitEffects(
        measure="test",
        units=units(len(numbers)),
        effect=effect,
        covariance=torch.eye(len(numbers), dtype=torch.float64) * covariance
        if isinstance(covariance, float)
        else torch.tensor(covariance, dtype=torch.float64),
        samples=samples,
    )


def tolerance(draws: int) -> float:
    """3.5 standard deviations of a binomial share that is nominally 95 %."""
    return 3.5 * (0.95 * 0.05 / draws) ** 0.5


def space() -> Samples:
    """All 125 inputs of three features of five values each."""
    values = torch.arange(5.0, dtype=torch.float64)
    return Samples(inputs=torch.cartesian_prod(values, values, values))


def drawn(draw: int) -> Samples:
    """Rows of the space, independent and uniform."""
    everything = space()
    picked = torch.randint(len(everything), (ROWS,), generator=seeded(draw))
    return everything.take(picked)


MODEL = network(features=3, widths=(4, 3), seed=5)
FAIR = fairness()


@pytest.fixture(scope="module")
def patched() -> list[UnitEffects]:
    """Effects of patching, from 400 draws of 100 samples."""
    return [patching_effects(MODEL, drawn(draw), FAIR) for draw in range(DRAWS)]


def covered(truth: torch.Tensor, estimates: list[UnitEffects]) -> torch.Tensor:
    """Share of the draws whose 95 % interval holds the truth, for each unit that varies."""
    inside = torch.zeros(len(truth))
    for one in estimates:
        low, high = confidence_interval(one)
        inside += ((low <= truth) & (truth <= high)).float()
    varies = torch.stack([one.standard_error for one in estimates]).amax(dim=0) > 1e-9
    assert int(varies.sum()) >= 5
    return (inside / len(estimates))[varies]


def test_intervals_of_patching_cover_the_truth_as_often_as_they_say(
    patched: list[UnitEffects],
) -> None:
    truth = patching_effects(MODEL, space(), FAIR).effect
    assert bool(((covered(truth, patched) - 0.95).abs() <= tolerance(DRAWS)).all())


def test_intervals_of_ablation_cover_the_truth_as_often_as_they_say() -> None:
    truth = ablation_effects(MODEL, space(), FAIR, replacement=zero_activation).effect
    found = [
        ablation_effects(MODEL, drawn(draw), FAIR, replacement=zero_activation)
        for draw in range(FEWER_DRAWS)
    ]
    assert bool(((covered(truth, found) - 0.95).abs() <= tolerance(FEWER_DRAWS)).all())


def test_intervals_of_resampling_cover_the_truth_as_often_as_they_say() -> None:
    # The truth: all inputs, each with the values of every background row.
    background = rows(20, features=3, seed=9)

    def row(number: int) -> Callable[..., torch.Tensor]:
        recorded = activations(MODEL, background.inputs, ["relu1", "relu2"])
        return lambda units, before, where: torch.stack(
            [recorded[unit.layer][number, unit.index] for unit in units]
        )[:, None]

    truth = ablation_effects(
        MODEL, space(), FAIR, replacement=[row(number) for number in range(20)]
    )
    found = []
    for draw in range(FEWER_DRAWS):
        replacement = resampled_activation(MODEL, background, draws=2, generator=seeded(draw))
        found.append(ablation_effects(MODEL, drawn(draw), FAIR, replacement=replacement))
    assert bool(((covered(truth.effect, found) - 0.95).abs() <= tolerance(FEWER_DRAWS)).all())


def test_intervals_of_the_ace_cover_the_truth_as_often_as_they_say() -> None:
    everything = space()
    truth, _ = average_causal_effect(
        neuron_effects(MODEL, everything, FAIR, steps=3), baseline=unmodified_outcome
    )
    drop = expectation_drop(neuron_effects(MODEL, everything, FAIR, steps=3)).effect
    student = float(stats.t.isf(0.025, ROWS - 1))
    inside, varies, drops = torch.zeros_like(truth), torch.zeros_like(truth), []
    for draw in range(FEWER_DRAWS):
        curves = neuron_effects(MODEL, drawn(draw), FAIR, steps=3, range_samples=everything)
        ace, error = average_causal_effect(curves, baseline=unmodified_outcome)
        inside += (ace - truth).abs() <= student * error
        varies += error > 1e-9
        drops.append(expectation_drop(curves))
    shares = (inside / FEWER_DRAWS)[varies > 0]
    assert len(shares) >= 15
    assert bool(((shares - 0.95).abs() <= tolerance(FEWER_DRAWS)).all())
    assert bool(((covered(drop, drops) - 0.95).abs() <= tolerance(FEWER_DRAWS)).all())


def test_sets_of_ranks_hold_the_true_ranks_at_least_as_often_as_they_say(
    patched: list[UnitEffects],
) -> None:
    truth = patching_effects(MODEL, space(), FAIR).effect
    best = 1 + (truth[None, :] > truth[:, None] + 1e-12).sum(dim=1)
    worst = len(truth) - (truth[None, :] < truth[:, None] - 1e-12).sum(dim=1)
    inside = torch.zeros(len(truth))
    narrower = 0
    for one in patched:
        ranks = rank_units(one, simultaneous=True)
        loose = rank_units(one)
        assert loose.units == ranks.units
        assert bool((ranks.first <= loose.first).all())
        assert bool((ranks.last >= loose.last).all())
        order = [one.units.index(unit) for unit in ranks.units]
        inside[order] += ((ranks.first <= best[order]) & (worst[order] <= ranks.last)).float()
        narrower += int((ranks.last - ranks.first < len(truth) - 1).sum())
    assert float((inside / DRAWS).min()) >= 0.95 - tolerance(DRAWS)
    assert narrower > 0.5 * DRAWS * len(truth)


def test_equal_units_are_told_apart_as_seldom_as_promised_one_by_one() -> None:
    # Two units of equal mean, correlated; 5 % of the draws may tell them apart.
    wrong = 0
    for draw in range(2 * DRAWS):
        shared = torch.randn(40, generator=seeded(draw), dtype=torch.float64)
        own = torch.randn(2, 40, generator=seeded(10_000 + draw), dtype=torch.float64)
        ranks = rank_units(mean_contrasts("test", units(2), [3 * shared + own]))
        wrong += ranks.last.tolist() == [1, 2]
    assert wrong / (2 * DRAWS) == pytest.approx(0.05, abs=tolerance(2 * DRAWS))


def test_pairing_separates_what_single_intervals_do_not() -> None:
    # Both swing widely together, the first is .1 above the second at every sample but for .05.
    shared = 10 * torch.randn(50, generator=seeded(), dtype=torch.float64)
    noise = 0.05 * torch.randn(2, 50, generator=seeded(1), dtype=torch.float64)
    shift = torch.tensor([[0.1], [0.0]], dtype=torch.float64)
    found = mean_contrasts("test", units(2), [shared + noise + shift])
    low, high = confidence_interval(found)
    assert bool((low <= found.effect.flip(0)).all() and (found.effect.flip(0) <= high).all())
    ranks = rank_units(found)
    assert ranks.first.tolist() == ranks.last.tolist() == [1, 2]


def test_ranks_by_hand() -> None:
    # Errors of 1 each and none shared: differences have an error of 1.41 and are sure from 2.77
    # on (1000 samples). 9 stands alone, 4 and 2 are within reach, 0 is below 4 but not below 2.
    found = effects([2.0, 9.0, 0.0, 4.0], 1.0)
    ranks = rank_units(found)
    assert [unit.index for unit in ranks.units] == [1, 3, 0, 2]
    assert ranks.guilt.tolist() == [9.0, 4.0, 2.0, 0.0]
    assert ranks.standard_error.tolist() == [1.0] * 4
    assert ranks.first.tolist() == [1, 2, 2, 3]
    assert ranks.last.tolist() == [1, 3, 4, 4]
    assert ranks.level == 0.95
    groups = [[unit.index for unit in group] for group in inseparable_groups(found)]
    assert groups == [[1], [3, 0], [2]]
    assert inseparable_groups(found, most=1) == ((Neuron("relu1", 1),),)
    # Three comparisons a unit: sure from 1.41 x 2.40 = 3.39 on. 4 and 0 are still apart; at 99 %
    # from 1.41 x 2.94 = 4.16 on they are not.
    assert rank_units(found, simultaneous=True).last.tolist() == [1, 3, 4, 4]
    assert rank_units(found, level=0.99, simultaneous=True).last.tolist() == [1, 4, 4, 4]


def test_ties_keep_their_order_and_cannot_be_told_apart() -> None:
    ranks = rank_units(effects([1.0, 2.0, 1.0, 2.0]))
    assert [unit.index for unit in ranks.units] == [1, 3, 0, 2]
    assert ranks.first.tolist() == [1, 1, 3, 3]
    assert ranks.last.tolist() == [2, 2, 4, 4]
    one = rank_units(effects([1.0]))
    assert (one.first.tolist(), one.last.tolist()) == ([1], [1])


def test_twins_cannot_be_told_apart_whatever_rounding_says() -> None:
    values = torch.randn(1, 60, generator=seeded(), dtype=torch.float64)
    third = (values * 3) / 3
    ranks = rank_units(mean_contrasts("test", units(3), [torch.cat([values, third, values + 1])]))
    assert ranks.first.tolist() == [1, 2, 2]
    assert ranks.last.tolist() == [1, 3, 3]


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9))
def test_laws_of_rankings(seed: int, count: int) -> None:
    generator = seeded(seed)
    values = torch.randn(count, 12, generator=generator, dtype=torch.float64)
    values += torch.randn(count, 1, generator=generator, dtype=torch.float64)
    found = mean_contrasts("test", units(count), [values])
    ranks = rank_units(found)
    place = torch.arange(1, count + 1)
    assert bool((ranks.first <= place).all() and (place <= ranks.last).all())
    assert bool((ranks.guilt.diff() <= 0).all())
    assert sorted(ranks.units) == list(found.units)
    groups = inseparable_groups(found)
    assert sorted(unit for group in groups for unit in group) == list(found.units)
    assert groups[0][0] == ranks.units[0]
    order = torch.randperm(count, generator=generator)
    mixed = mean_contrasts("test", [found.units[row] for row in order.tolist()], [values[order]])
    assert rank_units(mixed).units == ranks.units
    assert torch.equal(rank_units(mixed).first, ranks.first)
    assert torch.equal(rank_units(mixed).last, ranks.last)


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 5000), max_size=3))
def test_means_do_not_depend_on_the_blocks(seed: int, cuts: list[int]) -> None:
    values = 1e6 + torch.randn(3, 5001, generator=seeded(seed), dtype=torch.float64)
    ends = sorted({*cuts, 5001})
    blocks = [values[:, a:b] for a, b in zip([0, *ends], ends, strict=False)]
    mean, covariance, samples = streamed_mean(blocks)
    assert samples == 5001
    torch.testing.assert_close(mean, values.mean(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(covariance, torch.cov(values) / 5001, rtol=1e-7, atol=1e-12)


def test_a_large_ranking_is_quick_enough_to_be_used() -> None:
    values = torch.randn(1568, 300, generator=seeded())
    ranks = rank_units(mean_contrasts("test", units(1568), [values]))
    assert len(ranks.units) == 1568


def test_student_by_hand() -> None:
    # Values 1 and 3: mean 2, error 1; Student's t of one degree of freedom at 95 % is 12.706.
    one = mean_contrasts("test", units(1), [torch.tensor([[1.0, 3.0]])])
    low, high = confidence_interval(one)
    assert (float(low), float(high)) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    low, high = confidence_interval(effects([5.0], 4.0, samples=11), level=0.9)
    reach = 2 * stats.t.ppf(0.95, 10)
    assert (float(low), float(high)) == pytest.approx((5 - reach, 5 + reach))


def test_bootstrap_of_a_mean_is_the_interval_of_the_mean() -> None:
    values = torch.rand(1, 400, generator=seeded(), dtype=torch.float64)
    low, high = confidence_interval(mean_contrasts("test", units(1), [values]))
    found = bootstrap_interval(
        values, lambda table: table[..., 0, :].mean(axis=-1), generator=seeded(1)
    )
    assert found == pytest.approx((float(low), float(high)), abs=0.004)


def test_bootstrap_covers_a_ratio_of_means_and_keeps_variables_paired() -> None:
    # The second is twice the first but for noise: the ratio of the means is 2, and sure.
    inside, widths = 0, []
    for draw in range(100):
        first = 1 + torch.rand(60, generator=seeded(draw), dtype=torch.float64)
        noise = 0.1 * torch.randn(60, generator=seeded(1000 + draw), dtype=torch.float64)
        low, high = bootstrap_interval(
            torch.stack([first, 2 * first + noise]),
            lambda table: table[..., 1, :].mean(axis=-1) / table[..., 0, :].mean(axis=-1),
            resamples=400,
            generator=seeded(2000 + draw),
        )
        inside += low <= 2 <= high
        widths.append(high - low)
    assert inside >= 87
    assert np.mean(widths) < 0.05  # unpaired it would be .2


def test_bootstrap_takes_the_falls_of_a_network_and_repeats_itself() -> None:
    model, samples = network(), rows(80)
    falls = torch.cat(
        [
            fall
            for _, fall in score_falls(
                model, samples, fairness(), hidden_neurons(model), first_probe_values
            )
        ],
        dim=1,
    )

    def widest(table: np.ndarray) -> np.ndarray:
        means = table.mean(axis=-1)
        return means.max(axis=-1) - means.min(axis=-1)

    one = bootstrap_interval(falls, widest, resamples=300, generator=seeded())
    two = bootstrap_interval(falls, widest, resamples=300, generator=seeded())
    assert one == two
    assert one[0] < one[1]


def test_misuse() -> None:
    found = effects([1.0, 2.0], 1.0)
    for level in (0.0, 1.0, 95.0):
        for use in (confidence_interval, rank_units, inseparable_groups):
            with pytest.raises(ValueError, match=f"level: got {level}; allowed: a fraction"):
                use(found, level=level)
        with pytest.raises(ValueError, match=f"level: got {level}; allowed: a fraction"):
            bootstrap_interval(torch.rand(1, 5), np.median, level=level, generator=seeded())
    broken = effects([1.0, float("nan")], 1.0)
    for use in (rank_units, inseparable_groups):
        with pytest.raises(ValueError, match="effects: test is not finite for some unit"):
            use(broken)
    with pytest.raises(ValueError, match="most: got 0 groups"):
        inseparable_groups(found, most=0)
    with pytest.raises(ValueError, match="samples: got 1; allowed: at least 2"):
        mean_contrasts("test", units(2), [torch.rand(2, 1)])
    with pytest.raises(ValueError, match="samples: got 0; allowed: at least 2"):
        mean_contrasts("test", units(2), [])
    with pytest.raises(ValueError, match="blocks: got 3 rows for 2 units"):
        mean_contrasts("test", units(2), [torch.rand(3, 4)])
    with pytest.raises(ValueError, match="values, resamples: got 1 samples, 2000"):
        bootstrap_interval(torch.rand(1, 1), np.median, generator=seeded())
    with pytest.raises(ValueError, match="statistic: has no interval"):
        bootstrap_interval(
            torch.ones(1, 9), lambda table: table[..., 0, :].mean(axis=-1), generator=seeded()
        )
