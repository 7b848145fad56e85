from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carelab.properties import parse_vnnlib, read_vnnlib
from carelab.properties.expressions import parse_expressions
from carelab.records import Samples

DECLARED = """; two inputs, two outputs
(declare-const X_0 Real)
(declare-fun X_1 () Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
"""
BOX = "(assert (and (>= X_0 -1) (<= X_0 1e0)))\n(assert (>= X_1 0.1)) (assert (<= X_1 .25))\n"
UNSAFE = "(assert (<= Y_0 Y_1))"


def test_a_conjunction_by_hand():
    (prop,) = parse_vnnlib(DECLARED + BOX + UNSAFE + "(assert (>= Y_1 2.5))", name="mine")
    (region,) = prop.regions
    # y_0 - y_1 <= 0 and -y_1 <= -2.5
    assert region.matrix.tolist() == [[1, -1], [0, -1]]
    assert region.limits.tolist() == [0, -2.5]
    assert (region.low.tolist(), region.high.tolist()) == ([-1, 0.1], [1, 0.25])
    assert (prop.name, region.name) == ("mine", "mine")


def test_disjunctions_of_outputs_share_a_box():
    (prop,) = parse_vnnlib(
        DECLARED + BOX + "(assert (or (and (<= Y_0 1) (>= Y_1 0)) (<= (+ Y_0 (* 2 Y_1)) 3)))"
    )
    assert [region.matrix.tolist() for region in prop.regions] == [[[1, 0], [0, -1]], [[1, 2]]]
    assert [region.limits.tolist() for region in prop.regions] == [[1, 0], [3]]


def test_several_boxes_give_several_properties():
    boxes = "(assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 4) (<= X_0 5))))"
    rest = "(assert (>= X_1 0)) (assert (<= X_1 1))"
    props = parse_vnnlib(DECLARED + boxes + rest + UNSAFE, name="p")
    assert [prop.name for prop in props] == ["p, box 1", "p, box 2"]
    assert [prop.regions[0].low.tolist() for prop in props] == [[0, 0], [4, 0]]
    either = "(assert (or (<= Y_0 1) (<= Y_1 1)))"
    assert [len(p.regions) for p in parse_vnnlib(DECLARED + boxes + rest + either)] == [2, 2]


def test_outputs_that_belong_to_their_box():
    text = """(assert (or
      (and (>= X_0 0) (<= X_0 1) (<= Y_0 0))
      (and (>= X_0 2) (<= X_0 3) (or (<= Y_0 1) (>= Y_1 1)))
    )) (assert (>= X_1 0)) (assert (<= X_1 0))"""
    first, second = parse_vnnlib(DECLARED + text)
    assert (len(first.regions), len(second.regions)) == (1, 2)
    assert first.regions[0].limits.tolist() == [0]


def test_linear_expressions():
    text = "(assert (<= (- (* Y_0 0.5) (- Y_1) 1) (+ 2 (- Y_0 4))))"
    # 0.5 y0 + y1 - 1 <= 2 + y0 - 4, so -0.5 y0 + y1 <= -1
    region = parse_vnnlib(DECLARED + BOX + text)[0].regions[0]
    assert region.matrix.tolist() == [[-0.5, 1]]
    assert region.limits.tolist() == [-1]


def test_a_bound_with_a_factor_and_a_bound_the_other_way_round():
    text = "(assert (<= (* -2 X_0) 4)) (assert (>= 3 X_0)) (assert (>= X_1 0)) (assert (<= X_1 1))"
    region = parse_vnnlib(DECLARED + text + UNSAFE)[0].regions[0]
    assert (region.low.tolist(), region.high.tolist()) == ([-2, 0], [3, 1])


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_bounds_are_the_numbers_of_the_file(low, width):
    high = low + width
    text = "(declare-const X_0 Real) (declare-const Y_0 Real) (assert (<= Y_0 0))"
    text += f"(assert (>= X_0 {low!r})) (assert (<= X_0 {high!r}))"
    region = parse_vnnlib(text)[0].regions[0]
    assert region.low.item() == low
    assert region.high.item() == high


