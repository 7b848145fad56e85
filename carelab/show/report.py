"""One self-contained page from the result files of many experiments."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["report_page"]

_PNG = b"\x89PNG\r\n\x1a\n"
_LAID_OUT = {"experiment", "title", "data", "parameters", "results", "seconds", "torch", "carelab"}
_COLUMNS = ("before", "after", "baselines", "published")
_FEWEST_COLUMNS = 3
_NAMES = {
    "care_published": "CARE as published",
    "hold_constant": "sensitive feature held constant",
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Section:
    """One experiment as the template needs it; every cell of a table is text already."""

    anchor: str
    group: str
    title: str
    data: Mapping[str, Any]
    kind: str
    picture: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    repeats: str
    change: Mapping[str, str]
    parameters: Any
    seconds: Any
    more: Mapping[str, Any]
    versions: str


def report_page(results: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, bytes]) -> str:
    """One HTML page of all experiments: a summary, then figure and table of each.

    The page holds its style and its pictures, so that it opens anywhere, offline. What follows
    the layout of a result file (data, parameters, results before, after, baselines, published)
    is laid out as such; anything else becomes a nested table.

    Args:
        results: contents of each result file, by name without the ending.
        pictures: the PNG of the same name, where there is one.

    Returns:
        The page; all text from the results is escaped.

    Example:
        >>> from carelab.show.report import report_page
        >>> page = report_page({"a": {"title": "1 < 2", "results": {"before": {"rate": 0.5}}}}, {})
        >>> "1 &lt; 2" in page, "0.500" in page
        (True, True)
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "words": _words}
    environment.tests |= {"small": _is_small, "uniform": _is_uniform}
    sections = [_section(name, result, pictures.get(name)) for name, result in results.items()]
    groups = {
        group: [section for section in sections if section.group == group]
        for group in dict.fromkeys(section.group for section in sections)
    }
    return environment.get_template("report.html.jinja").render(groups=groups)


def _section(name: str, result: Mapping[str, Any], picture: bytes | None) -> _Section:
    found = _by_method(_mapping(result.get("results")))
    data = result.get("data")
    columns, rows = _table(found)
    more = {key: value for key, value in result.items() if key not in _LAID_OUT}
    more |= {
        key: value
        for key, value in found.items()
        if not _is_column(key, value) and not _is_measure(value)
    }
    if "results" in result and not isinstance(result["results"], Mapping):
        more["results"] = result["results"]
    topic = re.match(r"\d+_[^\W_]+", name)
    whole = picture is not None and picture.startswith(_PNG)
    return _Section(
        anchor=re.sub(r"\W+", "-", name),
        group=topic[0] if topic else str(result.get("experiment", name)),
        title=str(result.get("title") or result.get("experiment") or name),
        data=data if isinstance(data, Mapping) else {"name": data} if data else {},
        kind=_kind(str(_mapping(data).get("source", ""))),
        picture=base64.b64encode(picture).decode() if picture and whole else "",
        note=f"{name}.png is {'no PNG picture' if picture else 'missing'}",
        columns=columns,
        rows=rows,
        repeats=_repeats(found),
        change=_change(found),
        parameters=result.get("parameters"),
        seconds=result.get("seconds"),
        more=more,
        versions=", ".join(
            f"{package} {result[package]}" for package in ("carelab", "torch") if package in result
        ),
    )


