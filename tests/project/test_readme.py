"""The README keeps its word: its tables are what was saved, its commands run as they stand."""

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from miewid_core import model
from miewid_core.beyond_paper import golden
from miewid_core.paper.printed import printed_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.+?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
VENV = Path(sys.executable).parent.parent

# each command of a block, and what bounds it here; one that is missing fails
BOUNDS = {
    "make figures": {"ONLY": "00"},
    "make test": {"PYTEST_ADDOPTS": "--collect-only -qq"},
    "make figures CATALOG=photos/annotations.csv PRESET=compact": {"ONLY": "01"},
    "make figures ONLY=12 CATALOG=photos/annotations.csv PRESET=compact "
    "WEIGHTS=weights.safetensors UNIDENTIFIED=new": {},
}


@pytest.fixture
def checkout(tmp_path, small_catalog):
    """A copy of the project in which to run commands, with a reader's photos in photos/."""
    left_out = shutil.ignore_patterns(".git", ".venv*", ".cache", ".*_cache", "__pycache__")
    here = shutil.copytree(ROOT, tmp_path / "project", ignore=left_out)
    shutil.copytree(small_catalog.parent, here / "photos")
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(here / name, (0, 0))  # older than the environment: nothing is installed again
    return here


def environment(folder, **variables):
    """This process's, for commands that stand in `folder` and put all they make into it."""
    path = f"{folder}{os.pathsep}{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    places = {"PYTHONPATH": str(folder), "MIEWID_CACHE": str(folder / "cache"), "PATH": path}
    return os.environ | places | {"VENV": str(VENV)} | variables


def run(words, folder, **variables):
    """Run a command in `folder`; returns what it printed."""
    given = environment(folder, **variables)
    done = subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (VENV / "installed").exists(), reason="make has its own environment")
@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make")])
def test_make_commands_run_as_they_stand(command, checkout):
    network = model.MiewIDNet("test_efficientnet")
    preprocess = model.Preprocess.of("test_efficientnet", 32)
    model.save(network, preprocess, checkout / "weights.safetensors")
    shutil.copytree(checkout / "photos", checkout / "new", ignore=shutil.ignore_patterns("*.csv"))
    saved = checkout / "figures" / ("photos" if "CATALOG" in command else "paper")
    shutil.rmtree(saved, ignore_errors=True)
    printed = run(shlex.split(command), checkout, **BOUNDS[command])
    if command == "make test":
        assert "All checks passed" in printed
        assert "test_readme.py" in printed
    else:
        assert list(saved.glob("*.csv"))


