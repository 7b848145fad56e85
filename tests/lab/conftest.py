"""Small notebooks, made where a test needs one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

PARAMETERS = """\
k: int = 3  # guilty neurons; 1 to 9
task: str = "a"  # which network; one of: a, b
seed: int = 0
out_dir: str = ".runs"
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a notebook: a title, the parameters cell and the given cells."""

    def write(*cells: str, name: str = "hello", parameters: str | None = PARAMETERS) -> Path:
        new = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")])
        if parameters is not None:
            tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
            new.cells.append(tagged)
        new.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new, path)
        return path

    return write
