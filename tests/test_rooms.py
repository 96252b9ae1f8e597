"""The rooms of the package: each imports only from rooms below it, without circles, and CONTRIBUTING says so."""

import ast
import re
from pathlib import Path

import pytest

import tectum

PACKAGE = Path(tectum.__file__).parent
CONTRIBUTING = PACKAGE.parents[1] / "CONTRIBUTING.md"
FOUNDATION = ("weights", "machine", "provenance", "filters", "arrays", "files", "section", "errors")
ROOMS = (
    "cli", "bench", "recipes", "evaluation", "predict", "export", "engines", "losses", "models", "metrics", "viz",
    "scenes", "data", *FOUNDATION,
)  # fmt: skip
"""From the top. `tectum` itself stands at the top for its lazy names, and at the bottom for its version."""

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def imports_of(file, *, top_level_only=False):
    """(line, module) of everything of tectum that a file imports, functions and annotations included."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] == "tectum")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tectum":
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield node.lineno, whole if whole in MODULES else node.module


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_module_has_its_room():
    assert {room_of(module) for module in MODULES} - {None, "__main__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_below_it(room):
    below = ROOMS[ROOMS.index(room) :]
    upward = [
        f"{file.relative_to(PACKAGE)}:{line} imports {module}"
        for name, file in MODULES.items()
        if room_of(name) == room
        for line, module in imports_of(file)
        if room_of(module) is not None and room_of(module) not in below
    ]
    assert upward == []


def test_no_module_imports_itself_in_a_circle():
    graph = {
        name: {module for _, module in imports_of(file, top_level_only=True) if module in MODULES and module != name}
        for name, file in MODULES.items()
        if name != "tectum"
    }
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done or name not in graph:
            return
        for module in sorted(graph[name]):
            # A package's names come from its modules, which do not go through it.
            if not name.startswith(f"{module}."):
                visit(module, [*path, name])
        done.add(name)

    for name in graph:
        visit(name, [])


def test_contributing_says_what_the_rooms_are():
    if not CONTRIBUTING.is_file():
        pytest.skip("an installed package has no CONTRIBUTING.md")
    table = re.findall(r"^\| (`[^|]+) \| [^|]+ \| ([^|]*) \|$", CONTRIBUTING.read_text(encoding="utf-8"), re.MULTILINE)
    said = {
        name: set(re.findall(r"`(\w+)`", rooms)) for names, rooms in table for name in re.findall(r"`(\w+)`", names)
    }
    found = {room: set() for room in ROOMS}
    for name, file in MODULES.items():
        if room_of(name) in found:
            found[room_of(name)] |= {room_of(module) for _, module in imports_of(file)} - {None, room_of(name)}
    assert list(said) == [*(room for room in ROOMS if room not in FOUNDATION), *FOUNDATION]
    for room, rooms in found.items():
        assert rooms - set(FOUNDATION) <= said[room], room
        assert said[room] <= rooms, room


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_are_short_and_packages_hold_names_alone(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 700
    if file.name == "__init__.py" and file.parent != PACKAGE:
        body = ast.parse(text).body
        assert not [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
