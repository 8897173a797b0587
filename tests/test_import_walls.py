"""The floors of the house, and who may import whom: read from the source with ``ast``.

Imports inside functions and under ``TYPE_CHECKING`` count like any other: a floor is what a
module knows of, not what happens to be loaded.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# ── The house. A module belongs to the longest name here that it starts with. ──────────────

# From the ground up: a module imports from its own floor and the floors below it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "ir.dtypes"),
    ("ir.dims", "ir.types", "ir.origin", "ir.expression", "ir.initializers"),
    ("ir", "ir.kernel"),  # brick.py, value.py, graph.py, builder.py, the text form …
    ("ir.bricks",),
    ("compiler", "frontends"),
    ("compiler.lower", "backends"),
    ("runtime",),
    ("",),  # the facade: __init__.py, cli/, and whatever else lies at the root
)

# Narrower than its floor: these import nothing but the names listed, and themselves.
ONLY: dict[str, tuple[str, ...]] = {
    "ir.kernel": ("errors", "ir.dims", "ir.dtypes"),
    "backends": ("errors", "ir.dims", "ir.dtypes", "ir.kernel"),
}

# Third-party packages that a single module may import.
OWNED = {"networkx": "ir.graph"}

# Never imported at a module's top level, so that `import brickc` stays light.
HEAVY = frozenset(
    "PIL google h5py jax lmdb matplotlib onnx onnxruntime sklearn torch triton".split()  # noqa: SIM905
)

# ───────────────────────────────────────────────────────────────────────────────────────────

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("ir", "compiler", "backends", "frontends", "runtime", "tuning", "cli")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    .removesuffix("__init__")
    .rstrip("."): path
    for path in sorted(
        [*ROOT.glob("*.py"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.py"))]
    )
}


@dataclass(frozen=True)
class Import:
    target: str  # dotted; within the package without the leading "brickc"
    line: int
    inside: bool  # of the package
    eager: bool  # runs when the module is imported


def within(module: str, prefix: str) -> bool:
    return not prefix or module == prefix or module.startswith(prefix + ".")


def floor(module: str) -> int:
    homes = [(name, i) for i, names in enumerate(FLOORS) for name in names if within(module, name)]
    return max(homes, key=lambda home: len(home[0]))[1]


def imports(module: str, path: Path) -> Iterator[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def targets(base: str, names: list[ast.alias]) -> Iterator[str]:
        """`from base import a, b`: the submodule where there is one, else base itself."""
        for alias in names:
            full = f"{base}.{alias.name}".lstrip(".")
            yield full if full in FILES else base

    def walk(node: ast.AST, eager: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                inside = within(alias.name, "brickc")
                target = alias.name.removeprefix("brickc").lstrip(".") if inside else alias.name
                yield Import(target, node.lineno, inside, eager)
        elif isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".") if package else []
            assert node.level - 1 <= len(parts), f"{path}:{node.lineno}: out of the package"
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            for target in targets(base, node.names):
                yield Import(target, node.lineno, True, eager)
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if within(name, "brickc"):
                for target in targets(name.removeprefix("brickc").lstrip("."), node.names):
                    yield Import(target, node.lineno, True, eager)
            else:
                yield Import(name, node.lineno, False, eager)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for child in ast.iter_child_nodes(node):
                yield from walk(child, False)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, False)
            for child in node.orelse:
                yield from walk(child, eager)
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child, eager)

    yield from walk(ast.parse(path.read_text(encoding="utf-8"), str(path)), True)


def complaints(module: str, path: Path) -> Iterator[str]:
    here = module or "the facade"
    for found in imports(module, path):
        where = f"{path.relative_to(ROOT)}:{found.line}: "
        top = found.target.partition(".")[0]
        if not found.inside:
            if found.eager and top in HEAVY:
                yield f"{where}{top} is heavy; import it inside the function that needs it"
            if top in OWNED and module != OWNED[top]:
                yield f"{where}only {OWNED[top]} imports {top}"
            continue
        if floor(found.target) > floor(module):
            yield f"{where}{here} imports {found.target or 'the facade'}, which lies higher"
        for name, allowed in ONLY.items():
            if within(module, name) and not any(within(found.target, a) for a in (name, *allowed)):
                yield f"{where}{name} imports only {', '.join(allowed)}; got {found.target}"


@pytest.mark.parametrize("module", FILES, ids=lambda module: module or "brickc")
def test_imports_keep_to_their_floor(module: str) -> None:
    found = list(complaints(module, FILES[module]))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("ir.dims", "from .graph import Graph", "lies higher"),
        ("ir.dims", "def f():\n    from ..compiler import pipeline", "lies higher"),
        ("ir.graph", "from .bricks import conv", "lies higher"),
        ("compiler.fuse", "from .lower import scalar", "lies higher"),
        ("compiler.fuse", "from brickc import cli", "lies higher"),
        ("backends.c.printer", "from ...ir.graph import Graph", "backends imports only"),
        ("backends.c.printer", "from ...ir import graph", "backends imports only"),
        ("backends.c.printer", "from ...compiler import pipeline", "backends imports only"),
        ("ir.kernel.cost", "from ..types import TensorType", "ir.kernel imports only"),
        ("compiler.fuse", "import networkx as nx", "only ir.graph imports networkx"),
        ("runtime.data.mnist", "try:\n    import PIL.Image\nexcept ImportError: ...", "heavy"),
    ],
)
def test_the_walls_stop(module: str, source: str, complaint: str, tmp_path: Path) -> None:
    assert any(complaint in text for text in examine(module, source, tmp_path))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ir.graph", "import networkx as nx\nfrom ..errors import VerifyError"),
        ("compiler.lower.conv", "from ...ir.bricks import conv\nfrom ..fuse import legal"),
        ("backends.c.printer", "from ...ir.kernel.anchors import Map\nfrom ..base import Backend"),
        ("backends.c.printer", "def f():\n    import torch"),
        ("frontends.onnx.reader", "if TYPE_CHECKING:\n    import onnx"),
        ("runtime.trainer", "from ..backends.numpy import printer"),
        ("", "from . import cli\nfrom .runtime import trainer"),
    ],
)
def test_the_walls_let_pass(module: str, source: str, tmp_path: Path) -> None:
    assert list(examine(module, source, tmp_path)) == []


def examine(module: str, source: str, folder: Path) -> Iterator[str]:
    """The complaints about a module that is only imagined."""
    path = folder / ("module.py" if module else "__init__.py")
    path.write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "ROOT", folder)
        yield from complaints(module, path)


def test_every_package_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    there = {
        f"brickc.{module}".rstrip(".")
        for module, path in FILES.items()
        if path.name == "__init__.py"
    }
    assert sorted(there) == project["tool"]["setuptools"]["packages"], "see pyproject.toml"
    bare = {path.parent for path in FILES.values() if not (path.parent / "__init__.py").exists()}
    assert not bare, "folders with modules but no __init__.py"


def test_import_is_light() -> None:
    program = "import sys, brickc; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert HEAVY.isdisjoint(done.stdout.split())
