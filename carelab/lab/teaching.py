"""What a lesson needs: predictions, exercises with checks, and pictures that answer to sliders.

Every exercise can be answered in two ways: in the cell, by a variable that is None until then, or
in the field below it, which is all that a class sees where a lesson is served as a page.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
from IPython.display import Image
from matplotlib.figure import Figure

__all__ = [
    "Check",
    "Feedback",
    "WrongAnswer",
    "exercise",
    "explore",
    "number_check",
    "outcome",
    "picture",
    "prediction",
]

_DOTS = 100  # pixels an inch
_LOOKS = {
    "open": ("#666666", "Your turn"),
    "right": ("#029e73", "✓ Right"),
    "wrong": ("#d55e00", "✗ Not yet"),
    "surprise": ("#d55e00", "✗ A surprise"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Feedback:
    """What a check says of an answer.

    Args:
        status: "right", "wrong", "open" where there is no answer yet, or "surprise" where what
            was predicted did not come out.
        message: one or two sentences for the learner; of a wrong answer why it is wrong.

    Example:
        >>> from carelab.lab.teaching import Feedback
        >>> "Well done." in Feedback(status="right", message="Well done.").html
        True
    """

    status: str
    message: str

    def __post_init__(self) -> None:
        """Refuses a status that no box stands for."""
        if self.status not in _LOOKS:
            raise ValueError(f"status: got {self.status!r}; allowed: {', '.join(_LOOKS)}")

    @property
    def html(self) -> str:
        """The feedback as a box whose word says what its colour says."""
        colour, word = _LOOKS[self.status]
        style = f"border-left: 6px solid {colour}; padding: 4px 10px; font-size: 110%"
        text = html.escape(self.message)
        return f'<div style="{style}"><b style="color: {colour}">{word}.</b> {text}</div>'


Check = Callable[[Any], Feedback]


class WrongAnswer(AssertionError):
    """An answer that a check refused; a notebook shows the message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


def exercise(
    check: Check, answer: Any = None, *, options: Sequence[str] = (), several: bool = False
) -> widgets.VBox:
    """A field for the answer, a button that checks it, and the feedback below.

    Args:
        check: tells whether an answer is right; a ValueError that it raises counts as wrong.
        answer: the answer given in the cell, checked at once; None: not answered yet.
        options: what can be chosen; by default the field takes a number, or several with commas.
        several: more than one of the options can be chosen; the answer is then a list.

    Raises:
        WrongAnswer: the answer given in the cell is wrong; the message says why.

    Example:
        >>> from carelab.lab import teaching
        >>> box = teaching.exercise(teaching.number_check(4), 4.0)
        >>> teaching.exercise(teaching.number_check(4), 5)
        Traceback (most recent call last):
        carelab.lab.teaching.WrongAnswer: 5 is too large.
    """
    where = "Choose here, several with Ctrl" if several else "Answer here"
    shown = Feedback(status="open", message=f"{where}; or in the code, if you see it.")
    if answer is not None:
        shown = _judged(check, answer)
        if shown.status == "wrong":
            raise WrongAnswer(shown.message)
    field = _field(options, several)
    button = widgets.Button(description="Check", tooltip="Check the answer in the field")
    feedback = widgets.HTML(shown.html)

    def press(_: widgets.Button) -> None:
        feedback.value = _judged_field(check, field.value, bool(options)).html

    button.on_click(press)
    return widgets.VBox([widgets.HBox([field, button]), feedback])


def number_check(
    truth: float, *, tolerance: float = 0.005, hints: Mapping[float, str] | None = None
) -> Check:
    """A check that takes a number for right if it is within the tolerance of the truth.

    Args:
        truth: the right number.
        tolerance: how far off an answer may be, in the same unit.
        hints: {wrong number: what to say about it}; others are called too small or too large.

    Raises:
        ValueError: a truth or tolerance that is not finite, a negative tolerance, or a hint for
            a number that is right.

    Example:
        >>> from carelab.lab.teaching import number_check
        >>> check = number_check(1.0, hints={2.0: "That is the sum, not the mean."})
        >>> check(1).status, check(2).message
        ('right', 'That is the sum, not the mean.')
    """
    known = dict(hints or {})
    if not (math.isfinite(truth) and 0 <= tolerance < math.inf):
        raise ValueError(
            f"truth, tolerance: got {truth}, {tolerance}; allowed: finite, and not negative"
        )
    if any(abs(wrong - truth) <= tolerance for wrong in known):
        raise ValueError(f"hints: got one for {truth}, which is right; allowed: wrong numbers")

    def check(answer: Any) -> Feedback:
        if isinstance(answer, bool) or not isinstance(answer, int | float):
            return Feedback(status="wrong", message=f"{answer!r} is not a number.")
        if abs(answer - truth) <= tolerance:
            return Feedback(status="right", message=f"It is {truth:.4g}.")
        for wrong, hint in known.items():
            if abs(answer - wrong) <= tolerance:
                return Feedback(status="wrong", message=hint)
        if not math.isfinite(answer):
            return Feedback(status="wrong", message=f"{answer} is no finite number.")
        size = "small" if answer < truth else "large"
        return Feedback(status="wrong", message=f"{answer:.4g} is too {size}.")

    return check


