"""What saved figures rest on, noted beside them while the runner runs a notebook."""

import json
import multiprocessing

import numpy as np
import pandas as pd
import pytest

from miewid_core import figures
from miewid_core.files import ABOUT, file_digest
from miewid_core.paper.study import open_study
from miewid_core.runs import manifest

TABLE = pd.DataFrame({"species": ["ant", "bee"], "top_1": [0.5, 0.25]})


def tell(monkeypatch, notebook="04_a.ipynb", code="c0de", **parameters):
    told = {"notebook": notebook, "code": code, "parameters": parameters}
    monkeypatch.setenv(ABOUT, json.dumps(told))


@pytest.fixture
def study(small_catalog, tmp_path, monkeypatch):
    tell(monkeypatch, catalog=str(small_catalog), seed=1, figures_dir=str(tmp_path), runs_dir="r")
    folders = {"figures_dir": str(tmp_path / "figures"), "runs_dir": str(tmp_path / "runs")}
    return open_study(str(small_catalog), image_size=32, **folders)


def test_an_entry_names_files_parameters_and_runs(study, small_catalog, tmp_path):
    study.embeddings(study.untrained())
    study.save("table", TABLE)
    study.save("figure", TABLE, figures.Figure("A figure", 1))
    panel = np.zeros((8, 8, 3), np.uint8), "ant", None
    study.save_photos("sheet", figures.match_panels([[panel]], ""))
    (entry,) = manifest.read(study.figures_dir).values()
    names = ["figure.csv", "figure.png", "photos/sheet.jpg", "table.csv", "table.md"]
    assert entry["files"] == {name: file_digest(study.figures_dir / name) for name in names}
    assert entry["runs"] == [study.untrained().folder.name]
    assert entry["parameters"] == {"catalog": small_catalog.name, "seed": 1}
    assert (entry["code"], entry["versions"]["threads"].isdigit()) == ("c0de", True)
    assert str(tmp_path) not in (study.figures_dir / "MANIFEST.json").read_text()


def test_the_same_again_leaves_every_byte(monkeypatch, tmp_path):
    def both():
        for notebook in ("01_b.ipynb", "00_a.ipynb"):
            tell(monkeypatch, notebook)
            manifest.save(tmp_path, notebook[:2], TABLE)
        return (tmp_path / "MANIFEST.json").read_bytes()

    assert both() == both()


def test_another_text_of_the_notebook_begins_its_entry_anew(monkeypatch, tmp_path):
    tell(monkeypatch, "03_other.ipynb")
    manifest.save(tmp_path, "others", TABLE)
    tell(monkeypatch, code="old")
    manifest.save(tmp_path, "renamed", TABLE, runs=["0"])
    tell(monkeypatch, code="new")
    manifest.save(tmp_path, "table", TABLE)
    entries = manifest.read(tmp_path)
    assert set(entries["04_a.ipynb"]["files"]) == {"table.csv", "table.md"}
    assert entries["04_a.ipynb"]["runs"] == []
    assert set(entries["03_other.ipynb"]["files"]) == {"others.csv", "others.md"}


def test_what_a_reader_runs_by_hand_is_not_noted(monkeypatch, tmp_path):
    monkeypatch.delenv(ABOUT, raising=False)
    manifest.save(tmp_path, "table", TABLE)
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "table.md"}


def save_some(folder, number, meet):
    meet.wait()
    for i in range(10):
        (folder / f"{number}_{i}.csv").write_text("a\n1\n")
        manifest.note(folder, [f"{number}_{i}.csv"])


def test_two_processes_that_save_at_once_lose_nothing(monkeypatch, tmp_path):
    spawn, processes = multiprocessing.get_context("spawn"), []
    meet = spawn.Barrier(2)
    for number in range(2):
        tell(monkeypatch, f"0{number}_n.ipynb")  # which the process inherits
        processes.append(spawn.Process(target=save_some, args=(tmp_path, number, meet)))
        processes[-1].start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    assert len(manifest.digests(manifest.read(tmp_path))) == 20
