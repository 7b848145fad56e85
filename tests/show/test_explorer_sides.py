"""The input sides: what a reader can change, what is shown of it, and what is refused."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
import torch

from carelab.data import white_patch
from carelab.networks import Normalisation
from carelab.properties import OutputRegion, OutputRegions, never_lowest
from carelab.records import Samples
from carelab.show.explorer import InputSide, PictureSide, RowSide, SliceSide
from tests.show.explorer_worlds import biased_credit


def _row_side() -> RowSide:
    _, table, fair = biased_credit()
    return RowSide(rows=table.test, features=table.features, prop=fair, classes=table.classes)


def _pictures() -> PictureSide:
    images = torch.zeros(3, 1, 4, 4)
    images[1] = 0.5
    samples = Samples(inputs=images, labels=torch.tensor([0, 1, 1]))
    return PictureSide(images=samples, trigger=white_patch((1, 4, 4), 1), classes=("zero", "one"))


def _slice(**given) -> SliceSide:
    box = {"low": torch.tensor([0.2, 0.2, 0.2]), "high": torch.tensor([0.4, 0.6, 0.8])}
    return SliceSide(
        **{
            "prop": never_lowest(0, 2, **box),
            "features": ("a", "b", "c"),
            "classes": ("stay", "go"),
            "low": torch.zeros(3),
            "high": torch.ones(3),
            "point": torch.tensor([0.5, 0.5, 0.5]),
            "columns": 10,
            "rows": 5,
            **given,
        }
    )


@pytest.mark.parametrize("make", [_row_side, _pictures, _slice])
def test_each_is_an_input_side(make):
    assert isinstance(make(), InputSide)
    assert make().scenery()["kind"] == make().kind


def test_a_row_is_edited_by_value_and_taken_back():
    side = _row_side()
    (sex,) = [at for at, one in enumerate(side.features) if one.name == "sex"]
    other = 1 - side.scenery()["features"][sex]["value"]
    edited = side.edited({"feature": sex, "value": other})
    column = side.features[sex].columns[0]
    assert float(edited.current[column]) == float(side.features[sex].values[other])
    unchanged = [at for at in range(len(side.current)) if at != column]
    assert torch.equal(edited.current[unchanged], side.current[unchanged])
    assert edited.scenery()["features"][sex]["value"] == other
    assert torch.equal(edited.edited({"reset": True}).current, side.current)
    following = edited.edited({"step": 1})
    assert torch.equal(following.current, side.rows.inputs[1])
    assert side.edited({"step": -1}).at == len(side.rows) - 1


def test_the_variants_name_the_counterfactuals_that_are_run():
    side = _row_side()
    assert side.scenery()["variants"] == ["sex male", "sex female"]
    inputs = side.inputs()
    column = side.prop.columns[0]
    assert inputs[1:, column].tolist() == side.prop.values[:, 0].tolist()
    drawing = side.drawing(torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.zeros(3, 2))
    assert drawing["before"]["flips"] == [False, False, True]
    assert drawing["before"]["chances"][2] == pytest.approx([0.1192, 0.8808])


def test_what_no_row_can_be_is_refused():
    side = _row_side()
    (amount,) = [at for at, one in enumerate(side.features) if one.name == "amount"]
    with pytest.raises(ValueError, match="feature: got 99; allowed: 0 to 9"):
        side.edited({"feature": 99, "value": 0})
    with pytest.raises(ValueError, match="value: got 7 for sex; allowed: 0 to 1"):
        side.edited({"feature": 1, "value": 7})
    with pytest.raises(ValueError, match=r"value: got 1000000\.0 for amount; allowed: 1 to 200"):
        side.edited({"feature": amount, "value": 1e6})
    with pytest.raises(ValueError, match="rows: got none"):
        replace(side, rows=side.rows.take(slice(0, 0)))


def test_pictures_are_their_bytes_with_and_without_the_trigger():
    side = _pictures()
    clean, moved = side.inputs()[:3], side.inputs()[3:]
    assert torch.equal(clean, side.images.inputs)
    assert torch.equal(moved, side.trigger(clean))
    pixels = side.scenery()["pixels"]
    assert list(base64.b64decode(pixels[1])) == [128] * 16
    # A white patch of one pixel in the lower right corner.
    assert list(base64.b64decode(pixels[3])) == [0] * 15 + [255]
    drawing = side.drawing(torch.eye(6, 2), torch.zeros(6, 2))
    assert drawing["before"]["labels"] == [0, 1, 0, 0, 0, 0]


def test_what_no_picture_can_be_is_refused():
    side = _pictures()
    assert side.edited({"at": 2, "on": False}).on is False
    with pytest.raises(ValueError, match="at: got 3; allowed: 0 to 2"):
        side.edited({"at": 3})
    with pytest.raises(ValueError, match="on: got 1; allowed: True or False"):
        side.edited({"on": 1})
    with pytest.raises(ValueError, match="no labels; allowed: at least one labelled image"):
        replace(side, images=Samples(inputs=torch.zeros(1, 1, 4, 4)))
    with pytest.raises(ValueError, match=r"got shape \(2, 3\)"):
        replace(side, images=Samples(inputs=torch.zeros(2, 3), labels=torch.zeros(2).long()))


def test_a_slice_holds_all_features_but_two():
    side = _slice(axes=(2, 0))
    points = side.inputs()
    assert points.shape == (50, 3)
    assert points[:, 1].unique().tolist() == [0.5]
    # Centres of ten cells across (feature 2), of five cells up (feature 0), from below.
    assert points[:3, 2].tolist() == pytest.approx([0.05, 0.15, 0.25])
    assert points[::10, 0].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


def test_a_slice_marks_what_is_unsafe_inside_the_box_only():
    side = _slice()
    outputs = torch.zeros(50, 2)
    outputs[:, 0] = -1  # class 0 is the lowest everywhere, which the property forbids
    drawing = side.drawing(outputs, -outputs)
    unsafe = drawing["before"]["unsafe"]
    inside = side.prop.inside(side.inputs())
    assert [int(one) for one in unsafe] == inside.long().tolist()
    assert drawing["before"]["unsafe_share"] == 1
    assert drawing["after"]["unsafe_share"] == 0
    assert drawing["before"]["answers"] == "0" * 50
    assert drawing["after"]["answers"] == "1" * 50
    assert drawing["inside"] == int(inside.sum()) > 0


def test_the_box_is_drawn_in_units_and_says_whether_the_plane_meets_it():
    units = Normalisation(means=torch.tensor([10.0, 0.0, 0.0]), ranges=torch.tensor([100.0, 1, 1]))
    side = _slice(normalisation=units)
    (box,) = side.scenery()["boxes"]
    assert box["low"] == pytest.approx([30, 0.2], abs=1e-4)
    assert box["high"] == pytest.approx([50, 0.6], abs=1e-4)
    assert box["meets"]
    moved = side.edited({"feature": 2, "value": 0.95})
    assert not moved.scenery()["boxes"][0]["meets"]
    assert float(side.edited({"feature": 0, "value": 60.0}).point[0]) == pytest.approx(0.5)
    assert (
        float(side.edited({"feature": 0, "value": 1e9}).point[0]) == 1
    )  # the end of what is shown


def test_regions_without_a_box_are_drawn_without_one():
    region = OutputRegion(matrix=torch.tensor([[1.0, -1.0]]), limits=torch.zeros(1))
    side = _slice(prop=OutputRegions(regions=(region,)))
    assert side.scenery()["boxes"] == []
    assert side.drawing(torch.zeros(50, 2), torch.zeros(50, 2))["inside"] == 50


def test_what_no_slice_can_be_is_refused():
    side = _slice()
    assert side.edited({"axes": [2, 1]}).axes == (2, 1)
    for event, message in (
        ({"axes": [1, 1]}, r"axes: got \(1, 1\); allowed: two of 0 to 2"),
        ({"axes": [0, 9]}, "axes: got"),
        ({"axes": ["a", 1]}, "allowed: two numbers of features"),
        ({"feature": 5, "value": 1.0}, "feature: got 5; allowed: 0 to 2"),
        ({"feature": 0, "value": "far"}, "value: got 'far'"),
    ):
        with pytest.raises(ValueError, match=message):
            side.edited(event)
    with pytest.raises(ValueError, match="as many of each"):
        _slice(features=("a", "b"))
