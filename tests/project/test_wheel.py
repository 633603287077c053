"""Installed from a wheel, without a checkout: data files are there, and caches have a place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miewid_core import model

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
pytestmark = pytest.mark.slow
APART = ["--no-deps", "--no-build-isolation", "--no-index"]  # nothing is fetched

USE = """
import sys
from pathlib import Path

import miewid_core
from miewid_core import files, load_model, open_study
from miewid_core.beyond_paper import golden
from miewid_core.beyond_paper.identify import review
from miewid_core.figures import STYLE, Figure
from miewid_core.paper import printed

catalog, weights = sys.argv[1:]
assert Path(miewid_core.__file__).is_relative_to(sys.path[1]), miewid_core.__file__
assert files.ROOT == Path.cwd()
assert files.CACHE == Path.cwd().parent / "caches" / "miewid", files.CACHE
study = open_study(catalog)
assert len(study.annotations) == 24
assert study.train["species"].nunique() == 2
network, preprocess = load_model(weights)
assert preprocess.size == 32
golden.check()
assert [len(printed.printed_table(number)) > 9 for number in range(1, 6)] == [True] * 5
assert STYLE.exists()
assert Figure("title", 1).png()
assert "<html" in review.TEMPLATE.read_text(encoding="utf-8")
study.save("species", study.train.groupby("species").size().reset_index())
(saved,) = Path.cwd().rglob("species.csv")
assert saved.is_relative_to(Path.cwd() / "figures")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder of packages with ours alone, from a wheel that is built of a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = [*ROOT.glob("*.toml"), ROOT / "README.md", ROOT / "LICENSE"]
    for path in [*sources, *filter(Path.is_file, (ROOT / "miewid_core").rglob("*"))]:
        copy = folder / "sources" / path.relative_to(ROOT)
        if "__pycache__" not in path.parts:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    wheels = folder / "wheels"
    pip("wheel", *APART, "--wheel-dir", str(wheels), str(folder / "sources"))
    (wheel,) = wheels.glob("miewid_core-*.whl")
    pip("install", "--no-deps", "--no-index", "--target", str(folder / "packages"), str(wheel))
    return folder / "packages"


def pip(*words):
    done = subprocess.run([*PIP, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="each system has its own place for caches")
def test_a_wheel_works_in_an_empty_folder(installed, small_catalog, tmp_path):
    weights = tmp_path / "weights.safetensors"
    network = model.MiewIDNet("test_efficientnet")
    model.save(network, model.Preprocess.of("test_efficientnet", 32), weights)
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = {name: value for name, value in os.environ.items() if name != "MIEWID_CACHE"}
    places = {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "caches")}
    command = [sys.executable, "-W", "error", "-c", USE, str(small_catalog), str(weights)]
    done = subprocess.run(command, cwd=empty, env=bare | places, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "caches" / "miewid").is_dir()
    assert {path.name for path in empty.iterdir()} == {"figures"}


def test_every_data_file_is_packed(installed):
    kinds = {".html", ".mplstyle", ".csv", ".md", ".png", ".toml"}
    data = {
        path.relative_to(ROOT)
        for path in (ROOT / "miewid_core").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {path.suffix for path in data} <= kinds
    assert len(data) > 8
    assert all((installed / path).exists() for path in data)
