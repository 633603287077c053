"""The project's own promises: packages in agreement, hygiene of notebooks, what they save."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from miewid_core.files import file_digest
from miewid_core.runs import manifest, notebooks

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMMON = {
    *("catalog", "on_problem", "preset", "sides_differ", "pretrained", "image_size", "epochs"),
    *("figures_dir", "runs_dir", "seed", "scheduler", "photos_dir", "absolute_paths", "species"),
}


def requirements(lines):
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


@pytest.fixture(scope="module")
def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return requirements(project["dependencies"] + project["optional-dependencies"]["test"])


def test_conda_names_the_same_packages_and_bounds(declared):
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = requirements(line for line in pip if not line.startswith("-"))
    assert {n: str(r.specifier) for n, r in conda.items()} == {
        n: str(r.specifier) for n, r in declared.items()
    }


def test_the_lock_pins_every_package_within_its_bounds(declared):
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines]
    assert all(re.fullmatch(r"==[\w.+!]+", str(pin.specifier)) for pin in pins)
    for name, wanted in declared.items():
        found = [pin for pin in pins if canonicalize_name(pin.name) == name]
        assert found, f"{name} is not in requirements.lock: run make lock"
        for pin in found:
            version = Version(str(pin.specifier).removeprefix("=="))
            assert version in wanted.specifier, f"{pin} breaks {wanted}: run make lock"


def test_make_passes_values_with_blanks_on_as_they_are(tmp_path):
    shown = tmp_path / "bin" / "python"
    shown.parent.mkdir()
    shown.write_text('#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done\n')
    shown.chmod(0o755)
    (tmp_path / "installed").touch()
    values = ["CATALOG=it's mine.csv", 'SIDES_DIFFER=[a b, "$c"]', "ONLY=00 01"]
    command = ["make", "-s", "figures", f"VENV={tmp_path}", *values]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    words = [word.strip("<>") for word in done.stdout.splitlines()]
    assert words[:3] == ["-m", "miewid_core", "figures"]
    assert sorted(words[3:-3]) == sorted(values[:2])
    assert words[-3:] == ["--only", "00", "01"]


def notebooks_of(target):
    command = ["make", "-n", target, f"PYTHON={sys.executable}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in told.splitlines() if "--nbval" in line)
    return line.split("no:cacheprovider")[1]


def run_ci(folder, **more):
    """.ci/run where `folder` alone has programs: python3 is 3.11, make prints what it is to do."""
    programs = {"make": 'echo make "$@"', "python3": "echo 11", "chromium": ""} | more
    # a shim of pyenv, and a Python that Debian left without what makes environments
    programs |= {"python3.14": "exit 127", "python3.13": 'test "$2" != "import ensurepip"'}
    (folder / "bin").mkdir()
    for name, line in programs.items():
        if line is not None:
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (folder / "bin" / name).chmod(0o755)
    for name in ("bash", "dirname", "mktemp", "rm"):
        (folder / "bin" / name).symlink_to(shutil.which(name))
    places = {"PATH": str(folder / "bin"), "PYENV_ROOT": str(folder), "TMPDIR": str(folder)}
    return subprocess.run([ROOT / ".ci" / "run"], env=places, capture_output=True, text=True)


def test_ci_tries_the_newest_python_that_works(tmp_path):
    for name in ("3.9.18", "3.11.7", "3.12.1", "3.13.0"):
        python = tmp_path / "versions" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
    done = run_ci(tmp_path)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    newest = f"VENV=.venv-newest PYTHON={python}"
    assert first == "make test-all"
    assert [other.split(" ONLY=")[0] for other in others] == [
        f"make unit {newest}",
        f"make figures {newest}",
    ]
    assert "ONLY=01 04 EPOCHS=1" in others[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "versions"}  # its cache is gone


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_ci_installs_a_browser_where_none_is(tmp_path):
    asked = tmp_path / "asked"
    install = f'test "$2" = update || echo "$MIEWID_BROWSER $@" > {asked}; echo noise'
    done = run_ci(tmp_path, **{"chromium": None, "apt-get": install})
    assert asked.read_text() == "needed -qq install -y chromium\n"
    assert done.stdout == "make test-all\n"


def test_ci_fails_where_no_newer_python_works(tmp_path):
    done = run_ci(tmp_path)
    assert done.returncode == 1
    assert done.stdout == "make test-all\n"
    assert done.stderr.startswith("No working Python newer than 3.11 on this machine")


def test_the_quick_tests_leave_out_the_notebooks_that_take_long():
    much = re.compile(r"left_out\(|multi_seeds|few_shot|hyperparameters|harness\.now|networks\(")
    quick = [path for path in NOTEBOOKS if not any(much.search(c.source) for c in code_cells(path))]
    assert notebooks_of("test").split() == [f"notebooks/{path.name}" for path in quick]
    assert notebooks_of("test-all").split() == ["notebooks"]


def test_every_notebook_is_looked_at():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(18)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_executed_without_errors_or_warnings(self, path):
        for cell in code_cells(path):
            assert cell.execution_count, f"not executed: {cell.source[:60]}"
            kinds = [output.output_type for output in cell.outputs]
            assert "error" not in kinds
            assert not [o for o in cell.outputs if o.get("name") == "stderr"]

    def test_has_one_cell_of_typed_commented_parameters(self, path):
        tagged = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
        assert len(tagged) == 1
        lines = [line for line in tagged[0].source.splitlines() if line[0] != "#"]
        assert all(re.fullmatch(r"\w+: \w+ = .+  # .+", line) for line in lines)
        assert {line.split(":")[0] for line in lines} >= COMMON

    def test_cells_are_short_and_each_has_prose_before_it(self, path):
        cells = nbformat.read(path, as_version=4).cells
        for before, cell in itertools.pairwise(cells):
            if cell.cell_type == "code":
                listed = "parameters" in cell.metadata.get("tags", [])  # each has a line
                assert len(cell.source.splitlines()) <= 12 or listed
                assert before.cell_type == "markdown" or cell is cells[1]

    def test_is_clean_for_git_without_absolute_paths_and_small(self, path):
        text = path.read_text()
        assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users|usr|mnt)/", text)
        assert path.stat().st_size < 600_000
        notebook = nbformat.read(path, as_version=4)
        assert "papermill" not in notebook.metadata
        assert not any({"papermill", "execution"} & set(c.metadata) for c in notebook.cells)

    def test_says_what_its_numbers_are_of_and_leads_to_the_paper_and_its_neighbours(self, path):
        first = nbformat.read(path, as_version=4).cells[0].source
        audit = path.stem == "16_paper_audit"  # has the paper's numbers, and no data of its own
        assert re.search("No photo is read" if audit else "proves? no claim of the paper", first)
        assert "https://arxiv.org/abs/2412.05602" in first
        place = NOTEBOOKS.index(path)
        around = [other.name for other in NOTEBOOKS[max(0, place - 1) : place + 2] if other != path]
        around.insert(min(place, 1), "../README.md#notebooks")
        *_, line = first.splitlines()
        assert re.findall(r"\[(\w+)[^]]*\]\(([^)]+)\)", line) == [
            *zip(["Previous", "Contents", "Next"][place == 0 :], around, strict=False)
        ]

    def test_its_links_lead_somewhere(self, path):
        texts = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"]
        for target in re.findall(r"\]\((?!http)([^)#]+)", "\n".join(texts)):
            assert (path.parent / target).exists(), target

    def test_answers_under_the_title_and_concludes_at_the_end(self, path):
        cells = nbformat.read(path, as_version=4).cells
        assert cells[1].source.splitlines()[-1].startswith("answer = display(Markdown(")
        tagged = {tag: c for c in cells for tag in c.metadata.get("tags", [])}
        (shown,) = cells[1].outputs
        text = shown.data["text/markdown"].removeprefix("**Answer:** ")
        concluded = [o.data["text/markdown"] for o in tagged["conclusion"].outputs]
        for sentence in re.split(r"(?<=\.) (?=[A-Z])", text):
            assert sentence in concluded[-1]
        assert tagged["checks"] == code_cells(path)[-1]
        asserting = [
            c for c in code_cells(path) if re.search(r"^ *assert ", c.source, re.MULTILINE)
        ]
        assert asserting == [tagged["checks"]]
        below = cells[cells.index(tagged["conclusion"]) :]
        assert any(c.source.startswith("## What this does not show") for c in below)

    def test_tables_have_nine_columns_at_most_and_figures_are_described(self, path):
        for output in itertools.chain(*(cell.outputs for cell in code_cells(path))):
            kinds = output.get("data", {})
            assert "text/html" not in kinds
            heads = re.findall(r"^\|.+\|$", kinds.get("text/markdown", ""), re.MULTILINE)
            assert all(head.count(" | ") < 9 for head in heads[:1])
            for kind in {"image/png", "image/jpeg"} & set(kinds):
                assert output.metadata[kind]["alt"]

    def test_left_behind_what_it_saves(self, path):
        folder = ROOT / "figures" / ("paper" if path.stem == "16_paper_audit" else "demo")
        entry = manifest.read(folder)[path.name]
        assert entry["code"] == json.loads(notebooks.about(path, {}))["code"]
        assert entry["files"]
        for name, digest in entry["files"].items():
            assert file_digest(folder / name) == digest, name


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def test_no_forbidden_calls_in_the_core():
    for path in (ROOT / "miewid_core").rglob("*.py"):
        text = path.read_text()
        # a module's .eval() takes nothing; the built-in and pandas' take text
        forbidden = r"import pickle|\beval\([^)]|\bexec\(|trust_remote_code|shell=True"
        assert not re.search(forbidden, text), path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call


def test_citation_prefers_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert cited["title"] == "Multispecies Animal Re-ID Using a Large Community-Curated Dataset"


def test_files_that_are_named_are_there():
    named = re.compile(r"\b(?:tests|miewid_core|figures)/[\w/-]+\.(?:py|csv|md|ipynb)\b")
    texts = [*ROOT.glob("*.md"), *(ROOT / "miewid_core").rglob("*.md"), *NOTEBOOKS]
    texts += [*(ROOT / "miewid_core").rglob("*.py"), *(ROOT / "tests").rglob("measure_*.py")]
    for text in texts:
        for path in named.findall(text.read_text()):
            assert (ROOT / path).exists(), f"{text.name} names {path}"
