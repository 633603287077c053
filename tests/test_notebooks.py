"""The runner of notebooks: parameters are checked before anything runs."""

import nbformat
import papermill
import pytest

from miewid_core import notebooks


@pytest.fixture
def notebook(tmp_path):
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "x"}
    parameters = nbformat.v4.new_code_cell('catalog: str = "demo"  # data\nseed: int = 0  # seed')
    parameters.metadata["tags"] = ["parameters"]
    body = nbformat.v4.new_code_cell("assert seed < 5, 'too big'\nseed")
    made.cells = [parameters, body]
    path = tmp_path / "01_one.ipynb"
    nbformat.write(made, path)
    return path


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


def test_no_notebook_of_that_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(SystemExit):
        notebooks.main(["run", "--only", "99"])
    assert "no notebook starts with 99" in capsys.readouterr().err


def test_papermill_itself_only_logs_an_unknown_parameter(notebook, tmp_path):
    assert "sed" not in papermill.inspect_notebook(str(notebook))