@pytest.fixture
def weights(checkout):
    """Made in place of a download: the end of a command that trains on the reader's photos."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    save_file(network.state_dict(), checkout / "weights.safetensors")
    return {"pretrained": "weights.safetensors", "image_size": 32, "epochs": 1}


@pytest.mark.slow
def test_papermill_runs_as_it_stands(checkout, weights):
    (command,) = [line for line in COMMANDS if line.startswith("papermill")]
    smaller = [f"-p {name} {value}" for name, value in weights.items()]
    run(shlex.split(" ".join([command, *smaller])), checkout)
    assert (checkout / "out.ipynb").exists()
    assert (checkout / "figures" / "photos" / "table2_multi_single.csv").exists()


@pytest.mark.slow
def test_torchrun_runs_as_it_stands(checkout, weights):
    (command,) = [line for line in COMMANDS if line.startswith("torchrun")]
    smaller = [f"{name.upper()}={value}" for name, value in weights.items()]
    run(shlex.split(" ".join([command, *smaller])), checkout, OMP_NUM_THREADS="1")
    (result,) = (checkout / "cache" / "runs").glob("*/run.json")
    assert (result.parent / "weights.safetensors").exists()


def test_no_other_command_stands_in_the_readme():
    assert {line.split()[0] for line in COMMANDS} == {"make", "papermill", "torchrun"}


@pytest.mark.slow
@pytest.mark.skipif(not (VENV / "installed").exists(), reason="make has its own environment")
def test_the_cluster_script_runs_as_it_stands_with_a_stand_in_for_slurm(checkout):
    (script,) = [text for kind, text in BLOCKS if kind == "sh"]
    (checkout / ".venv").symlink_to(VENV)
    rows = pd.read_csv(checkout / "photos" / "annotations.csv")
    rows.assign(file_name="photos/" + rows["file_name"]).to_csv(checkout / "photos.csv")
    stubs = {"sbatch": 'SLURM_SUBMIT_DIR=$PWD bash "$1" &', "hostname": "echo 127.0.0.1"}
    for name, line in stubs.items():
        (checkout / name).write_text(f"#!/bin/bash\n{line}\n")
        (checkout / name).chmod(0o755)
    log = checkout / "log"
    with log.open("w") as out:
        given = {
            "env": environment(checkout, ONLY="01"),
            "stdout": out,
            "stderr": subprocess.STDOUT,
        }
        ours = subprocess.Popen(
            ["bash", "-e", "-c", script], cwd=checkout, start_new_session=True, **given
        )
        try:
            assert ours.wait(300) == 0, log.read_text()[-3000:]
            deadline = time.monotonic() + 120
            while "Registered to" not in log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:  # the scheduler and the worker, which stay in the background
            os.killpg(ours.pid, signal.SIGKILL)
    printed = log.read_text()
    assert "01_dataset.ipynb" in printed
    assert list((checkout / "figures" / "project").glob("*.csv"))


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


@cache
def table(data, name):
    """A table of `data` as git has it, or none: another computer's notebooks round otherwise."""
    command = ["git", "show", f":figures/{data}/{name}.csv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return pd.read_csv(io.StringIO(done.stdout)) if done.returncode == 0 else None


def interval(row, key):
    """A number of a saved table's row and its 95 % interval, as the README prints them."""
    ends = (f"{key}_low", f"{key}_high") if f"{key}_low" in row else ("low", "high")
    return "{:.1f} ({:.1f} to {:.1f})".format(*row[[key, *ends]])


def mean(name, key):
    """The mean over species, the last row of a table, with its interval."""
    return lambda data: (
        "" if table(data, name) is None else interval(table(data, name).iloc[-1], key)
    )


def few(name, method):
    """A species' few individuals, learned by `method` and alone, at the fewest that were tried."""

    def printed(data):
        known = table(data, name)
        if known is None:
            return ""
        row = known.dropna(subset=[method, "species_only"]).iloc[0]
        return "{:.0f}: {:.1f}, {:.1f}".format(*row[["individuals", method, "species_only"]])

    return printed


def database_size(data):
    """Top-1 with one annotation of each individual in the database, and with all of them."""
    known = table(data, "figure3_database_size")
    return "" if known is None else "{:.1f}, {:.1f}".format(*known["top_1"].iloc[[0, -1]])


def top_20(data):
    """Top-20 of the network for all species, mean over species."""
    known = table(data, "topk_curves")
    if known is None:
        return ""
    asked = (known["model"] == "multi") & (known["species"] == "mean") & (known["k"] == 20)
    return interval(known[asked].iloc[0], "top_k")


def untrained(data):
    return "{:.1f}".format(table(data, "table2_multi_single")["untrained"].iloc[-1])


def of_the_paper():
    """The paper's numbers: means over the species of its tables, as notebook 00 takes them."""
    two, three, four, five = (printed_table(number) for number in (2, 3, 4, 5))
    means = two.mean(numeric_only=True)
    fewest = [known[known["individuals"] == 25].mean(numeric_only=True) for known in (four, five)]
    yield from (means["multi_species"], means["single_species"])
    yield from (means["multi_species"] - means["single_species"], "", means["leave_one_out"])
    yield from (means["multi_species"] - means["leave_one_out"], "")
    yield (three["miewid_leave_one_out"] - three["megadescriptor_l_384"]).mean()
    yield "25: {:.1f}, {:.1f}".format(*fewest[0][["joint_training", "species_only"]])
    yield "25: {:.1f}, {:.1f}".format(*fewest[1][["fine_tuning", "species_only"]])
    yield from ("", 4.5, "")


EXPERIMENTS = (  # what, its notebook, its cell for a data set
    (
        "Table 2, Figures 1, 5 to 8 | all species by one network",
        "04",
        mean("table2_multi_single", "multi"),
    ),
    ("the same | each species by its own", "04", mean("table2_multi_single", "single")),
    ("the same | gain", "04", mean("table2_multi_single", "gain")),
    ("the same | before any training", "04", untrained),
    (
        "Table 2, Figures 2, 9 to 12 | unseen species",
        "05",
        mean("table2_leave_one_out", "left_out"),
    ),
    ("the same | seen minus unseen", "05", mean("table2_leave_one_out", "gain")),
    ("section 5.2 | unseen minus untrained", "05", mean("leave_one_out_transfer", "difference")),
    ("Table 3 | unseen minus descriptor", "06", mean("table3_descriptor", "gain")),
    (
        "Table 4 | few individuals: with all others, alone",
        "07",
        few("table4_beside_paper", "joint"),
    ),
    (
        "Table 5 | few individuals: fine-tuned, alone",
        "09",
        few("table5_beside_paper", "fine_tuned"),
    ),
    ("Figure 3 | one annotation each in the database, all", "08", database_size),
    ("Figure 4 | first minus second backbone", "10", mean("figure4_backbones", "gain")),
    ("A.2 | top-20 of the one network", "11", top_20),
)


def experiments():
    """Rows of the README's table of results, without the minutes, which no test can know."""
    for (what, notebook, cell), paper in zip(EXPERIMENTS, of_the_paper(), strict=True):
        printed = paper if isinstance(paper, str) else f"{paper:.1f}"
        folder = "realdata_128px" if notebook in ("07", "09", "10") else "realdata"
        cells = (
            what,
            printed,
            cell("demo"),
            cell(folder),
            notebook,
            f"`make figures ONLY={notebook}`",
        )
        yield f"| {' | '.join(cells)} | "


def species(data):
    """Rows of the README's table of single species: multi, single, gain, untrained, paper's two."""
    for row in table(data, "table2_multi_single").iloc[:-1].to_dict("records"):
        found = pd.Series(row)
        ours = [interval(found, key) for key in ("multi", "single", "gain")]
        printed = [
            "" if pd.isna(found[f"paper_{key}"]) else f"{found[f'paper_{key}']:.1f}"
            for key in ("multi", "single")
        ]
        cells = found["species"], *ours, f"{found['untrained']:.1f}", *printed
        yield f"| {' | '.join(cells)} |"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git to ask what was saved")
@pytest.mark.parametrize("rows", [experiments, lambda: species("realdata")], ids=["all", "species"])
def test_readme_states_the_results_that_were_saved(rows):
    for row in rows():
        assert row in README, f"not in README.md: {row}"
