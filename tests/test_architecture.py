"""What the source must look like, whatever it computes."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mechint
from mechint import errors
from mechint.axes import DIMENSIONS

PACKAGE = Path(mechint.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 300
HEAVY = ("torch", "transformers", "transformer_lens", "plotly", "pandas", "nnsight", "pydantic", "scipy")
_SHAPED = {"Float", "Int", "Bool", "Shaped", "Num", "Inexact", "Complex", "UInt", "Integer", "Real"}


def words_of_shapes(source: str) -> set[str]:
    """Every axis word in the shape annotations of a module: `Float[Tensor, "*batch pos 3 ..."]` -> batch, pos."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "[" in node.value:
            try:  # an annotation that is itself written as text
                words |= words_of_shapes(node.value)
            except SyntaxError:
                continue
        if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in _SHAPED):
            continue
        shape = node.slice.elts[1] if isinstance(node.slice, ast.Tuple) else None
        assert isinstance(shape, ast.Constant), f"line {node.lineno}: expected {node.value.id}[array, 'axes']"
        words |= {axis.lstrip("*#") for axis in str(shape.value).split() if axis != "..." and not axis.isdigit()}
    return words


def test_shapes_are_found_wherever_they_are_written() -> None:
    source = 'def f(x: Float[Tensor, "*batch pos 3 ..."]) -> "tuple[Int[Tensor, \' typo\'], int]": ...'

    assert words_of_shapes(source) == {"batch", "pos", "typo"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_short_and_speaks_of_known_axes(module: Path) -> None:
    source = module.read_text()

    assert source.count("\n") <= MOST_LINES
    assert words_of_shapes(source) <= set(DIMENSIONS)


def test_no_function_is_long() -> None:
    long = [
        f"{module.relative_to(PACKAGE)}:{node.name}"
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.body[_documented(node)].lineno >= 60
    ]

    assert long == []


def _documented(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Where the code of a function begins: behind its docstring, if more than that is there."""
    return 1 if ast.get_docstring(node) and len(node.body) > 1 else 0


def test_every_public_name_is_there_and_no_other() -> None:
    assert list(mechint.__all__) == sorted(set(mechint.__all__))
    for name in mechint.__all__:
        assert getattr(mechint, name) is not None
    assert set(dir(mechint)) == {*mechint.__all__, "__version__"}
    with pytest.raises(AttributeError, match=r"has no attribute 'lode'\. Public names: Activations"):
        _ = mechint.lode  # type: ignore[attr-defined]


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    branch = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname or alias.name for node in branch.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }

    assert imported == set(mechint.__all__)


def loaded_by(code: str) -> list[str]:
    """Which heavy packages a fresh Python has loaded after some code."""
    told = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import mechint") == []


def test_what_is_loaded_would_be_noticed() -> None:
    assert loaded_by("import mechint; mechint.Findings") == ["pandas"]


def test_every_error_is_drawn_in_its_tree_at_its_place() -> None:
    classes = {
        name: one
        for name, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, Exception) and one.__module__ == errors.__name__
    }
    drawn: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        bare = line.lstrip("│├└─ ")
        name = bare.split(" ")[0] if bare else ""
        if name in classes:
            depth = (len(line) - len(bare)) // 4
            above[depth] = name
            drawn[name] = above[depth - 1] if depth else "Exception"

    assert drawn == {name: one.__bases__[0].__name__ for name, one in classes.items()}


# Importing __main__ would run it.
@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "__main__.py"], ids=lambda path: str(path.name))
def test_every_module_can_be_imported_by_itself(module: Path) -> None:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    assert importlib.import_module(name).__doc__
