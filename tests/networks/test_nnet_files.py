from __future__ import annotations

import pytest
import torch

from carelab.networks import Normalisation, read_nnet

TEXT = """// a comment
2,2,1,3,
2,3,1,
0,
-10.0,0.0,
10.0,4.0,
0.0,2.0,7.5,
20.0,4.0,100.0,
1,2,
3,4,
-1e-1,0,
0.5,
0,
-2,
1,-1,2,
0.25,
"""


def _file(folder, text):
    path = folder / "a.nnet"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [TEXT, TEXT.replace(",\n", "\n"), TEXT.replace("\n", "\r\n")])
def test_a_file_by_hand(tmp_path, text):
    read = read_nnet(_file(tmp_path, text))
    network = read.network
    assert [name for name, _ in network.named_children()] == ["linear1", "relu1", "linear2"]
    assert network.linear1.weight.tolist() == [[1, 2], [3, 4], [pytest.approx(-0.1), 0]]
    assert network.linear1.bias.tolist() == [0.5, 0, -2]
    assert network.linear2.weight.tolist() == [[1, -1, 2]]
    # x = (1, -1): hidden relu(-0.5, -1, -2.1) = 0, so the output is the last bias.
    assert network(torch.tensor([[1.0, -1.0]])).tolist() == [[0.25]]
    assert (read.output_mean, read.output_range) == (7.5, 100.0)
    assert (read.low.tolist(), read.high.tolist()) == ([-10, 0], [10, 4])
    # (10 - 0) / 20 and (3 - 2) / 4
    assert read.normalisation.normalise(torch.tensor([[10.0, 3.0]])).tolist() == [[0.5, 0.25]]
    assert read.normalisation.denormalise(torch.tensor([0.5, 0.25])).tolist() == [10.0, 3.0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.25,\n", "", "it ends too early"),
        ("0.25,\n", "0.25,\n9,\n", "line 17 comes after the last bias"),
        ("3,4,\n", "3,4,5,\n", "line 10 holds 3 numbers; allowed: 2, all finite"),
        ("3,4,\n", "3,nan,\n", "line 10 holds 2 numbers; allowed: 2, all finite"),
        ("3,4,\n", "3,four,\n", "line 10 holds something that is no number"),
        ("2,3,1,\n", "2,3,2,\n", "do not fit 2 inputs, 1 outputs"),
        ("2,3,1,\n", "2,3.5,1,\n", "its sizes are .*whole numbers from 1 to"),
        ("2,3,1,\n", "2,100000000,1,\n", "its sizes are"),
        ("2,2,1,3,\n", "5000,2,1,3,\n", "it has 5000 layers"),
        ("10.0,4.0,\n", "10.0,-4.0,\n", "exceed its largest"),
        ("20.0,4.0,100.0,\n", "20.0,0.0,100.0,\n", "means, ranges: got .*ranges above 0"),
    ],
)
def test_damaged_files_say_where(tmp_path, old, new, message):
    assert TEXT.count(old) >= 1
    text = TEXT.replace(old, new, 1)
    with pytest.raises(ValueError, match=f"path: .*a.nnet is no NNet file: .*{message}"):
        read_nnet(_file(tmp_path, text))


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        read_nnet(tmp_path / "a.nnet")
    (tmp_path / "a.nnet").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is no NNet file: not a text"):
        read_nnet(tmp_path / "a.nnet")


def test_reading_draws_no_random_number(tmp_path):
    path = _file(tmp_path, TEXT)
    before = torch.get_rng_state()
    read_nnet(path)
    assert torch.equal(before, torch.get_rng_state())


def test_means_and_ranges_that_do_not_fit():
    with pytest.raises(ValueError, match="means, ranges: got"):
        Normalisation(means=torch.zeros(2), ranges=torch.tensor([1.0, torch.inf]))
