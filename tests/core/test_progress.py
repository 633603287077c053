"""Progress bars: widgets in a notebook, text at a terminal, none where TQDM_DISABLE is set."""

import nbformat
import pytest
from nbclient import NotebookClient

from miewid_core import progress

CODE = "from miewid_core import progress\nshown = [*progress(range(3), 'photos')]"


@pytest.mark.parametrize("disabled", ["", "1"])
def test_a_notebook_shows_a_widget_unless_bars_are_disabled(monkeypatch, disabled):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    (cell,) = NotebookClient(notebook, kernel_name="python3").execute().cells
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    assert ("application/vnd.jupyter.widget-view+json" in kinds) == (not disabled)
    assert bool(cell.outputs) == (not disabled)


@pytest.mark.parametrize("disabled", ["", "1"])
def test_elsewhere_bars_are_text(monkeypatch, capsys, disabled):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    assert list(progress(range(3), "photos", disable=False)) == [0, 1, 2]
    assert ("photos: 100%" in capsys.readouterr().err) == (not disabled)


def test_the_runner_gets_text_to_pass_on(monkeypatch):
    monkeypatch.setenv("MIEWID_NOTEBOOK", "{}")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    (cell,) = NotebookClient(notebook, kernel_name="python3").execute().cells
    assert {output.get("name") for output in cell.outputs} == {"stderr"}
    assert "photos: 100%" in "".join(output["text"] for output in cell.outputs)
