"""The README keeps its word: its tables are what was saved, its commands run as they stand.

`python tests/project/test_readme.py` writes the tables anew from the CSVs in figures/.
"""

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

import miewid_core
from miewid_core import model
from miewid_core.beyond_paper import golden
from miewid_core.paper.claims import claims, readable
from miewid_core.paper.printed import printed_table
from miewid_core.paper.study import figures_folder
from miewid_core.runs.notebooks import ended

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "miewid_core" / "paper" / "cards"
PAGES = {  # whose tables are rendered here, and whose links and commands are checked
    "README": ROOT / "README.md",
    "real photos": CARDS / "real_photos.md",
    "at scale": CARDS / "running_at_scale.md",
}
TEXT = {name: path.read_text() for name, path in PAGES.items()}
FENCED = re.compile(r"^ *```(\w*)\n(.+?)^ *```", flags=re.MULTILINE | re.DOTALL)
BLOCKS = {name: FENCED.findall(text) for name, text in TEXT.items()}
COMMANDS = {
    name: [line.strip() for kind, text in blocks if not kind for line in text.splitlines()]
    for name, blocks in BLOCKS.items()
}
VENV = Path(sys.executable).parent.parent
PHOTOS = "make figures CATALOG=photos PRESET=compact"
IDENTIFIED = (
    "make figures ONLY=12 CATALOG=photos UNIDENTIFIED=new WEIGHTS=miewid-msv3/model.safetensors"
)

# each make command of the README, and what bounds it here; one that is missing fails
BOUNDS = {
    "make figures": {"ONLY": "16"},
    "make test": {"PYTEST_ADDOPTS": "--collect-only -qq"},
    PHOTOS: {"ONLY": "01"},
    IDENTIFIED: {},
}


@pytest.fixture
def checkout(tmp_path, small_catalog):
    """A copy of the project in which to run commands, with a reader's photos in photos/."""
    left_out = shutil.ignore_patterns(".git", ".venv*", ".cache", ".*_cache", "__pycache__")
    here = shutil.copytree(ROOT, tmp_path / "project", ignore=left_out)
    for row in pd.read_csv(small_catalog).itertuples():
        target = here / "photos" / row.species / row.name / row.file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small_catalog.with_name(row.file_name), target)
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(here / name, (0, 0))  # older than the environment: nothing is installed again
    return here


def saved_for_photos(checkout):
    """Where a run in `checkout` saves the figures of the photos in it."""
    return checkout / "figures" / figures_folder(str(checkout / "photos")).name


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
@pytest.mark.parametrize(
    "command", [c for c in COMMANDS["README"] if c.startswith("make")], ids=str
)
def test_make_commands_run_as_they_stand(command, checkout):
    (checkout / "miewid-msv3").mkdir()
    network = model.MiewIDNet("test_efficientnet")
    preprocess = model.Preprocess.of("test_efficientnet", 32)
    model.save(network, preprocess, checkout / "miewid-msv3" / "model.safetensors")
    (checkout / "new").mkdir()
    for path in (checkout / "photos").glob("*/*/*0.png"):
        shutil.copy(path, checkout / "new")
    saved = saved_for_photos(checkout) if "CATALOG" in command else checkout / "figures" / "paper"
    shutil.rmtree(saved, ignore_errors=True)
    printed = run(shlex.split(command), checkout, **BOUNDS[command])
    if command == "make test":
        assert "All checks passed" in printed
        assert "test_readme.py" in printed
        return
    assert list(saved.glob("*.csv"))
    if command == IDENTIFIED:
        assert str(saved / "photos" / "review.html") in printed


