from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import from_table, sample_box
from carelab.records import Dataset, Samples


def people(rows: int = 20) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": np.arange(rows) * 1.5 + 20,
            "job": (["clerk", "?", "smith"] * rows)[:rows],
            "married": ([True, False] * rows)[:rows],
            "good": ([0, 1, 1] * rows)[:rows],
        }
    )


def dataset(table: pd.DataFrame, seed: int = 0, **knobs: Any) -> Dataset:
    given_knobs = {"sensitive": ["married"], **knobs}
    return from_table(table, "good", generator=torch.Generator().manual_seed(seed), **given_knobs)


def all_rows(made: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    parts: list[Samples] = [made.train, made.selection, made.test]
    labels = [part.labels for part in parts if part.labels is not None]
    return torch.cat([part.inputs for part in parts]), torch.cat(labels)


def test_coding_by_hand() -> None:
    made = dataset(people())
    assert [(f.name, f.columns, f.continuous) for f in made.features] == [
        ("age", (0,), True),
        ("job", (1, 2, 3), False),
        ("married", (4, 5), False),
    ]
    assert made.feature("job").labels == ("?", "clerk", "smith")
    assert made.feature("married").labels == ("False", "True")
    assert made.classes == ("0", "1")
    inputs, labels = all_rows(made)
    assert (len(made.train), len(made.selection), len(made.test)) == (12, 4, 4)
    assert inputs.dtype == torch.float32
    # The rows come back from their codes: age by its order, job and label by row number modulo 3.
    order = inputs[:, 0].argsort()
    jobs = inputs[order, 1:4].argmax(dim=1)
    assert jobs.tolist() == ([1, 0, 2] * 7)[:20]
    assert labels[order].tolist() == ([0, 1, 1] * 7)[:20]
    assert inputs[order, 5].tolist() == [1.0, 0.0] * 10


def test_numbers_are_standardised_by_the_training_rows_only() -> None:
    made = dataset(people(100))
    ages = made.train.inputs[:, 0].double()
    torch.testing.assert_close(ages.mean(), torch.zeros((), dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        ages.std(correction=0), torch.ones((), dtype=torch.float64), atol=1e-6, rtol=0
    )
    held_out = made.test.inputs[:, 0]
    assert abs(float(held_out.mean())) > 1e-3  # would be 0 with statistics of its own


def test_values_are_observed_quantiles_in_standard_units() -> None:
    made = dataset(people(100))
    age, ages = made.feature("age"), made.train.inputs[:, 0]
    values = age.values.squeeze(1)
    assert len(values) == len(age.labels) == 16
    assert torch.isin(values, ages).all()
    assert (values[0], values[-1]) == (ages.min(), ages.max())
    assert (values.diff() > 0).all()
    # A uniform column: the quantiles are about evenly spaced in rank, 59 / 15 = 3.9 rows apart.
    ranks = torch.searchsorted(ages.sort().values, values)
    assert ranks.diff().min() >= 3
    assert ranks.diff().max() <= 5
    labels = torch.tensor([float(label) for label in age.labels])
    scale = (labels[-1] - labels[0]) / (values[-1] - values[0])
    torch.testing.assert_close(
        labels - labels[0], (values - values[0]) * scale, rtol=1e-4, atol=1e-3
    )


def test_few_distinct_numbers_are_all_values() -> None:
    table = people().assign(age=[1, 2, 3, 4] * 5)
    assert dataset(table).feature("age").labels == ("1", "2", "3", "4")


def test_kinds_can_be_given() -> None:
    table = people().assign(age=[0, 1] * 10)
    assert not dataset(table).feature("age").continuous
    assert dataset(table, continuous=["age"]).feature("age").continuous
    coded = dataset(table, categories={"age": [1, 0, 2]}).feature("age")
    assert coded.labels == ("1", "0", "2")
    assert coded.columns == (0, 1, 2)


def test_constant_column_is_zero() -> None:
    made = dataset(people().assign(age=7.0), continuous=["age"])
    assert made.train.inputs[:, 0].eq(0).all()
    assert made.feature("age").values.tolist() == [[0.0]]


def test_own_test_table() -> None:
    table, held_out = people(40), people(10).assign(age=1000.0)
    made = dataset(table, test=held_out)
    assert (len(made.train), len(made.selection), len(made.test)) == (30, 10, 10)
    assert (made.test.inputs[:, 0] > made.train.inputs[:, 0].max()).all()
    assert made.test.labels is not None
    assert made.test.labels.tolist() == held_out["good"].tolist()


def test_provenance() -> None:
    made = dataset(people())
    again = dataset(people(), seed=1)
    other = dataset(people().assign(age=lambda frame: frame["age"] + 1))
    assert made.sha256 == again.sha256 != other.sha256
    assert len(made.sha256) == 64
    named = dataset(people(), name="people", source="a form", sha256="f" * 64, licence="CC0")
    assert (named.name, named.source, named.licence) == ("people", "a form", "CC0")
    assert named.sha256 == "f" * 64


def test_table_is_left_alone() -> None:
    table = people()
    dataset(table)
    pd.testing.assert_frame_equal(table, people())


@given(seed=st.integers(0, 100), rows=st.integers(10, 60))
@settings(max_examples=25, deadline=None)
def test_features_cover_every_column_once_and_every_row_is_one_hot(seed: int, rows: int) -> None:
    made = dataset(people(rows), seed)
    inputs, labels = all_rows(made)
    assert len(inputs) == len(labels) == rows
    columns = [column for feature in made.features for column in feature.columns]
    assert columns == list(range(inputs.shape[1]))
    drawn = sample_box(made, 50, generator=torch.Generator().manual_seed(seed)).inputs
    for rows_of in (inputs, drawn):
        for feature in made.features:
            block = rows_of[:, list(feature.columns)]
            if not feature.continuous:
                assert block.sum(dim=1).eq(1).all()
                assert torch.isin(block, torch.tensor([0.0, 1.0])).all()


@pytest.mark.parametrize(
    ("change", "knobs", "message"),
    [
        ({"age": [None, *range(19)]}, {}, "table: row 0, column 'age' holds nan"),
        ({"job": ["a", None] * 10}, {}, r"table: row 1, column 'job' holds (None|nan)"),
        ({"age": [*range(19), np.inf]}, {}, "row 19, column 'age' holds inf"),
        ({"good": [1, 2] * 10}, {}, r"label: column 'good' holds \[1, 2\]; allowed: integers 0 to"),
        ({"good": [0, 2] * 10}, {}, r"label: column 'good' holds \[0, 2\]"),
        ({"good": [0.5, 1] * 10}, {}, "label: column 'good' holds"),
        ({"good": ["0", "1"] * 10}, {}, "label: column 'good' holds"),
        ({"good": [1] * 20}, {}, "of at least two classes"),
        ({"good": [0, 3] * 10}, {"classes": ["a", "b", "c"]}, "holds 3; allowed: integers 0 to 2"),
        ({}, {"sensitive": ["race"]}, r"got \['race'\]; allowed: \['age', 'job', 'married'\]"),
        ({}, {"sensitive": ["good"]}, r"got \['good'\]"),
        ({}, {"sensitive": []}, "allowed: at least one"),
        ({}, {"sensitive": ["age", "age"]}, "each once"),
        ({}, {"continuous": ["job"]}, "continuous: got 'job'; allowed: columns of numbers"),
        ({}, {"categories": {"job": ["clerk", "?"]}}, "column 'job' holds 'smith'; allowed: clerk"),
        ({}, {"categories": {"job": ["?", "?"]}}, "for 'job'; allowed: at least one value"),
        ({}, {"categories": {"jobs": ["clerk"]}}, r"got \['jobs'\]"),
        ({}, {"test": people().assign(age="old")}, "test: column 'age' holds numbers in one table"),
        ({}, {"test": people(9)}, "test: got 9 rows; allowed: at least 10"),
        ({}, {"test": people().drop(columns="job")}, r"test: got columns \['age', 'married'"),
        ({}, {"test": people().assign(job="monk"), "categories": {"job": ["?", "clerk", "smith"]}},
         "row 0, column 'job' holds 'monk'"),
    ],
)  # fmt: skip
def test_unfit_tables(change: dict[str, Any], knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(people().assign(**change), **knobs)


def test_too_few_rows_and_bad_columns() -> None:
    with pytest.raises(ValueError, match="table: got 9 rows; allowed: at least 10"):
        dataset(people(9))
    with pytest.raises(ValueError, match="label: got 'bad'; allowed: one of"):
        from_table(people(), "bad", sensitive=["age"], generator=torch.Generator())
    twice = pd.concat([people(), people()[["age"]]], axis=1)
    with pytest.raises(ValueError, match="allowed: strings, each once"):
        dataset(twice)
    with pytest.raises(ValueError, match="allowed: strings, each once"):
        dataset(people().rename(columns={"age": 0}))
