"""The README keeps its word: its tables are what was saved, its commands run as they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from miewid_core import golden

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.+?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
VENV = Path(sys.executable).parent.parent

# each command of a block, and what bounds it here; one that is missing fails
BOUNDS = {
    "make figures": {"ONLY": "00"},
    "make test": {"PYTEST_ADDOPTS": "--collect-only -qq"},
    "make figures CATALOG=photos/annotations.csv PRESET=compact": {"ONLY": "01"},
}


@pytest.fixture
def checkout(tmp_path, small_catalog):
    """A copy of the project in which to run commands, with a reader's photos in photos/."""
    left_out = shutil.ignore_patterns(".git", ".venv", ".cache", ".*_cache", "__pycache__")
    here = shutil.copytree(ROOT, tmp_path / "project", ignore=left_out)
    shutil.copytree(small_catalog.parent, here / "photos")
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(here / name, (0, 0))  # older than the environment: nothing is installed again
    return here


def run(words, folder, **variables):
    """Run a command in `folder` with this environment; returns what it printed."""
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    places = {"PYTHONPATH": str(folder), "MIEWID_CACHE": str(folder / "cache"), "PATH": path}
    environment = os.environ | places | {"VENV": str(VENV)} | variables
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (VENV / "installed").exists(), reason="make has its own environment")
@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make")])
def test_make_commands_run_as_they_stand(command, checkout):
    saved = checkout / "figures" / ("photos" if "CATALOG" in command else "paper")
    shutil.rmtree(saved, ignore_errors=True)
    printed = run(shlex.split(command), checkout, **BOUNDS[command])
    if command == "make test":
        assert "All checks passed" in printed
        assert "test_readme.py" in printed
    else:
        assert list(saved.glob("*.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in COMMANDS if not line.startswith("make")])
def test_papermill_commands_run_as_they_stand(command, checkout):
    weights = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    save_file(weights, checkout / "weights.safetensors")  # in place of a download
    smaller = "-p pretrained weights.safetensors -p image_size 32 -p epochs 1"
    run([*shlex.split(command), *shlex.split(smaller)], checkout)
    assert (checkout / "out.ipynb").exists()
    assert (checkout / "figures" / "photos" / "table2_multi_single.csv").exists()


@pytest.mark.slow
def test_python_of_the_readme_runs_as_it_stands(tmp_path):
    (block,) = [text for kind, text in BLOCKS if kind == "python"]
    (tmp_path / "miewid-msv3").mkdir()
    save_file(golden.network().state_dict(), tmp_path / "miewid-msv3" / "model.safetensors")
    Image.new("RGB", (90, 60), "peru").save(tmp_path / "chip.jpg")
    done = block + "print(tuple(embedding.shape))"
    places = {"PYTHONPATH": str(ROOT)}
    assert "(1, 2152)" in run([sys.executable, "-W", "error", "-c", done], tmp_path, **places)


def test_readme_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^(?:\$ )?make (\w+)", README, flags=re.MULTILINE)
    assert {"figures", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
    for name in re.findall(r"notebooks/[\w.]+\.ipynb", README):
        assert (ROOT / name).exists()


def results(data):
    """Rows of the README's table of results from what notebook 04 saved."""
    table = pd.read_csv(ROOT / "figures" / data / "table2_multi_single.csv").set_index("species")
    for name, row in table.iterrows() if data != "demo" else [("mean", table.loc["mean"])]:
        cells = [
            f"{row[key]:.1f} ({row[f'{key}_low']:.1f} to {row[f'{key}_high']:.1f})"
            for key in ("multi", "single", "gain")
        ]
        printed = [f"{row[f'paper_{key}']:.1f}" for key in ("multi", "single")]
        printed = ["", ""] if name == "mean" or "nan" in printed else printed
        yield " | ".join([f"| {data}", name, *cells, f"{row['untrained']:.1f}", *printed]) + " |"


@pytest.mark.parametrize("data", ["demo", "realdata"])
def test_readme_states_the_results_that_were_saved(data):
    for row in results(data):
        assert row in README, f"not in README.md: {row}"


def measured(data, name, column, row=-1, scale=1.0):
    """A number and its 95 % interval of a saved table's row, as the README prints them; "" if it
    was not measured."""
    path = ROOT / "figures" / data / f"{name}.csv"
    if not path.exists():
        return ""
    found = pd.read_csv(path).iloc[row]
    ends = ("low", "high") if f"{column}_low" not in found else (f"{column}_low", f"{column}_high")
    values = [found[key] * scale for key in (column, *ends)]
    return "{:.1f} ({:.1f} to {:.1f})".format(*values)


def database_size(data):
    """Top-1 with one annotation of each individual in the database, and with all of them."""
    path = ROOT / "figures" / data / "figure3_database_size.csv"
    if not path.exists():
        return ""
    table = pd.read_csv(path)
    return "{:.1f} to {:.1f}".format(*table["top_1"].iloc[[0, -1]])


def experiments():
    """Rows of the README's table of experiments: all but their last two cells."""
    for start, *what in (
        (
            "| Table 2, Figures 2, 9 to 12 | top-1 on unseen species",
            "table2_leave_one_out",
            "left_out",
        ),
        ("| the same | seen minus unseen", "table2_leave_one_out", "gain"),
        ("| section 5.2 | unseen minus untrained", "leave_one_out_transfer", "difference"),
        ("| Table 3 | unseen minus descriptor", "table3_descriptor", "gain"),
        ("| Figure 4 | first minus second backbone", "figure4_backbones", "gain"),
    ):
        yield " | ".join([start, *(measured(data, *what) for data in ("demo", "realdata"))]) + " | "
    cells = map(database_size, ("demo", "realdata"))
    yield " | ".join(["| Figure 3 | top-1, one annotation to all", *cells]) + " | "


def test_readme_states_the_experiments_that_were_saved():
    for row in experiments():
        assert row.strip() in README, f"not in README.md: {row}"