@pytest.fixture
def weights(checkout):
    """Made in place of a download: the end of a command that trains on the reader's photos."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    save_file(network.state_dict(), checkout / "weights.safetensors")
    return {"pretrained": "weights.safetensors", "image_size": 32, "epochs": 1}


@pytest.mark.slow
def test_papermill_runs_as_it_stands(checkout, weights):
    (command,) = [line for line in COMMANDS["README"] if line.startswith("papermill")]
    smaller = [f"-p {name} {value}" for name, value in weights.items()]
    run(shlex.split(" ".join([command, *smaller])), checkout)
    assert (checkout / "out.ipynb").exists()
    saved = checkout / "figures" / "by_hand" / saved_for_photos(checkout).name
    assert (saved / "table2_multi_single.csv").exists()


@pytest.mark.slow
def test_torchrun_runs_as_it_stands(checkout, weights):
    (command,) = [line for line in COMMANDS["at scale"] if line.startswith("torchrun")]
    smaller = [f"{name.upper()}={value}" for name, value in weights.items()]
    run(shlex.split(" ".join([command, *smaller])), checkout, OMP_NUM_THREADS="1")
    (result,) = (checkout / "cache" / "runs").glob("*/run.json")
    assert (result.parent / "weights.safetensors").exists()


@pytest.mark.slow
def test_the_bill_of_the_paper_is_what_plan_prints():
    words = re.search(r"`make (plan CATALOG=paper[^`]*)` prints the bill", TEXT["at scale"])[1]
    printed = run([sys.executable, "-m", "miewid_core", *words.split()], ROOT)
    asked, distinct, *_, photos, hours = re.findall(r"\n +all +(.+)", printed)[0].split()
    told = " ".join(TEXT["at scale"].split())
    assert f"{asked} trainings, {distinct} of them distinct, {float(photos) / 1e6:.0f}" in told
    assert f"{float(hours):.0f} GPU hours" in told


def test_no_other_command_stands_in_a_block():
    told = {name: {line.split()[0] for line in lines} for name, lines in COMMANDS.items()}
    assert told == {
        "README": {"make", "papermill"},
        "real photos": set(),
        "at scale": {"torchrun"},
    }


@pytest.mark.slow
@pytest.mark.skipif(not (VENV / "installed").exists(), reason="make has its own environment")
def test_the_cluster_script_runs_as_it_stands_with_a_stand_in_for_slurm(checkout):
    (script,) = [text for kind, text in BLOCKS["at scale"] if kind == "sh"]
    (checkout / ".venv").symlink_to(VENV)
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
    assert "01_dataset" in printed
    assert list(saved_for_photos(checkout).glob("*.csv"))


@pytest.mark.slow
def test_python_of_the_readme_runs_as_it_stands(tmp_path):
    (block,) = [text for kind, text in BLOCKS["README"] if kind == "python"]
    (tmp_path / "miewid-msv3").mkdir()
    save_file(golden.network().state_dict(), tmp_path / "miewid-msv3" / "model.safetensors")
    (tmp_path / "miewid-msv3" / "config.json").write_text('{"image_size": 64}')
    Image.new("RGB", (90, 60), "peru").save(tmp_path / "chip.jpg")
    done = block + "print(tuple(embedding.shape))"
    places = {"PYTHONPATH": str(ROOT)}
    assert "(1, 2152)" in run([sys.executable, "-W", "error", "-c", done], tmp_path, **places)


def told_commands(name):
    """Every `make ...` of a page, in a line or a block, as words."""
    blocks = "".join(text for _, text in BLOCKS[name])
    told = re.findall(r"`(make [^`]+)`", TEXT[name]) + re.findall(r"^ *(make .+)", blocks, re.M)
    return [shlex.split(command) for command in told]


def parameters():
    """Names that the notebooks' parameters cells declare."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            if "parameters" in cell.metadata.get("tags", []):
                yield from re.findall(r"^(\w+):", cell.source, flags=re.MULTILINE)


@pytest.mark.parametrize("page", ["README", "at scale"])
def test_targets_notebooks_and_parameters_of_make_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    known = {name.upper() for name in parameters()} | {"RATE", "LEFT_OUT", "SCHEDULER"}
    for _, target, *rest in told_commands(page):
        assert re.search(rf"^(?:[\w -]+ )?{target}\b[\w -]*:", makefile, re.MULTILINE), target
        for name, value in (word.split("=") for word in rest):
            if name == "ONLY":
                assert list((ROOT / "notebooks").glob(f"{value}_*")), value
            else:
                assert name in known, name


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_links_resolve(path):
    text = path.read_text()
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert links
    for link in links:
        if link.startswith("#"):
            heading = link[1:].replace("-", " ")
            assert re.search(rf"^#+ {heading}$", text, re.MULTILINE | re.IGNORECASE), link
        else:
            assert link.startswith("https://") or (path.parent / link).exists(), link


