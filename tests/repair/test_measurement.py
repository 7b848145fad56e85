import dataclasses

import pytest
import torch
from torch import nn

from carelab.networks import fingerprint, hidden_neurons, predict
from carelab.properties import IndividualFairness, violates
from carelab.records import Dataset, Feature, Samples
from carelab.repair import FairnessTrial, fairness_trial, measure_fairness, scale_neurons
from tests.tables import fairness, network, rows, seeded, table

SEX = Feature(name="sex", columns=(2,), values=torch.tensor([[0.0], [1.0]]).double())
FAIR = IndividualFairness(columns=(2,), values=SEX.values, name="fairness of sex")
TRAIN, SELECTION, TEST = 0.0, 5.0, 10.0  # the mark that the rows of each part carry


def threshold(sex_weight: float = 0.5) -> nn.Sequential:
    """Label 1 where x + w sex > 0.75; with w = 0.5 it flips for 0.25 < x <= 0.75 only."""
    model = nn.Sequential(nn.Linear(3, 2)).double().eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0, 0, 0], [0, 1, sex_weight]]))
        model[0].bias.copy_(torch.tensor([0, -0.75]))
    return model


def samples(*given: tuple[float, int, int], mark: float = TEST) -> Samples:
    """Rows (mark, x, sex) with their label, from triples (x, sex, label)."""
    return Samples(
        inputs=torch.tensor([(mark, x, sex) for x, sex, _ in given]).double(),
        labels=torch.tensor([label for *_, label in given]),
    )


def marked_table(count: int = 200) -> Dataset:
    """A table whose first column, which the network ignores, tells the part of each row."""
    generator = seeded(7)
    x = torch.rand(3, count, generator=generator).double()
    sex = torch.randint(0, 2, (3, count), generator=generator).double()
    parts = [
        Samples(
            inputs=torch.stack([torch.full_like(x[part], mark), x[part], sex[part]], dim=1),
            labels=(x[part] > 0.5).long(),
        )
        for part, mark in enumerate((TRAIN, SELECTION, TEST))
    ]
    ends = torch.tensor([[0.0], [1.0]]).double()
    return dataclasses.replace(
        table(),
        features=(
            Feature(name="mark", columns=(0,), values=10 * ends, continuous=True),
            Feature(name="x", columns=(1,), values=ends, continuous=True),
            SEX,
        ),
        sensitive=("sex",),
        train=parts[0],
        selection=parts[1],
        test=parts[2],
    )


def contents(found: Samples) -> set[tuple[float, ...]]:
    return {tuple(row) for row in found.inputs.tolist()}


def test_given_come_from_training_rows_and_fresh_from_test_rows() -> None:
    made = marked_table()
    trial = fairness_trial(threshold(), made, FAIR, instances=60, box=50, generator=seeded())
    train, test = contents(made.train), contents(made.test)
    assert not contents(trial.given) & test
    assert not contents(trial.fresh) & train
    # A third are rows as they are, and the guided search keeps a column the network ignores.
    assert len(contents(trial.given) & train) >= 20
    assert len(contents(trial.fresh) & test) >= 20
    marks = {name: getattr(trial, name).inputs[:, 0] for name in ("given", "fresh")}
    assert int((marks["given"] == TRAIN).sum()) > 20
    assert int((marks["fresh"] == TEST).sum()) > 20
    for name, other in (("given", TEST), ("fresh", TRAIN)):
        assert not bool((marks[name] == other).any())
        # The last third are draws from the box, where a mark is neither.
        assert int(((marks[name] > TRAIN) & (marks[name] < TEST)).sum()) == 20


def test_all_instances_violate_each_is_there_once_and_none_is_both_given_and_fresh() -> None:
    # Few codes: the same rows are drawn for both, so that only leaving out keeps them apart.
    model, made, fair = network(seed=3), table(count=400), fairness(count=5)
    trial = fairness_trial(model, made, fair, instances=90, box=30, generator=seeded())
    for found in (trial.given, trial.fresh):
        assert bool(violates(model, found, fair).all())
        assert len(contents(found)) == len(found)
    assert not contents(trial.given) & contents(trial.fresh)
    loose = contents(made.train.take(violates(model, made.train, fair)))
    assert loose & contents(made.test), "the parts share rows, or this would prove nothing"


def test_the_repair_sees_training_rows_and_the_measurement_test_rows() -> None:
    made = marked_table()
    trial = fairness_trial(
        threshold(), made, FAIR, instances=9, box=50, repair_rows=30, generator=seeded()
    )
    assert len(trial.repair) == len(contents(trial.repair)) == 30
    assert contents(trial.repair) <= contents(made.train)
    assert trial.repair.labels is not None
    assert trial.repair.labels.tolist() == (trial.repair.inputs[:, 1] > 0.5).long().tolist()
    assert trial.rows is made.test
    assert len(trial.box) == 50
    assert trial.box.labels is None
    whole = fairness_trial(threshold(), made, FAIR, instances=9, box=1, generator=seeded())
    assert len(whole.repair) == len(made.train)


