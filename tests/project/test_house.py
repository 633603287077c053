"""Who imports whom in the package, read from its sources: layers are kept, without circles."""

import ast
import graphlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "miewid_core"
CORE, FACE, COMMANDS = "core", "__init__", "__main__"
PAPER = {CORE, "readers", "demo", "runs", "paper"}
MAY_IMPORT = {  # layers from which a layer may import
    CORE: {CORE},
    "readers": {CORE, "readers"},
    "demo": {CORE, "demo"},
    "runs": {CORE, "runs"},
    "paper": PAPER,
    "beyond_paper": PAPER | {"beyond_paper"},
    "bench": PAPER | {"beyond_paper", "bench"},
    FACE: PAPER,  # names it exports are imported when they are asked for
    COMMANDS: PAPER | {"beyond_paper", "bench"},
}
MOST = 25  # modules of ours, packages included, that are loaded when notebook 04 has run
ON_THE_WAY = 18  # of them, those whose code runs between its opening and its last figure


def modules(package):
    """Path of each module by its name without the package's, "" for the package itself."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def exports(tree):
    """The module of each lazily exported name: EXPORTS of the package's __init__."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXPORTS":
            return {name: module for name, (module, _) in ast.literal_eval(node.value).items()}
    return {}


def imports(package, preloads=False):
    """The modules that each module imports, anywhere in its file and by whatever means.

    A string that is the full name of a module counts (`import_module`), an f-string that begins
    with a package's name counts as all modules of that package, and a name that the package exports
    lazily counts as its module. What `set_forkserver_preload` names is imported by another process:
    it counts with `preloads`, alone.
    """
    there = modules(package)
    trees = {name: ast.parse(path.read_text()) for name, path in there.items()}
    lazy = exports(trees[""])
    graph = {name: set() for name in there}
    for name, tree in trees.items():
        preloaded = {part for call in preloading(tree) for part in ast.walk(call)}
        for node in preloaded if preloads else {*ast.walk(tree)} - preloaded:
            graph[name] |= set(_imported(node, package.name, there, lazy))
        graph[name] -= {name, "", None}
    graph[""] |= set() if preloads else {*lazy.values()}
    return graph


def preloading(tree):
    """The calls of set_forkserver_preload, which takes a name that doesn't exist silently."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [c for c in calls if getattr(c.func, "attr", "") == "set_forkserver_preload"]


def _imported(node, package, there, lazy):
    if isinstance(node, ast.Import):
        yield from (_ours(alias.name, package, there) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        base = _ours(node.module, package, there)
        if base is not None:
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in there else base or lazy.get(alias.name, "")
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield _ours(node.value, package, there)
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        folder = _ours(node.values[0].value.rstrip("."), package, there)
        inside = (name for name in there if folder and name.startswith(f"{folder}."))
        yield from (name for name in inside if not name.endswith(COMMANDS))


def _ours(name, package, there):
    """A module's name within the package, or None for what is none of its modules."""
    inner = name.removeprefix(package).lstrip(".")
    return inner if name.partition(".")[0] == package and inner in there else None


def layer(name):
    """The folder a module lies in; a file beside the folders is of the core."""
    folder, _, rest = name.partition(".")
    if name in ("", COMMANDS):
        return name or FACE
    return folder if rest or folder in MAY_IMPORT else CORE


def breaches(package):
    """Each import that its layer may not do, as "importer -> imported", and each circle."""
    graph, preloads = imports(package), imports(package, preloads=True)
    found = [
        f"{name} -> {imported}"
        for name in sorted(graph)
        for imported in sorted(graph[name] | preloads[name])
        if layer(imported) not in MAY_IMPORT[layer(name)]
    ]
    del graph[""]  # whose names are imported when they are asked for
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("circle: " + " -> ".join(_from_the_first(error.args[1][:0:-1])))
    return found


def _from_the_first(circle):
    """The circle from its first name in the alphabet on, and back to it."""
    start = circle.index(min(circle))
    return [*circle[start:], *circle[: start + 1]]


def test_every_import_of_the_package_is_allowed():
    found = breaches(PACKAGE)
    assert not found, "\n".join(found)


def test_every_folder_has_its_place():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == MAY_IMPORT.keys() - {CORE, FACE, COMMANDS}


HOUSE = {  # a small package that keeps the rules
    "__init__.py": 'EXPORTS = {"open_study": ("paper.study", "open_study")}',
    "__main__.py": "from house.beyond_paper import identify",
    "files.py": "import json",
    "model.py": "from house import files",
    "runs/__init__.py": "",
    "runs/run.py": "from house.model import load",
    "paper/__init__.py": "",
    "paper/study.py": "import house.runs.run",
    "beyond_paper/__init__.py": "",
    "beyond_paper/identify.py": "def identify():\n    from house import open_study",
    "bench/__init__.py": "",
    "bench/tasks.py": 'import_module(f"house.beyond_paper.{name}")',
}


@pytest.fixture
def house(tmp_path):
    """Draws the small package, some of its files replaced."""

    def drawn(changes):
        for name, text in (HOUSE | changes).items():
            path = tmp_path / "house" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "house"

    return drawn