def test_every_notebook_and_every_module_has_its_row():
    text = TEXT["README"]
    rows = re.findall(r"^\[(\d\d)\]\(notebooks/(\1_\w+\.ipynb)\) \| \w", text, re.MULTILINE)
    assert [name for _, name in rows] == sorted(
        path.name for path in (ROOT / "notebooks").glob("*.ipynb")
    )
    package = Path(miewid_core.__file__).parent
    there = {path.name for path in package.glob("[!_]*.py")}
    there |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    told = [place for cell in re.findall(r"^(`.+) \|", text, re.M) for place in cell.split(", ")]
    assert sorted(told) == sorted(f"`{place}`" for place in there)


def test_the_readme_is_short():
    prose = FENCED.sub("", TEXT["README"])
    prose = "\n".join(line for line in prose.splitlines() if " | " not in line)
    assert len(prose.split()) <= 1200  # without tables and code


def in_git(path):
    """A file's text as git has it: notebooks that ran on another computer differ."""
    command = ["git", "show", f":{path}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def committed(path):
    """A CSV of figures/ as git has it."""
    return pd.read_csv(io.StringIO(in_git(f"figures/{path}.csv")))


def present(path):
    """A CSV of figures/ as it lies there now."""
    return pd.read_csv(ROOT / "figures" / f"{path}.csv")


def interval(row, key):
    """A number of a table's row and its 95 % interval, in columns key_low and key_high."""
    ends = (f"{key}_low", f"{key}_high") if f"{key}_low" in row else ("low", "high")
    return "{:.1f} ({:.1f} to {:.1f})".format(*row[[key, *ends]])


def number(value):
    return "" if pd.isna(value) else f"{value:.1f}"


def few(table, method):
    """Accuracy of `method` at the fewest individuals that were tried, of the drawn species."""
    known = table[(table["individuals"] > 0) & (table["method"] == method)]
    return interval(known.loc[known["individuals"].idxmin()], "top_k")


def few_printed(table, method):
    """The same of the paper's table."""
    return number(table[table["individuals"] == 25][method].mean())


NOTEBOOKS = """
00 one query, step by step
01 Table 1, the long tail
02 section 3.3: the split
03 section 4, A.1: network, loss, training
04 Table 2, Figures 1, 5 to 8: multi- against single-species
05 Table 2, Figures 2, 9 to 12: unseen species
06 Table 3: other descriptors
07 Table 4: few individuals, alone and joint
08 Figure 3: photos in the database
09 Table 5: fine-tuning
10 Figure 4: a vision transformer
11 A.2: top-k curves
12 beyond the paper: your animals, a review page
13 beyond: speed and memory
14 A.1: a search for settings
15 beyond: wrong labels, counts
16 the printed numbers against each other
17 beyond: closed-set, open-set, time-aware protocols
"""


def first_sentence(text):
    """Up to the first end of a sentence before a blank, which no "95.1" and no "e.g. " is."""
    ended_at = re.search(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)[.!?](?=\s|$)", text)
    return text[: ended_at.end()] if ended_at else text


def notebooks(read) -> Iterator[list[str]]:
    """The README's table of notebooks, each with the answer that its committed run gave."""
    yield ["notebook", "regenerates", "answer on drawn animals"]
    for line in NOTEBOOKS.strip().splitlines():
        (path,) = (ROOT / "notebooks").glob(f"{line[:2]}_*.ipynb")
        answer = ended(nbformat.reads(in_git(f"notebooks/{path.name}"), 4), path.stem, 0).headline
        yield [line[:2], line[3:], first_sentence(answer).replace("|", "/")]


def drawn(read) -> Iterator[list[str]]:
    """The README's table of the drawn animals; `read`: the table of a path below figures/."""

    def mean(name, key):
        return interval(read(f"demo/{name}").iloc[-1], key)

    two, three, four, five = (printed_table(n) for n in (2, 3, 4, 5))
    paper = two.mean(numeric_only=True)
    multi, single, left_out = (
        paper[name] for name in ("multi_species", "single_species", "leave_one_out")
    )
    descriptor = (three["miewid_leave_one_out"] - three["megadescriptor_l_384"]).mean()
    networks, unseen = "table2_multi_single", "table2_leave_one_out"
    alone, joint = read("demo/table4_joint_training"), "joint_training"
    tuned, told = read("demo/table5_fine_tuning"), f"{number(multi - single)} (its text: 12.5)"
    gain = mean(networks, "gain_over_single")
    yield ["what", "paper", "drawn animals", "notebook"]
    yield ["multi-species", number(multi), mean(networks, "multi"), "04"]
    yield ["single-species, equal epochs", number(single), mean(networks, "single"), "04"]
    yield ["multi- minus single-species, equal epochs", told, gain, "04"]
    yield ["single-species, equal steps", "", mean(networks, "matched"), "04"]
    gain = mean(networks, "gain_over_matched")
    yield ["multi- minus single-species, equal steps", "", gain, "04"]
    yield ["leave-one-out", number(left_out), mean(unseen, "left_out"), "05"]
    gain = mean(unseen, "gain_over_left_out")
    yield ["multi-species minus leave-one-out", number(multi - left_out), gain, "05"]
    yield ["untrained", "", mean(networks, "untrained"), "04"]
    gain = mean("leave_one_out_transfer", "gain_over_untrained")
    yield ["leave-one-out minus untrained", "", gain, "05"]
    told = f"{number(descriptor)} (its text: 19.2)"
    yield ["leave-one-out minus MegaDescriptor", told, "not measured", "06"]
    cells = few_printed(four, "species_only"), few(alone, "species_only")
    yield ["few individuals, alone", *cells, "07"]
    yield ["few individuals, joint", few_printed(four, joint), few(alone, "joint"), "07"]
    cells = few_printed(five, "fine_tuning"), few(tuned, "fine_tuned")
    yield ["few individuals, fine-tuned", *cells, "09"]
    lost = interval(read("demo/figure3_cost").iloc[0], "cost_1")
    yield ["lost with one annotation each", "", lost, "08"]
    gain = mean("figure4_backbones", "gain_over_other_backbone")
    if not read("demo/figure4_costs")["learned"].all():
        gain = "no verdict: one hardly learned"
    yield ["convolutional backbone minus transformer (here: hybrid)", "4.5", gain, "10"]


def real_claims(read) -> Iterator[list[str]]:
    """The README's table of the paper's claims on the real photos."""
    table = readable(claims(ROOT / "figures" / "realdata"))
    yield [*table.columns]
    for row in table.itertuples(index=False):
        yield ["" if pd.isna(cell) else str(cell) for cell in row]


def real_species(read) -> Iterator[list[str]]:
    """The README's table of the real photos, species by species; the last row is their mean."""
    table, unseen = (
        read(f"realdata/table2_{name}").set_index("species", drop=False)
        for name in ("multi_single", "leave_one_out")
    )
    yield [
        *(
            "species (queries)",
            "multi",
            "single, equal steps",
            "gain",
            "leave-one-out",
            "untrained",
        ),
        *("paper multi", "paper single", "paper leave-one-out"),
    ]
    for species, row in table.iterrows():
        paper = [row["paper_multi"], row["paper_single"], unseen["paper_left_out"][species]]
        yield [
            f"{species} ({row['queries']:,.0f})",
            *(number(row[key]) for key in ("multi", "matched")),
            interval(row, "gain_over_matched"),
            *(number(unseen[key][species]) for key in ("left_out", "untrained")),
            *("" if species == "mean" else number(value) for value in paper),
        ]


def nyala_ladder(read) -> Iterator[list[str]]:
    """The real photos' table of what may bring nyala nearer to the paper's number."""
    yield ["step", "queries", "top-1 of nyala (%)"]
    for _, row in read("realdata/nyala_ladder").iterrows():
        yield [row["step"], f"{row['queries']:,}", interval(row, "top1")]


RENDERED = [
    *[("README", notebooks), ("README", drawn)],
    *[("README", real_claims), ("README", real_species), ("real photos", nyala_ladder)],
]


def render(rows):
    """Rows of cells as a Markdown table; notebooks' numbers are links."""
    head, *others = rows
    links = {path.name[:2]: path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    lines = [head, ["---"] * len(head)]
    lines += [
        [f"[{cell}](notebooks/{links[cell]})" if cell in links else cell for cell in row]
        for row in others
    ]
    return "".join(f"{' | '.join(line).rstrip()}\n" for line in lines)


def with_table(text, table):
    """`text` with its table of the same head replaced by `table`."""
    head = re.escape(table.split("\n")[0])
    changed, count = re.subn(rf"^{head}\n(?:.*\|.*\n)+", lambda _: table, text, flags=re.MULTILINE)
    assert count == 1, f"{count} tables begin with {head}"
    return changed


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git to ask what was saved")


@needs_git
@pytest.mark.parametrize(("page", "rows"), RENDERED, ids=[rows.__name__ for _, rows in RENDERED])
def test_tables_are_what_was_saved(page, rows):
    table = render(rows(committed))
    assert with_table(TEXT[page], table) == TEXT[page], "run python tests/project/test_readme.py"


def test_the_values_of_top_1_are_those_of_the_notebooks():
    text = TEXT["README"]
    rows = dict(re.findall(r"^\[(\d\d)\]\(.*? \| .*? \| (.*)$", text, re.MULTILINE))
    said = r"several values: (\d+) % over queries, (\d+) as .*?, (\d+) over five"
    told = re.search(said, text, re.DOTALL).groups()
    places = {
        "00": "for (.*?) %",
        "03": r"([\d.]+)(?= % trained| against)",
        "04": "top-1 (.*?) ",
    }
    for value, (notebook, place) in zip(told, places.items(), strict=True):
        assert int(value) == round(float(re.search(place, rows[notebook])[1])), notebook


@needs_git
def test_the_card_of_real_photos_has_the_numbers_that_were_saved():
    mean = committed("realdata/table2_multi_single").iloc[-1]
    unseen = committed("realdata/table2_leave_one_out").set_index("species")
    cost = committed("realdata/figure3_cost").iloc[0]
    nyala = committed("realdata/gallery_equal").set_index("species").loc["nyala"]
    passes = 4 * mean["train_annotations"] / committed("realdata/split")["train_annotations"]
    words = [
        f"better by {interval(mean, 'gain_over_single').replace(' (', ' points (')}",
        "worse by {:.1f} ({:.1f} to {:.1f})".format(
            *-mean[[f"gain_over_matched{end}" for end in ("", "_high", "_low")]]
        ),
        f"({mean['matched_seen']:.1f} against {mean['multi_seen']:.1f})",
        f"({mean['matched_new']:.1f} against {mean['multi_new']:.1f})",
        f"and {passes.min():.0f} times (`holstein_face`) to {passes.max():.0f} times",
        *(
            f"({row['left_out']:.1f} against {row['untrained']:.1f})"
            for row in (unseen.loc["mean"], unseen.loc["macaque_face"])
        ),
        interval(cost, "cost_1").replace(" (", " points of top-1 ("),
        f"top-1 is {nyala['equal_top_1']:.1f} instead of {nyala['top_1']:.1f}",
        *(
            "({:.1f}, {:.1f} to {:.1f})".format(*row[["difference", "low", "high"]])
            for row in (committed(f"realdata/table{n}_gain").iloc[0] for n in (4, 5))
        ),
    ]
    text = " ".join(TEXT["real photos"].split())
    assert [told for told in words if told not in text] == []


if __name__ == "__main__":
    for page, rows in RENDERED:
        PAGES[page].write_text(with_table(PAGES[page].read_text(), render(rows(present))))
