"""The runner of notebooks: parameters are checked before anything runs."""

import os
import shutil
import subprocess
import sys

import nbformat
import papermill
import pytest

from miewid_core import notebooks


def write(path, code):
    """A notebook with two parameters, and one more cell."""
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "x"}
    parameters = nbformat.v4.new_code_cell('catalog: str = "demo"  # data\nseed: int = 0  # seed')
    parameters.metadata["tags"] = ["parameters"]
    made.cells = [parameters, nbformat.v4.new_code_cell(code)]
    nbformat.write(made, path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return write(tmp_path / "01_one.ipynb", "assert seed < 5, 'too big'\nseed")


def test_parameters_are_yaml_with_names_in_lower_case():
    words = ["CATALOG=my photos.csv", "SEED=3", "SIDES_DIFFER=[a, b]", "RUNS_DIR="]
    assert notebooks.parse(words) == {
        "catalog": "my photos.csv",
        "seed": 3,
        "sides_differ": ["a", "b"],
        "runs_dir": "",
    }


@pytest.mark.parametrize("word", ["SEED", "=3", "a b=3", "X=[1"])
def test_words_that_are_no_parameter_are_refused(word):
    with pytest.raises(notebooks.ParameterError):
        notebooks.parse([word])


def test_a_parameter_that_a_notebook_lacks_is_an_error(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(SystemExit) as stopped:
        notebooks.main(["run", "SED=1", "--output", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "01_one.ipynb has no parameter sed; it has catalog, seed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_with_parameters_and_says_what_failed(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    notebooks.main(["run", "SEED=3", "--output", str(tmp_path / "out")])
    cells = nbformat.read(tmp_path / "out" / "01_one.ipynb", as_version=4).cells
    assert cells[-1].outputs[0]["data"]["text/plain"] == "3"
    with pytest.raises(SystemExit) as stopped:
        notebooks.main(["run", "SEED=7", "--output", str(tmp_path / "out")])
    assert stopped.value.code == 1
    assert "AssertionError in a cell of the notebook: too big" in capsys.readouterr().err


MEET = """import pathlib, time
pathlib.Path("{own}").touch()
while not pathlib.Path("{other}").exists():
    time.sleep(0.1)
catalog"""


@pytest.fixture
def project(tmp_path):
    """A copy of the package, with notebooks of its own."""
    shutil.copytree(notebooks.ROOT / "miewid_core", tmp_path / "miewid_core")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def run_in(project, *words):
    command = [sys.executable, "-m", "miewid_core.notebooks", "run", *words, "--at-once", "2"]
    given = os.environ | {"PYTHONPATH": str(project), "MIEWID_CACHE": str(project / "cache")}
    return subprocess.run(
        command, cwd=project, env=given, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_two_notebooks_run_side_by_side(project):
    for name, own, other in (("01_a", "a", "b"), ("02_b", "b", "a")):  # each waits for the other
        write(project / "notebooks" / f"{name}.ipynb", MEET.format(own=own, other=other))
    done = run_in(project, "CATALOG=it's, mine", "SEED=2")
    assert done.returncode == 0, done.stderr
    assert "[1/2] 01_a: " in done.stderr
    for name in ("01_a", "02_b"):
        saved = nbformat.read(project / "cache" / "notebooks" / f"{name}.ipynb", as_version=4)
        assert saved.cells[-1].outputs[0]["data"]["text/plain"] == repr("it's, mine")


@pytest.mark.slow
def test_after_a_failure_no_other_notebook_begins(project):
    write(project / "notebooks" / "01_a.ipynb", "raise ValueError('no such species')")
    write(project / "notebooks" / "02_b.ipynb", "import time\ntime.sleep(20)")
    write(project / "notebooks" / "03_c.ipynb", "open('begun', 'w')")
    done = run_in(project)
    assert done.returncode == 1
    assert "[1/3] 01_a: ValueError in a cell of the notebook: no such species" in done.stderr
    assert done.stderr.endswith("01_a.ipynb failed\n")
    assert not (project / "begun").exists()


def test_no_notebook_of_that_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(SystemExit):
        notebooks.main(["run", "--only", "99"])
    assert "no notebook starts with 99" in capsys.readouterr().err


def test_papermill_itself_only_logs_an_unknown_parameter(notebook, tmp_path):
    assert "sed" not in papermill.inspect_notebook(str(notebook))