def _by_method(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Results with "after" of one method: where it has several, ours, and the others as baselines.

    Without ours the first one counts.
    """
    after = _mapping(found.get("after"))
    if not after or not all(
        isinstance(one, Mapping) and not _is_value(one) for one in after.values()
    ):
        return found
    name = "ours" if "ours" in after else next(iter(after))
    others = {key: one for key, one in after.items() if key != name}
    baselines = {**others, **_mapping(found.get("baselines"))}
    return {**found, "after": after[name], "baselines": baselines}


def _table(found: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]:
    """Titles of the columns, and the metric and cells of each row.

    A measure of the repair itself, such as a drawdown, stands beside "before" and "after" in the
    file; its row has it under "after".
    """
    measures = {key: value for key, value in found.items() if _is_measure(value)}
    methods = {name: _mapping(found.get(name)) for name in ("before", "after") if name in found}
    if measures:
        methods["after"] = {**methods.get("after", {}), **measures}
    if _is_column("baselines", found.get("baselines")):
        methods |= {str(name): _mapping(column) for name, column in found["baselines"].items()}
    published = _mapping(found.get("published"))
    if published:
        methods["published"] = published
    metrics = dict.fromkeys(metric for column in methods.values() for metric in column)
    rows = tuple(
        (metric, tuple(_cell(column.get(metric)) for column in methods.values()))
        for metric in metrics
    )
    return tuple(methods), rows


def _change(found: Mapping[str, Any]) -> dict[str, str]:
    """What the summary says of each metric: measures that the paper states too, then the others."""
    before, after = _mapping(found.get("before")), _mapping(found.get("after"))
    published = _mapping(found.get("published"))
    beside = {
        metric: f"{_mean(value)} (paper: {_number(published[metric])})"
        for metric, value in found.items()
        if metric in published and _is_measure(value)
    }
    return beside | {
        metric: f"{_mean(before[metric])} \N{RIGHTWARDS ARROW} {_mean(after[metric])}"
        for metric in before
        if metric in after
    }


def _kind(source: str) -> str:
    """Whether the data are real or generated, as their source tells it; empty where it does not."""
    if "generated by carelab" in source:
        return "generated"
    return "real" if source.startswith(("http://", "https://")) else ""


def _is_column(key: str, value: Any) -> bool:
    if key not in _COLUMNS or not isinstance(value, Mapping):
        return False
    return key != "baselines" or all(isinstance(column, Mapping) for column in value.values())


def _is_measure(value: Any) -> bool:
    return _is_interval(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _repeats(value: Any) -> str:
    """How many seeds the intervals run over, such as "5" or "3 to 5"; empty without intervals."""
    counts = sorted(set(_counts(value)))
    return (
        " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        if counts
        else ""
    )


def _counts(value: Any) -> Iterable[int]:
    if _is_interval(value):
        yield from [value["n"]] if isinstance(value.get("n"), int) else []
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _counts(item)


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and {"mean", "low", "high"} <= set(value)


def _is_value(value: Mapping[str, Any]) -> bool:
    return _is_interval(value) or "value" in value


def _mean(value: Any) -> str:
    return _cell(value["mean"] if _is_interval(value) else value)


def _number(value: Any) -> str:
    """A published value without its source."""
    return _mean(value["value"] if isinstance(value, Mapping) and "value" in value else value)


def _cell(value: Any) -> str:
    """A value as text: numbers with three decimals, intervals as mean [low, high]."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, float):
        small = value != 0 and not 0.0005 <= abs(value) < 1e5
        return f"{value:.2e}" if small else f"{value:.3f}"
    if _is_interval(value):
        mean, low, high = (_cell(value[key]) for key in ("mean", "low", "high"))
        return mean if value.get("n") == 1 else f"{mean} [{low}, {high}]"
    if isinstance(value, Mapping) and "value" in value:
        source = f" ({value['source']})" if value.get("source") else ""
        return _cell(value["value"]) + source
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return str(value)


def _is_small(value: Any) -> bool:
    """Whether a value fits into one cell of a table."""
    if isinstance(value, list):
        return all(not isinstance(item, Mapping | list) for item in value)
    return not isinstance(value, Mapping) or _is_interval(value)


def _is_uniform(value: Any) -> bool:
    """Whether a list holds records of the same small values, which one table can show."""
    return all(
        isinstance(item, Mapping)
        and len(item) >= _FEWEST_COLUMNS
        and item.keys() == value[0].keys()
        and all(map(_is_small, item.values()))
        for item in value
    )


def _words(name: object) -> str:
    return _NAMES.get(str(name), str(name).replace("_", " "))
