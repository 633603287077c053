"""Words of a command line as parameters of notebooks."""

import subprocess
import sys

import pytest

from miewid_core.runs.notebooks import ParameterError, parse


def test_parameters_are_yaml_with_names_in_lower_case():
    words = ["CATALOG=my photos.csv", "SEED=3", "SIDES_DIFFER=[a, b]", "RUNS_DIR="]
    assert parse(words) == {
        "catalog": "my photos.csv",
        "seed": 3,
        "sides_differ": ["a", "b"],
        "runs_dir": "",
    }


@pytest.mark.parametrize("word", ["SEED", "=3", "a b=3", "X=[1"])
def test_words_that_are_no_parameter_are_refused(word):
    with pytest.raises(ParameterError):
        parse([word])


@pytest.mark.slow
def test_what_notebooks_import_needs_none_of_what_runs_them():
    """papermill's checks of addresses alone take seconds, in each kernel."""
    code = "import sys, miewid_core.paper.plan; print({'papermill', 'jsonschema'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
