"""Predictions, exercises and their checks, and pictures that answer to their controls."""

from __future__ import annotations

import html

import ipywidgets as widgets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from carelab.lab import teaching
from carelab.lab.teaching import Feedback, WrongAnswer

check_four = teaching.number_check(4.0, tolerance=0.1, hints={8.0: "That is twice as much."})


def _parts(box: widgets.VBox) -> tuple[widgets.DOMWidget, widgets.Button, widgets.HTML]:
    row, feedback = box.children
    field, button = row.children
    return field, button, feedback


def _pressed(box: widgets.VBox, answer: object) -> str:
    field, button, feedback = _parts(box)
    field.value = answer
    button.click()
    return html.unescape(feedback.value)


def test_feedback_says_in_words_what_its_colour_says_and_escapes_the_message():
    shown = Feedback(status="wrong", message="1 < 2 & <b>").html
    assert "Not yet" in shown
    assert "1 &lt; 2 &amp; &lt;b&gt;" in shown
    with pytest.raises(ValueError, match="status: got 'maybe'; allowed: open, right, wrong, sur"):
        Feedback(status="maybe", message="")


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_a_number_is_right_just_within_the_tolerance(answer):
    status = check_four(answer).status
    assert status == ("right" if abs(answer - 4) <= 0.1 else "wrong")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (3, "3 is too small."),
        (5.25, "5.25 is too large."),
        (8, "That is twice as much."),
        (True, "True is not a number."),
        ("4", "'4' is not a number."),
        (None, "None is not a number."),
        (float("nan"), "nan is no finite number."),
    ],
)
def test_a_wrong_number_is_told_why(answer, message):
    assert check_four(answer) == Feedback(status="wrong", message=message)


def test_a_number_check_refuses_hints_for_what_is_right():
    with pytest.raises(ValueError, match=r"hints: got one for 4\.0, which is right"):
        teaching.number_check(4.0, hints={4.001: "no"})
    with pytest.raises(ValueError, match="truth, tolerance: got nan"):
        teaching.number_check(float("nan"))
    with pytest.raises(ValueError, match=r"tolerance: got 1\.0, -1"):
        teaching.number_check(1.0, tolerance=-1)


def test_an_exercise_waits_for_an_answer_takes_a_right_one_and_fails_for_a_wrong_one():
    assert "Your turn" in _parts(teaching.exercise(check_four))[2].value
    assert "Right" in _parts(teaching.exercise(check_four, 4))[2].value
    with pytest.raises(WrongAnswer, match="5 is too large"):
        teaching.exercise(check_four, 5)


def test_a_wrong_answer_shows_in_a_notebook_without_a_traceback():
    assert WrongAnswer("Too large.")._render_traceback_() == ["Not yet: Too large."]
    assert issubclass(WrongAnswer, AssertionError)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("4", "✓ Right"),
        (" 4.05 ", "✓ Right"),
        ("9", "9 is too large"),
        ("four", "'four' is not a number; write 0.5"),
        ("", "Your turn"),
        ("1, 2", "[1.0, 2.0] is not a number"),
    ],
)
def test_the_field_of_an_exercise_is_checked_by_its_button(typed, said):
    assert said in _pressed(teaching.exercise(check_four), typed)


def test_options_are_chosen_one_or_several():
    seen = []

    def check(answer):
        seen.append(answer)
        return Feedback(status="right", message="Yes.")

    assert "Your turn" in _pressed(teaching.exercise(check, options=["a", "b"]), None)
    _pressed(teaching.exercise(check, options=["a", "b"]), "b")
    _pressed(teaching.exercise(check, options=["a", "b"], several=True), ("a", "b"))
    assert seen == ["b", ["a", "b"]]


def test_what_a_check_refuses_is_a_wrong_answer():
    def check(answer):
        raise ValueError(f"answer: got {answer}; allowed: 1")

    assert "answer: got 2.0; allowed: 1" in _pressed(teaching.exercise(check), "2")
    with pytest.raises(WrongAnswer, match="answer: got 3; allowed: 1"):
        teaching.exercise(check, 3)


def test_the_outcome_follows_the_prediction():
    guess = teaching.prediction(["rises", "falls"])
    shown = teaching.outcome(guess, "falls", "It is cut.")
    assert "falls" not in shown.value
    guess.value = "rises"
    assert "A surprise" in shown.value
    assert "You predicted: rises. It came out: falls. It is cut." in shown.value
    guess.value = "falls"
    assert "Right" in shown.value
    assert "Right" in teaching.outcome(teaching.prediction(["a", "b"], "a"), "a").value


def test_predictions_refuse_what_cannot_be_chosen():
    with pytest.raises(ValueError, match="options: got \\['a', 'a'\\]; allowed: at least two"):
        teaching.prediction(["a", "a"])
    with pytest.raises(ValueError, match="guess: got 'c'; allowed: a, b, or None"):
        teaching.prediction(["a", "b"], "c")
    with pytest.raises(ValueError, match="truth: got 'c'; allowed: a, b"):
        teaching.outcome(teaching.prediction(["a", "b"]), "c")


def test_a_picture_follows_its_controls_and_shows_trouble_in_its_place():
    slider, seen = widgets.IntSlider(1, min=0, max=5), []

    def draw(figure, parts):
        if parts == 0:
            raise ValueError("parts: got 0; allowed: 1 or more")
        seen.append(parts)
        assert isinstance(figure, Figure)
        assert figure.axes == []  # emptied before it is drawn anew
        figure.subplots(1, parts)

    box = teaching.explore(draw, {"parts": slider}, size=(2, 1))
    control, trouble, image = box.children
    first = bytes(image.value)
    assert control is slider
    assert image.layout.width == "200px"  # 2 inches, not the width of the page
    assert first.startswith(b"\x89PNG")
    slider.value = 2
    assert bytes(image.value) != first
    slider.value = 0
    assert "parts: got 0" in trouble.value
    slider.value = 1
    assert bytes(image.value) == first
    assert trouble.value == ""
    assert seen == [1, 2, 1]
    with pytest.raises(ValueError, match="controls: got none"):
        teaching.explore(draw, {})


def test_a_still_picture_is_a_png_with_a_text_for_who_cannot_see_it():
    figure = Figure()
    left, _, right = figure.subplots(1, 3)
    left.set_title("Before")
    right.set_title("After")
    shown = teaching.picture(figure)
    assert shown.data.startswith(b"\x89PNG")
    assert shown.alt == "Before; After"
