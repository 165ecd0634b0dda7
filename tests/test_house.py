"""The house: rooms import only rooms that stand above them, modules never in circles, and nobody imports torch."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jepa_jax"

# From the top of the house to its cellar, as CONTRIBUTING.md lists it. What stands in one line may not import its
# neighbours.
HOUSE = [
    {"errors", "_version", "_log_level", "_lazy"},
    {"paths"},
    {"parquet", "batch_kinds", "short_table", "extras", "markdown"},
    {"images"},
    {"numerics"},
    {"provenance"},
    {"layers"},
    {"encoders"},
    {"jacobian"},
    {"spectrum"},
    {"scoring"},
    {"amortised"},
    {"loading"},
    {"jobs"},
    {"costs"},
    {"batch_scorer"},
    {"scored"},
    {"training"},
    {"analysis"},
    {"studies"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(HOUSE) for room in rooms}
WINGS = {
    "jobs": [
        {"output", "processes", "progress", "failure_limit", "stopping"},
        {"options"},
        {"rows"},
        {"extension", "measured_noise", "open_shard", "pins", "upgrade"},
        {"plan"},
        {"work"},
        {"runner"},
        {"amortising"},
    ],
}
"""Of a large room its own order, from the top: a wing, or a module, imports what stands above it."""
LAZILY = {"loading", "cli"}
"""Rooms that may import `convert_weights`, which stands on the encoders, and only within a function."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path, *, everywhere: bool) -> frozenset[str]:
    """Modules that a file imports: when it is loaded itself, or anywhere in it."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", [name for name in modules() if name != "jepa_jax"])
def test_rooms_import_only_rooms_above_them(module: str):
    here = room(module)
    for imported in imports(modules()[module], everywhere=True):
        name, _, rest = imported.partition(".")
        if name == "jepa_jax" and rest:
            there = room(imported)
            if there in FLOOR and there != here:
                assert FLOOR[there] < FLOOR[here], f"{module} imports {imported}"
        if name == "convert_weights":
            assert here in LAZILY, f"{module} imports {imported}"
        assert name != "torch", f"{module} imports torch"


def test_every_room_has_its_floor():
    assert {room(name) for name in modules() if name != "jepa_jax"} == set(FLOOR)


@pytest.mark.parametrize("name", WINGS)
def test_wings_import_only_wings_above_them(name: str):
    floor = {wing: number for number, wings in enumerate(WINGS[name]) for wing in wings}
    inside = {module: module.split(".")[2] for module in modules() if module.startswith(f"jepa_jax.{name}.")}
    assert set(inside.values()) == set(floor)
    for module, here in inside.items():
        for imported in imports(modules()[module], everywhere=True):
            there = inside.get(imported, here)
            assert there == here or floor[there] < floor[here], f"{module} imports {imported}"


def test_no_module_imports_itself_in_a_circle():
    known = modules()
    graph = {
        name: {other for other in imports(path, everywhere=False) if other in known and other != name}
        for name, path in known.items()
        if name != "jepa_jax"
    }
    TopologicalSorter({name: others for name, others in graph.items() if known[name].name != "__init__.py"}).prepare()


def test_a_packages_own_file_only_gathers():
    """What it defined would escape the look for circles."""
    for name, path in modules().items():
        if path.name == "__init__.py" and name != "jepa_jax":
            tree = ast.parse(path.read_text())
            assert not [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)], name


def test_images_know_nothing_of_jax():
    for name, path in modules().items():
        if name.startswith("jepa_jax.images"):
            assert not {imported.split(".")[0] for imported in imports(path, everywhere=True)} & {"jax", "flax"}, name
