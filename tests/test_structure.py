"""The rooms of bench/ stand in an order, and a room imports only from rooms above it."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

# From the top down. Rooms on one line may import each other, as long as their modules form no circle.
ORDER = (
    ("simulated",),
    ("errors", "verdicts", "files", "paths", "console", "command", "frozen"),
    ("suite",),
    ("calls",),
    ("pictures",),
    ("record",),
    ("run",),
    ("installs",),
    ("upgrade",),
    ("history",),
    ("calibration",),
    ("proofs",),
    ("faults",),
    ("tune",),
    ("report",),
    ("prefetch", "timeline", "tuner", "accept"),
    ("plugin",),
    ("training",),
)
LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MOST_ROOMS = 26
TORCH_FREE = ("bench.suite.file", "bench.record.record")
WORKER = "bench.upgrade.worker"


@dataclass(frozen=True)
class Import:
    """A module that another one imports.

    Attributes:
        for_types: it is imported only for type checkers.
        late: it is imported inside a function.
    """

    name: str
    for_types: bool
    late: bool


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Everything that a module imports, anywhere in the module; of ``from a import b`` both ``a`` and ``a.b``.

    Packages are imported with what is in them: of ``a.b`` both ``a`` and ``a.b``.
    """

    def visit(node: ast.AST, for_types: bool, late: bool) -> Iterator[Import]:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        together = {".".join(name.split(".")[:count]) for name in names for count in range(1, name.count(".") + 2)}
        yield from (Import(name, for_types, late) for name in sorted(together))
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for_types = True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            late = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, for_types, late)

    yield from visit(ast.parse(source), False, False)


