"""The house's order: imports between the layers point down, and an import of tracejit is cheap.

Read from the syntax trees, so that a lazy import inside a function counts too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import tracejit

PACKAGE = Path(tracejit.__file__).parent

# From the roof to the ground; a layer may import itself and what stands after it. Layers on one
# line may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("tracejit",),
    ("__main__", "cli"),
    ("viz",),
    ("frontend",),
    (
        "namespace",
        "tensor",
        "writes",
        "functions",
        "immediate",
        "operators",
        "protocols",
        "signatures",
        "tracing",
    ),
    ("runtime",),
    ("codegen",),
    ("schedule",),
    ("graph",),
    ("ops",),
    ("config", "digest", "files"),
    ("gate", "main_interpreter"),
    ("errors", "sizes", "record"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Together these take half a second to import; `import tracejit` needs none of them.
HEAVY = ("networkx", "llvmlite", "cpuinfo", "typer", "rich", "pint")


class Import(NamedTuple):
    """One imported module: where the statement stands, and whether it runs at import."""

    name: str
    line: int
    at_import: bool


def sources() -> dict[str, Path]:
    """Return module name → file for the whole package."""
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def names(node: ast.stmt, module: str) -> Iterator[str]:
    """Yield the full names of the modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module.split(".")
            if SOURCES[module].name != "__init__.py":
                package.pop()
            package = package[: len(package) - node.level + 1]
            base = ".".join([*package, base] if base else package)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in SOURCES else base


def walk(body: list[ast.stmt], at_import: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield every statement, and whether it runs when the module is imported."""
    for node in body:
        yield node, at_import
        inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            for inner in getattr(node, field, ()):
                block = [inner] if isinstance(inner, ast.stmt) else inner.body
                yield from walk(block, inside and not (is_type_checking(node) and field == "body"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    """Return what a module imports, anywhere in its file."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    return tuple(
        Import(name, node.lineno, at_import)
        for node, at_import in walk(tree.body, True)
        for name in names(node, module)
    )


def layer(module: str) -> str:
    """Return the layer that a module of the package belongs to."""
    return module.partition(".")[2].partition(".")[0] or "tracejit"


def loaded_with(module: str) -> Iterator[tuple[str, ...]]:
    """Yield an import chain from ``module`` to each module that its import loads."""
    seen: set[str] = set()
    chains: list[tuple[str, ...]] = [(module,)]
    while chains:
        chain = chains.pop()
        if chain[-1] in seen:
            continue
        seen.add(chain[-1])
        yield chain
        if chain[-1] in SOURCES:
            for found in imports(chain[-1]):
                if found.at_import:
                    parts = found.name.split(".")
                    packages = (".".join(parts[: n + 1]) for n in range(len(parts)))
                    chains.extend((*chain, package) for package in packages)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str):
    assert layer(module) in RANK, f"give the layer of {module} a place in LAYERS"
    own = RANK[layer(module)]
    upward = [
        f"{SOURCES[module]}:{found.line} imports {found.name}"
        for found in imports(module)
        if found.name.split(".")[0] == "tracejit" and RANK[layer(found.name)] < own
    ]
    assert not upward, "\n".join(upward)


def test_nothing_heavy_is_imported_on_the_way():
    heavy = [
        " → ".join(chain) for chain in loaded_with("tracejit") if chain[-1].split(".")[0] in HEAVY
    ]
    assert not heavy, "\n".join(heavy)


def run(code: str, environ: dict[str, str] | None = None) -> str:
    """Run ``code`` in a new interpreter that finds this tracejit; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_import_loads_next_to_nothing():
    loaded = run("import tracejit, sys; print(*sys.modules)").split()
    assert not {name.split(".")[0] for name in loaded} & {*HEAVY, "numpy"}
    ours = {name for name in loaded if name.startswith("tracejit")}
    assert ours == {"tracejit", "tracejit.errors", "tracejit.main_interpreter"}


def test_help_loads_no_more_than_the_terminal_libraries():
    loaded = run(
        "import sys; sys.argv = ['tracejit', '--help']\n"
        "from tracejit.cli import app\n"
        "try:\n    app()\nfinally:\n    print(*sys.modules)"
    ).split()
    assert "typer" in loaded
    assert not {"numpy", "networkx", "llvmlite", "tracejit.tensor"} & set(loaded)


def test_the_package_knows_its_modules():
    modules = {layer(name) for name in SOURCES} - {"tracejit"}
    assert modules - {"tensor"} <= tracejit._MODULES  # pyright: ignore[reportPrivateUsage]


def test_the_array_function_tensor_is_not_its_module():
    assert run("import tracejit as tj; tj.jit; print(tj.tensor)").startswith("<function tensor")
    assert run("from tracejit import *; print(jit, softmax, tensor)").count("function") == 3


@pytest.mark.parametrize("before", ["gc.enable()", "gc.disable()", "gc.freeze()"])
def test_loading_leaves_the_garbage_collector_as_it_was(before: str):
    state = "(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0)"
    code = f"import gc, tracejit as tj; {before}; was = {state}; tj.jit; tj.exp"
    assert run(f"{code}; print(was == {state})") == "True\n"


def test_what_is_loaded_is_not_looked_at_for_garbage():
    code = (
        "import gc, numpy, tracejit as tj; looks = []\n"
        "gc.callbacks.append(lambda phase, about: looks.append(about['generation']))\n"
        "tj.jit; made = [[] for _ in range(3000)]\n"
        "print(max(looks), len(gc.get_objects(2)) > 10_000)"
    )
    assert run(code) == "0 True\n"


def test_the_reader_of_imports_sees_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "sample.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "import a.b as c\n"
        "if TYPE_CHECKING:\n    import typed\n"
        "else:\n    import untyped\n"
        "try:\n    import tried\nexcept ImportError:\n    import instead\n"
        "class C:\n    import inner\n    def f(self):\n        from . import errors, __version__\n"
        "match 1:\n    case 1:\n        import matched\n"
    )
    monkeypatch.setitem(SOURCES, "tracejit.sample", file)
    try:
        found = imports("tracejit.sample")
    finally:
        imports.cache_clear()
    assert [(name, at_import) for name, _, at_import in found] == [
        ("typing", True),
        ("a.b", True),
        ("typed", False),
        ("untyped", True),
        ("tried", True),
        ("instead", True),
        ("inner", True),
        ("tracejit.errors", False),
        ("tracejit", False),
        ("matched", True),
    ]
