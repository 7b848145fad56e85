import pytest
import torch

from carelab.properties import (
    drop_rows,
    guided_violations,
    observed_violations,
    random_violations,
    violates,
    violation_rate,
)
from carelab.records import Samples
from tests.tables import fairness, network, rows, seeded, table


def test_observed_are_exactly_the_violating_rows() -> None:
    model, samples, fair = network(seed=3), rows(200), fairness(count=5)
    found = observed_violations(model, samples, fair)
    assert 0 < len(found) < len(samples)
    assert len(found) == int(violates(model, samples, fair).sum())
    assert found.labels is not None


@pytest.mark.parametrize("search", ["random", "guided"])
def test_what_is_found_violates_is_distinct_and_lies_in_the_box(search: str) -> None:
    model, data, fair = network(seed=3), table(), fairness(count=5)
    if search == "random":
        found = random_violations(model, data, fair, 40, block=300, generator=seeded())
    else:
        found = guided_violations(model, data.train, data, fair, 40, generator=seeded())
    assert len(found) == 40
    assert violation_rate(model, found, fair) == 1.0
    assert len(found.inputs.unique(dim=0)) == 40
    assert set(found.inputs.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert found.inputs.dtype == torch.float64


def test_guided_search_finds_more_than_its_seeds() -> None:
    # Seeds that do not violate at all: whatever is found was walked to.
    model, data, fair = network(seed=3), table(), fairness(count=5)
    calm = data.train.take(~violates(model, data.train, fair))
    found = guided_violations(model, calm, data, fair, 30, generator=seeded())
    assert len(found) == 30
    assert len(drop_rows(found, calm)) == 30


def test_same_seed_same_instances() -> None:
    model, data, fair = network(seed=3), table(), fairness(count=5)
    one, two = (
        guided_violations(model, data.train, data, fair, 30, generator=seeded(7)) for _ in range(2)
    )
    assert torch.equal(one.inputs, two.inputs)


def test_a_fair_network_yields_none() -> None:
    model, data, fair = network(), table(), fairness()
    with torch.no_grad():
        model.linear1.weight[:, 1] = 0
    for found in (
        observed_violations(model, data.train, fair),
        random_violations(model, data, fair, 5, most_draws=500, generator=seeded()),
        guided_violations(model, data.train, data, fair, 5, generator=seeded()),
    ):
        assert len(found) == 0


def test_drop_rows() -> None:
    samples = rows(50)
    assert len(drop_rows(samples, samples)) == 0
    assert len(drop_rows(samples, Samples(inputs=samples.inputs + 10))) == 50


def test_misuse() -> None:
    model, data, fair = network(), table(), fairness()
    with pytest.raises(ValueError, match="seeds, count: got 0, 5"):
        guided_violations(model, data.train.take(slice(0, 0)), data, fair, 5, generator=seeded())
    with pytest.raises(ValueError, match="0 < step <= 1"):
        guided_violations(model, data.train, data, fair, 5, step=0.0, generator=seeded())
    with pytest.raises(ValueError, match="count, most_draws, block: got 0"):
        random_violations(model, data, fair, 0, generator=seeded())
    with pytest.raises(ValueError, match="this network takes 4"):
        guided_violations(model, rows(3, features=5), data, fair, 5, generator=seeded())