def prediction(options: Sequence[str], guess: str | None = None) -> widgets.RadioButtons:
    """Radio buttons to say beforehand what will come out; nothing is chosen at first.

    Args:
        options: what may come out, two at least.
        guess: what is predicted in the cell, or None.

    Raises:
        ValueError: fewer than two options, one that comes twice, or a guess that is none of them.

    Example:
        >>> from carelab.lab import teaching
        >>> teaching.prediction(["rises", "falls"]).value is None
        True
    """
    if len(options) < 2 or len(set(options)) < len(options):
        raise ValueError(f"options: got {list(options)}; allowed: at least two, each once")
    if guess is not None and guess not in options:
        raise ValueError(f"guess: got {guess!r}; allowed: {', '.join(options)}, or None")
    return widgets.RadioButtons(
        options=list(options),
        value=guess,
        layout=widgets.Layout(width="max-content"),
    )


def outcome(predicted: widgets.RadioButtons, truth: str, because: str = "") -> widgets.HTML:
    """What came out beside what was predicted; it follows the buttons, and waits for them.

    Args:
        predicted: the buttons of `prediction`.
        truth: the option that came out.
        because: one sentence on why.

    Raises:
        ValueError: a truth that is none of the options.

    Example:
        >>> from carelab.lab import teaching
        >>> guess = teaching.prediction(["rises", "falls"])
        >>> shown = teaching.outcome(guess, "falls", "The path is cut.")
        >>> guess.value = "falls"
        >>> "Right" in shown.value
        True
    """
    if truth not in predicted.options:
        allowed = ", ".join(predicted.options)
        raise ValueError(f"truth: got {truth!r}; allowed: {allowed}")
    shown = widgets.HTML()

    def follow(_: object = None) -> None:
        shown.value = _compared(predicted.value, truth, because).html

    predicted.observe(follow, names="value")
    follow()
    return shown


def picture(figure: Figure) -> Image:
    """The figure as a still image, which every page shows, whatever draws its figures.

    Args:
        figure: the finished figure; the titles of its axes become the text for who cannot see it.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from carelab.lab import teaching
        >>> figure = Figure()
        >>> title = figure.subplots().set_title("Before")
        >>> teaching.picture(figure).alt
        'Before'
    """
    titles = [ax.get_title() for ax in figure.axes]
    return Image(data=_png(figure), alt="; ".join(title for title in titles if title))


def explore(
    draw: Callable[..., object],
    controls: Mapping[str, widgets.DOMWidget],
    *,
    size: tuple[float, float] = (10.0, 4.5),
) -> widgets.VBox:
    """A picture that is drawn again whenever one of its controls is moved.

    Args:
        draw: called with an empty figure and the value of each control, by its name; a ValueError
            that it raises is shown in place of the picture.
        controls: widgets with a value, by the names that `draw` knows.
        size: width and height of the figure, in inches.

    Raises:
        ValueError: no control.

    Example:
        >>> import ipywidgets
        >>> from carelab.lab import teaching
        >>> slider = ipywidgets.IntSlider(3)
        >>> box = teaching.explore(lambda figure, n: figure.subplots(1, n), {"n": slider})
    """
    if not controls:
        raise ValueError("controls: got none; allowed: at least one")
    figure = Figure(figsize=size, layout="constrained")
    # At its own size: a box would stretch it to its width, and a small picture would blur.
    own = widgets.Layout(
        width=f"{_DOTS * size[0]:.0f}px", max_width="100%", align_self="flex-start"
    )
    image = widgets.Image(format="png", layout=own)
    trouble = widgets.HTML()

    def redraw(_: object = None) -> None:
        figure.clear()
        try:
            draw(figure, **{name: control.value for name, control in controls.items()})
        except ValueError as error:
            trouble.value = Feedback(status="wrong", message=str(error)).html
            return
        trouble.value = ""
        image.value = _png(figure)

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return widgets.VBox([*controls.values(), trouble, image])


def _png(figure: Figure) -> bytes:
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=_DOTS)
    return page.getvalue()


def _compared(predicted: str | None, truth: str, because: str) -> Feedback:
    if predicted is None:
        return Feedback(status="open", message="Choose above what you predict.")
    said = f"You predicted: {predicted}. It came out: {truth}. {because}".rstrip()
    return Feedback(status="right" if predicted == truth else "surprise", message=said)


def _judged(check: Check, answer: Any) -> Feedback:
    try:
        return check(answer)
    except ValueError as error:
        return Feedback(status="wrong", message=str(error))


def _judged_field(check: Check, value: Any, chosen: bool) -> Feedback:
    """What the check says of a field; an empty one is no answer."""
    if not value:
        return Feedback(status="open", message="Choose or type an answer first.")
    if chosen:
        return _judged(check, list(value) if isinstance(value, tuple) else value)
    try:
        numbers = [float(word) for word in re.split(r"[,;\s]+", value.strip())]
    except ValueError:
        message = f"{value!r} is not a number; write 0.5, or several as 0, 1.5, 2."
        return Feedback(status="wrong", message=message)
    return _judged(check, numbers[0] if len(numbers) == 1 else numbers)


def _field(options: Sequence[str], several: bool) -> widgets.DOMWidget:
    wide = widgets.Layout(width="max-content")
    if not options:
        return widgets.Text(placeholder="a number, or 1, 2, 3", layout=widgets.Layout(width="14em"))
    if several:
        rows = min(len(options), 12)
        return widgets.SelectMultiple(options=list(options), rows=rows, layout=wide)
    return widgets.RadioButtons(options=list(options), value=None, layout=wide)
