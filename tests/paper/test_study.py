"""What a study is named by, and where its figures go."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from miewid_core.files import FIGURES
from miewid_core.paper.study import figures_folder


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