def test_the_verdict_on_a_network_is_that_of_the_text():
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 2)
    text = "(assert (or (and (<= Y_0 Y_1) (<= Y_1 0.2)) (>= Y_0 0.4)))"
    (prop,) = parse_vnnlib(DECLARED + BOX + text)
    outputs = network(torch.rand(500, 2)).detach()
    y0, y1 = outputs.T
    expected = ((y0 <= y1) & (y1 <= 0.2)) | (y0 >= 0.4)
    assert 0 < int(expected.sum()) < 500
    margin = prop.margin(outputs.unsqueeze(0), Samples(inputs=torch.zeros(500, 2)))
    assert torch.equal(margin <= 0, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(assert (<= X_0 1))" + UNSAFE, "X_0 has no lower bound beside line 6; allowed"),
        ("(assert (>= X_0 1)) (assert (<= X_0 2))" + UNSAFE, "X_1 has no lower bound"),
        (BOX + "(assert (<= Y_2 Y_0))", "line 8: Y_2 is a variable that is not declared before"),
        (BOX + "\n(assert (>= X_0 2))" + UNSAFE, "line 9: X_0 is at least 2.0 and at most 1.0"),
        (BOX + "(assert (<= X_0 X_1))" + UNSAFE, "line 8: relates inputs to each other"),
        (BOX + "(assert (<= X_0 Y_0))", "line 8: compares inputs with outputs"),
        (BOX + "(assert (<= Y_0 Y_0))", "line 8: compares inputs with outputs, or no variable"),
        (BOX + "(assert (not (<= Y_0 1)))", r"line 8: \(not .* is not supported; allowed: and, or"),
        (BOX + "(assert (< Y_0 1))", r"line 8: \(< Y_0 1\) is not supported"),
        (BOX + "(assert (or))", r"line 8: \(or\) is not supported"),
        (BOX + "(assert (<= (* Y_0 Y_1) 1))", r"line 8: \(\* Y_0 Y_1\) is no linear expression"),
        (BOX + "(assert (<= Y_0 1_000))", "line 8: 1_000 is neither a number nor a variable"),
        (BOX + "(assert (<= Y_0 1e999))", "line 8: 1e999 is no finite number"),
        (BOX + "(check-sat)", r"line 8: \(check-sat\) is no declaration and no assertion"),
        (BOX, "says nothing about the outputs"),
        (BOX + "(assert (<= Y_0 1)", "line 8: a parenthesis opens that none closes"),
        (BOX + UNSAFE + ")", "line 8: a parenthesis closes that none has opened"),
        (BOX + UNSAFE + "\nend", "line 9: 'end' stands outside parentheses"),
        ("(" * 51, "line 6: nested too deeply; allowed: 50 levels"),
        ("(declare-const Y_0 Real)", r"line 6: \(declare-const Y_0 Real\) declares Y_0 again"),
        ("(declare-const Z Real)", "declares another name than"),
        ("(declare-const Y_01 Real)", "declares another name than"),
        ("(declare-const Y_2 Int)", "declares something that is no real number"),
        ("(declare-const Y_3 Real)" + BOX + UNSAFE, r"declares Y with numbers \[0, 1, 3\]"),
        (
            BOX + "(assert (or (<= Y_0 1) (<= Y_1 1)))\n" * 14,
            "line 21: 16384 cases of 4 and more statements",
        ),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path, text, message):
    path = tmp_path / "mine.vnnlib"
    path.write_text(DECLARED + text)
    with pytest.raises(ValueError, match=f"path: .*mine.vnnlib, .*{message}"):
        read_vnnlib(path)


def test_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        read_vnnlib(tmp_path / "mine.vnnlib")
    (tmp_path / "mine.vnnlib").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is no VNN-LIB file: not a text"):
        read_vnnlib(tmp_path / "mine.vnnlib")
    (tmp_path / "mine.vnnlib").write_text(DECLARED + BOX + UNSAFE)
    assert read_vnnlib(tmp_path / "mine.vnnlib")[0].name == "mine"


def test_expressions_know_their_lines():
    found = list(parse_expressions("(a ; (b\n  (c d)) ; end\n\n(e)"))
    assert [(str(one), one.line) for one in found] == [("(a (c d))", 1), ("(e)", 4)]
    assert found[0].items[1].line == 2
