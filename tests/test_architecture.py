"""The house rules that can be read off the source: floors, names, docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "carelab"
MODULES = sorted(PACKAGE.rglob("*.py"))
# In the order of the work: a floor knows the floors before it, and none after it.
FLOORS = (
    "records",
    "networks",
    "data",
    "properties",
    "causal",
    "proof",
    "repair",
    "show",
    "lab",
)


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _floor(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imported_floors(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "relative import"
        elif isinstance(node, ast.ImportFrom) and node.module == "carelab":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("carelab."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (".".join(name[1:2]) for name in names if name[0] == "carelab")


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


every_module = pytest.mark.parametrize("path", MODULES, ids=_name)
on_a_floor = pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE or path.stem in FLOORS], ids=_name
)


def test_the_package_has_no_other_floor():
    found = {_floor(path) for path in MODULES} - {"__init__", "typechecking"}
    assert found <= set(FLOORS)


@on_a_floor
def test_a_floor_imports_only_from_the_floors_above_it(path):
    own = FLOORS.index(_floor(path))
    for floor in _imported_floors(_tree(path)):
        # The last floor may name the package itself, for its version.
        known = FLOORS[: own + 1] if own + 1 < len(FLOORS) else (*FLOORS, "")
        assert floor in known, f"imports {floor or 'carelab'}"


@every_module
def test_a_module_lists_what_it_exports(path):
    exported = _exported(_tree(path))
    assert exported is not None
    assert len(exported) == len(set(exported))


@every_module
def test_a_module_has_one_subject(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@every_module
def test_a_module_neither_prints_nor_moves_to_a_gpu(path):
    calls = [node.func for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert not [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "cuda"]


@every_module
def test_every_public_function_has_an_example(path):
    tree = _tree(path)
    public = set(_exported(tree) or [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in public:
            docstring = ast.get_docstring(node) or ""
            assert "Example:\n    >>> " in docstring, node.name
            example = docstring.partition("Example:\n")[2].split("\n\n")[0]
            assert example.count(">>> ") + example.count("... ") <= 8, node.name


@every_module
def test_every_exported_class_and_module_is_described(path):
    tree = _tree(path)
    assert ast.get_docstring(tree)
    public = set(_exported(tree) or [])
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in public:
            assert ast.get_docstring(node), node.name
