"""One browser for all tests; without one, or without its driver, one skip says so."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import studio

_HERE = Path(__file__).parent


def missing() -> str:
    """What a real browser needs and this machine lacks; empty where nothing is missing."""
    if studio.CHROMIUM is None:
        return "no chromium is installed"
    return "" if importlib.util.find_spec("playwright") else "playwright is not installed"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave one test to be skipped for all, so that the reason is seen once."""
    ours = [item for item in items if item.path.is_relative_to(_HERE)]
    if not ours or not missing():
        return
    reason = f"{missing()}, so none of the {len(ours)} tests in a real browser is run"
    ours[0].add_marker(pytest.mark.skip(reason=reason))
    config.hook.pytest_deselected(items=ours[1:])
    items[:] = [item for item in items if item not in ours[1:]]


@pytest.fixture(scope="session")
def opened() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, studio.browser(playwright) as launched:
        yield launched
