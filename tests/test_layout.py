"""The shape of the package: who imports whom, and that a name means one thing."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "diffevo_jax"
FILES = sorted(PACKAGE.rglob("*.py"))


def _module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): ast.parse(path.read_text()) for path in FILES}


def _imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Modules that are imported: of `from package import name` the inner one where there is one."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _when_loaded(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs as a module is imported: no bodies of functions, nothing for type checkers."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.Lambda) and not typing_only:
            waiting += ast.iter_child_nodes(node)


def test_the_library_imports_nothing_of_the_runs_and_nobody_imports_the_experiments():
    for name, tree in MODULES.items():
        for imported in _imports(ast.walk(tree)):
            assert not imported.startswith("experiments"), f"{name} imports {imported}"
            ours = name.startswith("diffevo_jax.runs") or name == "diffevo_jax.__main__"
            assert ours or not imported.startswith("diffevo_jax.runs"), f"{name}: {imported}"


def test_imports_have_no_circles():
    graph = {}
    for name, tree in MODULES.items():
        imported = set(_imports(_when_loaded(tree))) & set(MODULES)
        # The face imports every room, and is imported by the runs alone.
        graph[name] = imported - {"diffevo_jax"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_class_has_a_name_of_its_own():
    names = Counter(
        node.name
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