def read_modules(root: Path) -> dict[str, tuple[Import, ...]]:
    """The imports of each module of ``bench``, by its name."""
    found = {}
    for path in sorted((root / "bench").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = tuple(imports_of(path.read_text(encoding="utf-8"), ".".join(parts[:-1])))
    return found


def graph_of(modules: Mapping[str, tuple[Import, ...]]) -> dict[str, set[str]]:
    """The modules of ``bench`` that each of them imports."""
    return {name: {one.name for one in found if one.name in modules} - {name} for name, found in modules.items()}


def room_of(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def rooms_of(modules: Mapping[str, tuple[Import, ...]]) -> set[str]:
    """The rooms at the top of ``bench``; its benchmarks, which may import anything, are none."""
    return {room for room in map(room_of, modules) if room and not room.startswith("test_")}


def upward_imports(modules: Mapping[str, tuple[Import, ...]]) -> list[str]:
    """Each import of a room further down, such as ``bench.suite.a imports bench.calls.b``."""
    rooms = rooms_of(modules)
    return [
        f"{name} imports {other}"
        for name, others in graph_of(modules).items()
        for other in sorted(others)
        if {room_of(name), room_of(other)} <= rooms and LEVELS[room_of(other)] > LEVELS[room_of(name)]
    ]


def circle_in(modules: Mapping[str, tuple[Import, ...]]) -> list[str]:
    """Modules that import each other, directly or through others; empty if there are none."""
    graph = graph_of(modules)
    while leaves := {name for name, others in graph.items() if not others}:
        graph = {name: others - leaves for name, others in graph.items() if name not in leaves}
    while outer := set(graph) - {other for others in graph.values() for other in others}:
        graph = {name: others for name, others in graph.items() if name not in outer}
    return sorted(graph)


def reached_from(module: str, modules: Mapping[str, tuple[Import, ...]]) -> set[str]:
    """The module, and those that it may import when it runs."""
    found, new = {module}, {module}
    while new:
        new = {one.name for name in new for one in modules[name] if not one.for_types and one.name in modules} - found
        found |= new
    return found


def needs_pydantic(module: str, modules: Mapping[str, tuple[Import, ...]]) -> list[str]:
    """The modules that a module may import and that cannot be imported without pydantic."""

    def imports_it(name: str) -> bool:
        found = (one for one in modules[name] if not one.for_types and not one.late)
        return any(one.name.partition(".")[0] == "pydantic" for one in found)

    return sorted(filter(imports_it, reached_from(module, modules)))


@pytest.fixture(scope="module")
def modules():
    return read_modules(PROJECT)


def test_each_room_has_a_place_in_the_order(modules):
    assert rooms_of(modules) - set(LEVELS) == set()


def test_no_module_imports_from_a_room_further_down(modules):
    assert upward_imports(modules) == []


def test_no_modules_import_each_other_in_a_circle(modules):
    assert circle_in(modules) == []


def test_there_are_few_rooms(modules):
    assert len(rooms_of(modules)) <= MOST_ROOMS


def test_the_worker_runs_where_there_is_no_pydantic(modules):
    assert {"bench.calls.sampling", "bench.calls.work", "bench.suite.schedulers"} <= reached_from(WORKER, modules)
    assert needs_pydantic(WORKER, modules) == []


@pytest.mark.parametrize("module", TORCH_FREE)
def test_suite_and_record_import_no_torch(module):
    script = f"import sys, {module}; print(*sorted({{'torch', 'diffusers', 'transformers'}} & {{*sys.modules}}))"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.split() == []


@pytest.fixture
def made_up(tmp_path):
    """Modules with these sources, given by their paths in ``bench``."""

    def made_up(sources):
        for place, source in sources.items():
            path = tmp_path / "bench" / f"{place}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return read_modules(tmp_path)

    return made_up


WAYS = {
    "from": "from bench.calls.b import x",
    "of a package": "from bench.calls import b",
    "import": "import bench.calls.b as c",
    "relative": "from ..calls import b",
    "relative to a module": "from ..calls.b import x",
    "in a function": "def f():\n    from bench.calls import b",
    "in a method": "class C:\n    def f(self):\n        import bench.calls.b",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bench.calls.b import x",
    "if it is there": "try:\n    import bench.calls.b\nexcept ImportError:\n    pass",
}


@pytest.mark.parametrize("source", WAYS.values(), ids=WAYS)
def test_every_import_from_further_down_is_seen(made_up, source):
    assert upward_imports(made_up({"suite/a": source, "calls/b": ""})) == ["bench.suite.a imports bench.calls.b"]


@pytest.mark.parametrize("source", WAYS.values(), ids=WAYS)
def test_imports_from_further_up_or_the_same_room_are_allowed(made_up, source):
    assert upward_imports(made_up({"run": source.replace("..", "."), "calls/a": source, "calls/b": ""})) == []


def test_a_room_without_a_place_is_seen(made_up):
    assert rooms_of(made_up(dict.fromkeys(["attic/a", "suite/b", "test_cases", "__init__"], ""))) - set(LEVELS) == {
        "attic"
    }


@pytest.mark.parametrize("source", ["import bench.suite.a", "def f():\n    from bench.suite import a"])
def test_a_circle_is_seen_and_no_module_outside_it(made_up, source):
    ring = {"suite/a": "import bench.suite.b", "suite/b": "from bench.suite import c", "suite/c": source}
    outside = {"calls/user": "import bench.suite.a", "files": "", "suite/d": "import bench.files"}
    assert circle_in(made_up(ring | outside)) == ["bench.suite.a", "bench.suite.b", "bench.suite.c"]
    assert circle_in(made_up(ring | outside | {"suite/c": "import bench.files"})) == []


def test_pydantic_is_seen_where_it_is_needed_and_only_there(made_up):
    sources = {
        "upgrade/worker": "def f():\n    import bench.calls.a",
        "calls/a": "import bench.calls.b\nif TYPE_CHECKING:\n    import bench.suite.case",
        "calls/b": "def f():\n    from pydantic import TypeAdapter",
        "calls/c": "import pydantic",
        "suite/case": "from pydantic import Field",
    }
    assert needs_pydantic(WORKER, made_up(sources)) == []
    needing = {"calls/b": "def f():\n    from bench.calls import c", "calls/__init__": "from pydantic import Field"}
    assert needs_pydantic(WORKER, made_up(needing)) == ["bench.calls", "bench.calls.c"]
