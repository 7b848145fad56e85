"""What a user sees of bad input: one clear sentence, and nothing written."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import carelab as cl
from carelab.lab.command_line import main
from carelab.lab.fairness import fairness_run
from carelab.lab.folders import checkout
from carelab.lab.tasks import fairness_task
from tests.tables import fairness, network, rows, seeded, table

NOTEBOOK = checkout() / "notebooks" / "10_fairness.ipynb"
CREDIT = Path("fairness_adf", "datasets", "credit_sample")


@pytest.fixture
def _no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_args: object, **_knobs: object) -> None:
        pytest.fail("a kernel was started")

    monkeypatch.setattr("carelab.lab.runs._execute", start)


@pytest.fixture
def data_folder(empty_data_folder: Path) -> Path:
    """The folder that the files of the credit data go to."""
    (empty_data_folder / CREDIT.parent).mkdir(parents=True)
    return empty_data_folder


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, message: str) -> None:
    """The command failed with this one line on the error stream, and said nothing else."""
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("_no_kernel")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("task", "census-height", "task: got 'census-height'; allowed: one of census-age, "),
        ("network", "best", "network: got 'best'; allowed: one of default, published, trained"),
        ("k", 500, "k: got 500; allowed: 1 to 124"),
        ("k", 0, "k: got 0; allowed: 1 to 124"),
        ("k", 2.5, "k: got 2.5 (float); allowed: int"),
        ("alpha", "[0.9, 1.1]", "alpha: got 1.1; allowed: 0 to 1"),
        ("largest_drop", -0.1, "largest_drop: got -0.1; allowed: 0 to 1"),
        ("instances", 2, "instances: got 2; allowed: 3 to "),
        ("seeds", 3, "seeds: got 3 (int); allowed: list[int]"),
        ("seeds", "[-1]", "seeds: got -1; allowed: 0 to "),
        ("device", "cuda", "device: got 'cuda'; allowed: one of cpu"),
        ("neurons", 3, "neurons: no parameter of this notebook; it has: task, network, k, "),
    ],
)
def test_a_parameter_that_is_not_allowed(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    result = command("run", NOTEBOOK, "-p", name, value, "--out", tmp_path / "out")
    refused(result, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_no_kernel")
def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("kept")
    refused(
        command("run", NOTEBOOK, "--out", in_the_way / "out"),
        f"out_dir: cannot write to {in_the_way / 'out'} (",
    )
    refused(
        command("report", "--figures", tmp_path, "--out", in_the_way / "page.html"),
        f"out_dir: cannot write to {in_the_way} (",
    )
    refused(command("demo", "--out", in_the_way / "out"), "out_dir: cannot write to ")
    with pytest.raises(OSError, match="out_dir: cannot write to"):
        cl.lab.save("result", None, {}, out_dir=in_the_way)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert in_the_way.read_text() == "kept"


def test_results_that_are_not_there_or_broken(tmp_path: Path) -> None:
    page = tmp_path / "pages" / "page.html"
    refused(command("report", "--figures", tmp_path, "--out", page), "figures: no result file")
    (tmp_path / "broken.json").write_text('{"results": ')
    refused(
        command("report", "--figures", tmp_path, "--out", page),
        f"figures: {tmp_path / 'broken.json'} is no JSON",
    )
    assert not page.exists()


def test_a_task_and_a_count_that_do_not_exist_from_python() -> None:
    with pytest.raises(ValueError, match="task: got 'census-height'; allowed: census-age, "):
        fairness_run("census-height", seed=0)
    given = cl.properties.observed_violations(network(), rows(300), fairness(count=5))
    effects = cl.causal.neuron_effects(network(), given, fairness(count=5))
    with pytest.raises(ValueError, match="got 500 guilty neurons of 14; allowed: 1 to 14"):
        cl.causal.guilty_neurons(cl.causal.expectation_drop(effects), count=500)


def people() -> pd.DataFrame:
    ages = [float(age) for age in range(20, 40)]
    return pd.DataFrame({"age": ages, "sex": ["f", "m"] * 10, "good": [0, 0, 1, 1] * 5})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_table_with_a_hole(value: float) -> None:
    frame = people()
    frame.loc[7, "age"] = value
    with pytest.raises(ValueError, match=r"table: row 7, column 'age' holds (nan|inf|-inf);"):
        cl.data.from_table(frame, "good", sensitive=["sex"], generator=seeded())


def test_a_file_read_with_a_field_too_few_has_a_hole() -> None:
    text = people().to_csv(index=False).replace("25.0,m,0", "25.0,m")
    frame = pd.read_csv(io.StringIO(text))
    with pytest.raises(ValueError, match="table: row 5, column 'good' holds nan"):
        cl.data.from_table(frame, "good", sensitive=["sex"], generator=seeded())


def test_a_test_table_of_other_columns() -> None:
    narrow = people().drop(columns="age")
    with pytest.raises(ValueError, match=r"test: got columns \['sex', 'good'\]; allowed: those"):
        cl.data.from_table(people(), "good", sensitive=["sex"], test=narrow, generator=seeded())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is truncated: 0 of 26338 bytes"),
        (b"1,2,3\n" * 100, "is truncated: 600 of 26338 bytes"),
        (b"x" * 26338, "has the wrong checksum: sha256 "),
        (b"x" * 30000, "has the wrong checksum: sha256 "),
    ],
)
def test_a_damaged_data_file(data_folder: Path, content: bytes, fault: str) -> None:
    path = data_folder / CREDIT
    path.write_bytes(content)
    with pytest.raises(cl.data.DataError) as caught:
        fairness_task("credit-sex", generator=seeded())
    assert str(caught.value).startswith(f"{path} {fault}")
    assert "replace it with the file from https://raw.githubusercontent.com/" in str(caught.value)
    refused(command("data", "fetch", "adf-credit"), f"{path} {fault}")
    checked = command("data", "check")
    assert checked.exit_code == 1
    assert f"wrong checksum  adf-credit: {CREDIT.as_posix()}" in checked.stdout
    assert path.read_bytes() == content
    assert not (data_folder.parent / "cache").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1," * 19 + "1", "credit_sample, line 12: got 20 columns; allowed: 21"),
        ("nan," + "1," * 19 + "1", "line 12, column checking_status: got 'nan'; allowed: an int"),
        ("1," * 20 + "7", "the last column, label, must hold 0 and 1 only"),
    ],
)
def test_a_data_file_with_its_checksum_but_a_broken_row(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
) -> None:
    header = ",".join("abcdefghijklmnopqrstu")
    content = "\n".join([header, *["1," * 20 + "0"] * 10, row]).encode()
    (data_folder / CREDIT).write_bytes(content)
    monkeypatch.setattr("carelab.data.fetching._fault", lambda path, file: "")
    with pytest.raises(ValueError, match=message):
        fairness_task("credit-sex", generator=seeded())


def test_a_data_file_that_is_nowhere(data_folder: Path) -> None:
    result = command("data", "fetch", "adf-credit")
    refused(result, f"{CREDIT.as_posix()} could not be fetched from https://raw.")
    assert "Network is unreachable" in result.stderr
    assert "use embedded-census, embedded-credit or digits, which need no file" in result.stderr
    assert not list(data_folder.parent.glob("cache/**/credit_sample"))


def test_a_network_that_takes_another_table() -> None:
    made, fair, model = table(features=5), fairness(count=5), network(features=4)
    neuron = cl.networks.hidden_neurons(model)[:1]
    given = made.train.take(slice(0, 20))
    steps = [
        lambda: cl.networks.accuracy(model, made.test),
        lambda: cl.networks.predict(model, made.test.inputs),
        lambda: cl.properties.violation_rate(model, made.test, fair),
        lambda: cl.causal.neuron_effects(model, given, fair),
        lambda: cl.repair.care(model, made.train, given, fair, neuron, generator=seeded()),
        lambda: cl.repair.fairness_trial(model, made, fair, generator=seeded()),
        lambda: cl.repair.hold_constant(model, made.train, fair),
    ]
    for step in steps:
        with pytest.raises(ValueError, match="got 5 features; this network takes 4"):
            step()


def test_a_network_file_that_is_cut_off_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    cl.networks.save(network(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"network\.safetensors"):
            cl.networks.load(path)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert [found.name for found in tmp_path.iterdir()] == ["network.safetensors"]


def test_a_network_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with pytest.raises(ValueError, match="training mode; allowed: evaluation mode"):
        cl.causal.neuron_effects(model, rows(5), fairness())
    with torch.no_grad():
        assert cl.causal.neuron_effects(model.eval(), rows(5), fairness()).samples == 5