def test_a_sound_house_passes_and_is_read_whole(house):
    package = house({})
    assert breaches(package) == []
    graph = imports(package)
    assert graph["beyond_paper.identify"] == graph[""] == {"paper.study"}
    assert graph["bench.tasks"] == {"beyond_paper.identify"}
    assert graph["paper.study"] == {"runs.run"}


def test_a_preload_of_what_imports_it_is_no_circle(house):
    preload = 'context.set_forkserver_preload(["house.model"])'
    assert breaches(house({"files.py": preload})) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("files.py", "from house.model import load", "circle: files -> model -> files"),
        ("files.py", "from house.runs import run", "files -> runs.run"),
        ("files.py", 'import_module("house.runs.run")', "files -> runs.run"),
        ("files.py", "def f():\n    from house import open_study", "files -> paper.study"),
        (
            "paper/study.py",
            "from house.beyond_paper import identify",
            "paper.study -> beyond_paper.identify",
        ),
        ("beyond_paper/identify.py", "import house.bench.tasks", None),
        ("__init__.py", 'EXPORTS = {"go": ("bench.tasks", "go")}', " -> bench.tasks"),
    ],
)
def test_a_breach_is_named(house, name, text, found):
    named = breaches(house({name: text}))
    assert (found or "beyond_paper.identify -> bench.tasks") in named


def run(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def loaded(code):
    """The modules that a fresh interpreter has loaded after `code`."""
    return run(f"{code}\nimport sys\nprint(*sys.modules)")


def test_the_package_alone_is_fast_to_import():
    heavy = {"torch", "pandas", "numpy", "timm", "matplotlib", "albumentations"}
    assert not heavy & set(loaded("import miewid_core"))


WAY = """
import json, sys, threading
import nbformat
from IPython.core.interactiveshell import InteractiveShell

def note(frame, event, _):
    if event == "call" and frame.f_code.co_name != "<module>":
        entered.add(frame.f_globals.get("__name__", ""))

InteractiveShell.instance()  # what is displayed can be updated
entered, namespace = set(), {"__name__": "notebook"}
cells = nbformat.read(sys.argv[1], as_version=4).cells
for cell in cells:
    if cell.cell_type == "code":
        if "on_the_way" in sys.argv and "open_study(" in cell.source:
            threading.setprofile(note)
            sys.setprofile(note)
        exec(cell.source, namespace)
        if "parameters" in cell.metadata.get("tags", []):
            namespace |= json.loads(sys.argv[2])
sys.setprofile(None)
ours = [name for name in sys.modules if name.partition(".")[0] == "miewid_core"]
print(json.dumps([ours, [name for name in entered if name in ours]]))
"""


@pytest.mark.slow
def test_notebook_04_needs_few_modules(small_catalog, tmp_path):
    """Run twice: the first run trains, and what is trained already needs no module of training."""
    notebook = ROOT / "notebooks" / "04_multi_vs_single.ipynb"
    given = {"catalog": str(small_catalog), "trainings": 2, "epochs": 1}
    given |= {name: str(tmp_path / name) for name in ("figures_dir", "runs_dir")}
    command = [sys.executable, "-c", WAY, str(notebook), json.dumps(given), "on_the_way"]
    surroundings = os.environ | {"MIEWID_CACHE": str(tmp_path), "TQDM_DISABLE": "1"}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=surroundings)
        assert done.returncode == 0, done.stderr
    ours, entered = json.loads(done.stdout.splitlines()[-1])
    assert "miewid_core.paper.study" in entered
    assert len(ours) <= MOST, sorted(ours)
    assert len(entered) <= ON_THE_WAY, sorted(entered)


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BOILERPLATE = 0.15  # of a notebook's code lines are imports and its opening, at most
MOST_IMPORTED = 2  # modules of its experiment that a notebook imports beside the core, at most


def opening(notebook):
    """Lines of code, those of them that import or open the study, modules beside the core's."""
    count, boilerplate, found, there = 0, 0, set(), modules(PACKAGE)
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", []):
            continue
        lines = [line.strip() for line in cell.source.splitlines()]
        count += sum(bool(line) and not line.startswith("#") for line in lines)
        for node in ast.parse(cell.source).body:
            imported = isinstance(node, ast.Import | ast.ImportFrom)
            if imported or "open_study(" in ast.unparse(node):
                boilerplate += node.end_lineno - node.lineno + 1
            found |= {name for name in _imported(node, PACKAGE.name, there, {}) if name}
    return count, boilerplate, {name for name in found if layer(name) != CORE}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_in_few_lines(notebook):
    count, boilerplate, imported = opening(notebook)
    assert boilerplate <= BOILERPLATE * count, f"{boilerplate} of {count} lines"
    assert len(imported) <= MOST_IMPORTED, sorted(imported)


def test_what_the_forkserver_loads_exists():
    names = {
        part.value
        for path in PACKAGE.rglob("*.py")
        for call in preloading(ast.parse(path.read_text()))
        for part in ast.walk(call)
        if isinstance(part, ast.Constant)
    }
    assert "miewid_core.chips" in names
    for name in names:
        assert importlib.util.find_spec(name), name