def test_the_generator_decides_the_samples() -> None:
    made = marked_table()

    def trial(seed: int) -> list[torch.Tensor]:
        drawn = fairness_trial(
            threshold(), made, FAIR, instances=30, box=20, generator=seeded(seed)
        )
        fields = dataclasses.fields(drawn)
        return [getattr(drawn, field.name).inputs for field in fields if field.name != "rows"]

    assert all(map(torch.equal, trial(1), trial(1)))
    assert not any(map(torch.equal, trial(1), trial(2)))


def hand_made_trial() -> FairnessTrial:
    return FairnessTrial(
        repair=samples((0.5, 0, 0), mark=TRAIN),
        # flip:        yes          yes          yes          no
        given=samples((0.5, 0, 0), (0.3, 1, 0), (0.7, 0, 0), (0.9, 1, 0), mark=TRAIN),
        # flip:        yes          no           no           no           no
        fresh=samples((0.3, 0, 0), (0.8, 0, 0), (0.9, 1, 0), (0.1, 1, 0), (0.2, 0, 0)),
        rows=samples(
            # label predicted, and whether it flips
            (0.1, 0, 1),  # 0, no
            (0.5, 0, 0),  # 0, yes
            (0.9, 0, 1),  # 1, no
            (0.5, 0, 1),  # 0, yes
            (0.1, 1, 0),  # 0, no
            (0.5, 1, 1),  # 1, yes
            (0.6, 1, 0),  # 1, yes
            (0.9, 1, 1),  # 1, no
        ),
        # flip:      yes          no           no
        box=samples((0.6, 0, 0), (0.2, 1, 0), (0.8, 0, 0)),
    )


def test_every_measure_by_hand() -> None:
    model = threshold()
    measures = measure_fairness(model, model, hand_made_trial(), FAIR, SEX)
    assert dataclasses.asdict(measures) == pytest.approx(
        {
            "accuracy": 5 / 8,
            "unfair_rate_given": 3 / 4,
            "unfair_rate_fresh": 1 / 5,
            "unfair_rate_rows": 4 / 8,
            "unfair_rate_box": 1 / 3,
            "demographic_parity_gap": 3 / 4 - 1 / 4,
            # True positives: 1 of 3 without, 2 of 2 with; false positives: 0 of 1, 1 of 2.
            "equalized_odds_gap": 1 - 1 / 3,
            "predictions_changed": 0,
        }
    )


def test_a_network_that_ignores_the_feature_by_hand() -> None:
    measures = measure_fairness(threshold(0), threshold(), hand_made_trial(), FAIR, SEX)
    assert dataclasses.asdict(measures) == pytest.approx(
        {
            "accuracy": 5 / 8,  # label 1 for 0.9 only: wrong in rows 1, 4 and 6
            "unfair_rate_given": 0,
            "unfair_rate_fresh": 0,
            "unfair_rate_rows": 0,
            "unfair_rate_box": 0,
            "demographic_parity_gap": 0,
            "equalized_odds_gap": 1 / 2 - 1 / 3,
            "predictions_changed": 2 / 8,  # rows 6 and 7
        }
    )


def test_predictions_changed_counts_the_rows_a_repaired_copy_labels_otherwise() -> None:
    model, made, fair = network(seed=3), table(), fairness(count=5)
    with torch.no_grad():
        model[-1].bias[1] += 1e-3  # no row on the boundary itself, where rounding decides
    trial = fairness_trial(model, made, fair, instances=30, box=20, generator=seeded())
    before = fingerprint(model)
    neurons = hidden_neurons(model)[:4]
    repaired, _ = scale_neurons(model, neurons, torch.zeros(4))
    after = fingerprint(repaired)
    measures = measure_fairness(repaired, model, trial, fair, made.feature("feature1"))
    differ = sum(
        int(predict(model, row[None])) != int(predict(repaired, row[None]))
        for row in made.test.inputs
    )
    assert 0 < differ < len(made.test)
    assert measures.predictions_changed == differ / len(made.test)
    assert (fingerprint(model), fingerprint(repaired)) == (before, after)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"instances": 2}, "got 2, 20000, 5000; allowed: at least 3, 1, 1"),
        ({"box": 0}, "got 1000, 0, 5000"),
        ({"repair_rows": 0}, "got 1000, 20000, 0"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"instances, box, repair_rows: {message}"):
        fairness_trial(threshold(), marked_table(), FAIR, **sizes, generator=seeded())


def test_a_network_without_discriminatory_instances_is_refused() -> None:
    message = "model: no discriminatory instance was found for fairness of sex"
    with pytest.raises(ValueError, match=message):
        fairness_trial(threshold(0), marked_table(50), FAIR, instances=9, generator=seeded())


def test_a_network_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="got 4 features; this network takes 3"):
        fairness_trial(threshold(), table(), FAIR, instances=9, generator=seeded())
    wide = dataclasses.replace(hand_made_trial(), given=rows(5))
    with pytest.raises(ValueError, match="got 4 features; this network takes 3"):
        measure_fairness(threshold(), threshold(), wide, FAIR, SEX)
