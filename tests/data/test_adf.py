import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from carelab.data import adf_bank, adf_census, adf_credit, adf_network, sample_box
from carelab.data.adf import _CREDIT, _dataset
from carelab.data.adf_networks import network_from_checkpoint
from carelab.records import Dataset
from tests.data.real_files import needs

REAL = needs(
    *("adf-census", "adf-credit", "adf-bank"),
    *("adf-census-network", "adf-credit-network", "adf-bank-network"),
)


def whole(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    parts = (dataset.train, dataset.selection, dataset.test)
    known = [part.labels for part in parts if part.labels is not None]
    return torch.cat([part.inputs for part in parts]), torch.cat(known)


@REAL
@pytest.mark.parametrize(
    ("load", "rows", "positive", "accuracy", "sensitive"),
    [
        (adf_census, 32561, 7841, 0.8815, ("age", "race", "sex")),
        (adf_credit, 600, 300, 1.0, ("sex", "age")),
        (adf_bank, 45211, 5289, 0.9227, ("age",)),
    ],
)
def test_published_table_and_network(
    load: Callable[..., Dataset],
    rows: int,
    positive: int,
    accuracy: float,
    sensitive: tuple[str, ...],
) -> None:
    dataset = load(generator=torch.Generator().manual_seed(0))
    inputs, labels = whole(dataset)
    assert (len(labels), int(labels.sum())) == (rows, positive)
    assert len(dataset.train) == int(0.6 * rows)
    assert dataset.sensitive == sensitive
    network = adf_network(dataset.name)
    with torch.no_grad():
        right = network(inputs).argmax(dim=1) == labels
    # Accuracy on the whole table, training rows included, as known of these networks.
    assert float(right.double().mean()) == pytest.approx(accuracy, abs=5e-5)


@REAL
@pytest.mark.parametrize("name", ["census", "credit", "bank"])
def test_weights_equal_an_independent_reading(name: str) -> None:
    folder = Path(os.environ.get("CARELAB_DATA", "."))
    copy = folder / "fairness_adf" / "models" / f"{name}.npz"
    if not copy.is_file():
        pytest.skip(f"needs {copy.name} in CARELAB_DATA")
    network = adf_network(name)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    with np.load(copy) as weights:
        for number, layer in enumerate(layers):
            np.testing.assert_array_equal(layer.weight.detach().numpy().T, weights[f"W{number}"])
            np.testing.assert_array_equal(layer.bias.detach().numpy(), weights[f"b{number}"])
    assert len(layers) == 6
    assert [n for n, _ in network.named_children()][-2:] == ["relu5", "linear6"]
    assert not network.training


@REAL
def test_census_feature_box() -> None:
    census = adf_census(generator=torch.Generator().manual_seed(0))
    assert census.feature("sex").values.tolist() == [[0.0], [1.0]]
    assert census.feature("age").values.flatten().tolist() == list(range(1, 10))
    assert census.feature("age").columns == (0,)
    drawn = sample_box(census, 2000, generator=torch.Generator().manual_seed(1)).inputs
    assert torch.equal(drawn, drawn.round())
    assert drawn[:, 9].aminmax() == (torch.tensor(0.0), torch.tensor(99.0))


def test_checkpoint_layout_by_hand() -> None:
    # 3-64-32-16-8-4-2; every number of the file is its own position, counted after the 8 bytes.
    counts = [64, 3 * 64, 32, 64 * 32, 16, 32 * 16, 8, 16 * 8, 4, 8 * 4, 2, 4 * 2]
    numbers = np.arange(3 * sum(counts), dtype="<f4")
    network = network_from_checkpoint(b"optimise" + numbers.tobytes(), features=3)
    first, second = network[0], network[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    assert first.bias[:2].tolist() == [0, 1]
    # The weights follow the bias and its two slots: 3 * 64 = 192; inputs x outputs, row by row.
    assert first.weight[:2, 0].tolist() == [192, 193]
    assert first.weight[0, :3].tolist() == [192, 192 + 64, 192 + 128]
    # The second layer starts after 3 * (64 + 192) = 768 numbers.
    assert second.bias[0].item() == 768
    assert second.weight[0, 0].item() == 768 + 3 * 32


@pytest.mark.parametrize("size", [0, 44239, 44241, 49616])
def test_checkpoint_of_another_size(size: int) -> None:
    with pytest.raises(ValueError, match=f"content: got {size} bytes; .* 13 features has 44240"):
        network_from_checkpoint(bytes(size), features=13)


def test_unknown_network() -> None:
    with pytest.raises(ValueError, match="name: got 'german'; allowed: census, credit, bank"):
        adf_network("german")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1," * 19 + "1", r"credit_sample, line 12: got 20 columns; allowed: 21"),
        ("1," * 20 + "2", "last column, label, must hold 0 and 1 only"),
        ("1.5," + "1," * 19 + "1", "line 12, column checking_status: got '1.5'; allowed: an int"),
        ("1,?," + "1," * 18 + "1", r"line 12, column duration: got '\?'; allowed: an integer"),
    ],
)
def test_unfit_table(
    row: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "credit_sample"
    lines = ["a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u", *["1," * 20 + "0"] * 10, row]
    path.write_text("\n".join(lines))
    monkeypatch.setattr("carelab.data.adf.obtain", lambda source: (path,))
    with pytest.raises(ValueError, match=message):
        _dataset(_CREDIT, torch.Generator())
