"""One browser for all tests; without one, or without its driver, all are skipped at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import studio


@pytest.fixture(scope="session")
def opened() -> Iterator[Any]:
    if studio.CHROMIUM is None:
        pytest.skip("no chromium is installed, so nothing is tried in a real browser")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright, studio.browser(playwright) as launched:
        yield launched
