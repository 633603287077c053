"""What a study is named by, where its figures go, and what its settings say."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from miewid_core.config import preset
from miewid_core.files import FIGURES, ROOT
from miewid_core.paper.study import Study, figures_folder, open_study, parameters


def test_the_drawn_animals_have_a_folder_that_no_catalog_gets(tmp_path):
    demo = tmp_path / "demo"
    demo.mkdir()
    assert figures_folder("demo") == FIGURES / "demo"
    assert figures_folder(str(demo)) != FIGURES / "demo"
    assert figures_folder(str(demo)).name.startswith("demo-")


@pytest.mark.parametrize("kind", [str, Path, lambda path: SimpleNamespace(df=None, root=path)])
def test_catalogs_in_folders_of_one_name_have_folders_of_their_own(tmp_path, kind):
    folders = [tmp_path / place / "photos" for place in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = (figures_folder(kind(folder)) for folder in folders)
    assert first != second
    assert first.name[:-6] == second.name[:-6] == "photos-"
    assert first == figures_folder(kind(folders[0]))


@pytest.mark.parametrize("where", ["photos_dir", "absolute_paths"])
def test_photos_elsewhere_and_species_are_parameters_of_a_study(small_catalog, tmp_path, where):
    rows = pd.read_csv(small_catalog).query("species == 'ant'").drop(columns="species")
    if where == "absolute_paths":
        rows["file_name"] = str(small_catalog.parent) + "/" + rows["file_name"]
    rows.to_csv(tmp_path / "a.csv", index=False)
    value = {"photos_dir": str(small_catalog.parent), "absolute_paths": True}[where]
    study = open_study(str(tmp_path / "a.csv"), species="whale", **{where: value})
    assert study.annotations["individual"].unique().tolist() == ["whale/a", "whale/b", "whale/c"]
    assert study.annotations["path"].str.startswith(str(small_catalog.parent)).all()


def test_a_notebook_opens_its_study_by_the_parameters_among_its_names():
    names = {"catalog": "a.csv", "seed": 2, "draws": 3, "open_study": open_study}
    assert parameters(names) == {"catalog": "a.csv", "seed": 2}


@pytest.mark.parametrize(("name", "told"), [("demo", "not used"), ("paper", "15")])
def test_settings_say_what_a_level_schedule_does_not_use(name, told):
    nothing, nowhere = pd.DataFrame(), Path()
    study = Study("ants", False, *[nothing] * 4, preset(name), 0, *[nowhere] * 3)
    table = study.settings().set_index("setting")
    assert table.loc["warmup_epochs"].tolist() == [told, "15"]
    assert (table.loc["decay", "here"] == "not used") == (name == "demo")


def test_photos_go_where_git_ignores_them_unless_drawn():
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("no checkout")
    paths = ["figures/reserve/photos/a.png", "figures/demo/photos/a.png", "figures/x/a.png"]
    ignored = subprocess.run(
        ["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout.split() == paths[:1]


def test_a_study_by_date_is_the_same_study_in_another_split(small_catalog, tmp_path):
    rows = pd.read_csv(small_catalog)
    rows["date"] = ["2020-01-01", "2020-01-01", "2020-01-01", "2020-01-02"] * 6
    rows.to_csv(tmp_path / "dated.csv", index=False)
    study = open_study(str(tmp_path / "dated.csv"), photos_dir=str(small_catalog.parent))
    later = study.by_date()
    assert later.annotations is study.annotations
    assert later.used is study.used
    assert set(later.train["date"]) == {pd.Timestamp("2020-01-01")}
    assert set(later.test["date"]) == {pd.Timestamp("2020-01-02")}
