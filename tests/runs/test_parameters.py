"""Words of a command line as parameters of notebooks."""

import subprocess
import sys

import pytest

from miewid_core.__main__ import COMMANDS, main
from miewid_core.runs.notebooks import ParameterError, parse, typed


def test_names_are_in_lower_case_and_values_stay_as_they_stand():
    words = ["CATALOG=my photos.csv", "SEED=3", "RUNS_DIR=", "UNIDENTIFIED=a=b"]
    assert parse(words) == {
        "catalog": "my photos.csv",
        "seed": "3",
        "runs_dir": "",
        "unidentified": "a=b",
    }


@pytest.mark.parametrize(
    ("value", "kind", "right"),
    [
        ("2024", "str", "2024"),
        ("yes", "str", "yes"),
        ("", "str", ""),
        ("3", "int", 3),
        ("0.1", "float", 0.1),
        ("1", "float", 1),
        ("true", "bool", True),
        ("river_otter", "list", ["river_otter"]),
        ("plains zebra, leopard", "list", ["plains zebra", "leopard"]),
        ("a,b", "list", ["a", "b"]),
        ("[a, b]", "list", ["a", "b"]),
        ("25;100", "list", [25, 100]),
        ("", "list", []),
    ],
)
def test_a_value_is_of_the_kind_that_its_notebook_declares(value, kind, right):
    found = typed("name", value, kind)
    assert found == right
    assert type(found) is type(right)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("three", "int", "give a whole number"),
        ("true", "int", "give a whole number"),
        ("1.5", "int", "give a whole number"),
        ("0,1", "float", "give a number, with a point"),
        ("2", "bool", "give true or false"),
        ("[1", "list", "can't be read as a list"),
    ],
)
def test_a_value_of_another_kind_is_refused(value, kind, text):
    with pytest.raises(ParameterError, match=text):
        typed("name", value, kind)


@pytest.mark.parametrize("word", ["SEED", "=3", "a b=3"])
def test_words_that_are_no_parameter_are_refused(word):
    with pytest.raises(ParameterError):
        parse([word])


def test_a_word_that_no_plan_and_no_notebook_takes_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "CATALGO=photos.csv", "WEIGHTS=a.safetensors"])
    told = capsys.readouterr().err
    assert "no parameter catalgo in the notebooks; there are " in told
    assert ", catalog, " in told


@pytest.mark.parametrize("words", [[], *([run.__name__] for run in COMMANDS)], ids=str)
def test_help_is_given(words, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['miewid', *words])}")


@pytest.mark.slow
def test_what_notebooks_import_needs_none_of_what_runs_them():
    """papermill's checks of addresses alone take seconds, in each kernel."""
    code = "import sys, miewid_core.paper.plan; print({'papermill', 'jsonschema'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
