import pytest
import torch

from carelab.data import adult, bank, compas, german
from carelab.data.layouts import ADULT_COLUMNS, COMPAS_COLUMNS
from carelab.data.raw import _compas_frame, _frame
from carelab.records import Dataset, Samples
from tests.data.real_files import needs

ADULT_LINE = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, "
    "Male, 2174, 0, 40, United-States, <=50K\n"
)


def labels(part: Samples) -> torch.Tensor:
    assert part.labels is not None
    return part.labels


def meanings(dataset: Dataset, part: Samples, name: str) -> list[str]:
    """What the one-hot code of a feature means, row by row."""
    feature = dataset.feature(name)
    codes = part.inputs[:, list(feature.columns)].argmax(dim=1)
    return [feature.labels[code] for code in codes.tolist()]


def check_soundness(dataset: Dataset) -> None:
    width = dataset.train.inputs.shape[1]
    assert [c for f in dataset.features for c in f.columns] == list(range(width))
    for part in (dataset.train, dataset.selection, dataset.test):
        assert part.inputs.dtype == torch.float32
        assert part.inputs.isfinite().all()
        assert labels(part).unique().tolist() == [0, 1]
    for name in dataset.sensitive:
        assert len(dataset.feature(name).values) >= 2
    for feature in dataset.features:
        assert feature.continuous == (len(feature.columns) == 1)
        assert len(feature.labels) == len(feature.values) <= 42


@needs("adult")
def test_adult() -> None:
    census = adult(generator=torch.Generator().manual_seed(0))
    check_soundness(census)
    # adult.names: 32561 and 16281 rows; the share above 50K of all rows is 23.93 %.
    assert len(census.train) + len(census.selection) == 32561
    assert len(census.test) == 16281
    positive = sum(int(labels(p).sum()) for p in (census.train, census.selection, census.test))
    assert positive / 48842 == pytest.approx(0.2393, abs=5e-5)
    assert census.sensitive == ("age", "race", "sex")
    # The first rows of adult.test: 25 Private ... Black Male, 38 Private ... White Male.
    assert meanings(census, census.test, "race")[:2] == ["Black", "White"]
    assert meanings(census, census.test, "workclass")[:5].count("?") == 1  # the fifth row
    names = {feature.name for feature in census.features}
    assert names == set(ADULT_COLUMNS) - {"education", "fnlwgt", "income"}


@needs("german")
def test_german() -> None:
    credit = german(generator=torch.Generator().manual_seed(0))
    check_soundness(credit)
    parts = (credit.train, credit.selection, credit.test)
    assert [len(part) for part in parts] == [600, 200, 200]
    assert sum(int(labels(part).sum()) for part in parts) == 700  # german.doc: 700 good
    # german.data: A92 (women) occurs 310 times, A95 never; A93 (single men) 548 times.
    sexes = [sex for part in parts for sex in meanings(credit, part, "sex")]
    assert sexes.count("female") == 310
    status = [one for part in parts for one in meanings(credit, part, "marital_status")]
    assert status.count("single") == 548
    men = {one for one, sex in zip(status, sexes, strict=True) if sex == "male"}
    assert men == {"single", "married or formerly"}  # so a flipped woman can be in the table


@needs("bank")
def test_bank() -> None:
    clients = bank(generator=torch.Generator().manual_seed(0))
    check_soundness(clients)
    parts = (clients.train, clients.selection, clients.test)
    assert sum(len(part) for part in parts) == 45211
    assert sum(int(labels(part).sum()) for part in parts) == 5289  # bank-names.txt
    assert len(clients.features) == 16
    assert clients.sensitive == ("age",)


@needs("compas")
def test_compas() -> None:
    people = compas(generator=torch.Generator().manual_seed(0))
    check_soundness(people)
    parts = (people.train, people.selection, people.test)
    # ProPublica's analysis: 6172 rows, 3175 African-American, 2809 charged again.
    assert sum(len(part) for part in parts) == 6172
    races = [race for part in parts for race in meanings(people, part, "race")]
    assert races.count("African-American") == 3175
    assert sum(int(labels(part).sum()) for part in parts) == 2809


@needs("german")
def test_the_split_follows_the_generator() -> None:
    one, two, other = (
        german(generator=torch.Generator().manual_seed(seed)).train.inputs for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_adult_line_by_hand() -> None:
    frame = _frame(ADULT_LINE, ADULT_COLUMNS, file="adult.data")
    assert frame["age"].tolist() == [39.0]
    assert frame["occupation"].tolist() == ["Adm-clerical"]
    assert frame["income"].tolist() == ["<=50K"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("State-gov", "Pirate", "adult.data, line 2, column workclass: got 'Pirate'; allowed: Pri"),
        ("39", "old", "adult.data, line 2, column age: got 'old'; allowed: a finite number"),
        ("2174, ", "", r"adult.data, line 2: got 14 columns; allowed: 15 \(age to income\)"),
    ],
)
def test_damaged_adult_line(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _frame(ADULT_LINE + ADULT_LINE.replace(old, new), ADULT_COLUMNS, file="adult.data")


def compas_text(*rows: str) -> str:
    header = [*COMPAS_COLUMNS, "days_b_screening_arrest", "is_recid", "score_text", "age"]
    return "\n".join([",".join(header), *rows]) + "\n"


def test_compas_filter_by_hand() -> None:
    kept = "30,Male,Other,0,0,0,2,F,1,-30,1,Low,99"
    frame = _compas_frame(
        compas_text(
            kept,
            kept.replace(",-30,", ",31,"),  # screened too late
            kept.replace(",-30,", ",,"),  # no arrest
            kept.replace(",1,Low", ",-1,Low"),  # no record of what came after
            kept.replace(",F,", ",O,"),  # an ordinary traffic offence
            kept.replace("Low", "N/A"),  # no score
        ),
        file="compas",
    )
    assert list(frame.columns) == list(COMPAS_COLUMNS)
    assert len(frame) == 1
    assert frame["age"].tolist() == [30.0]  # the first of the two columns of that name


def test_compas_header_without_a_column() -> None:
    text = compas_text("30,Male,Other,0,0,0,2,F,1,-30,1,Low,99").replace("race", "rice")
    with pytest.raises(ValueError, match="compas, line 1: no column race"):
        _compas_frame(text, file="compas")
