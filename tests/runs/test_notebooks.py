"""The runner of notebooks: parameters are checked before anything runs."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor

import nbformat
import papermill
import psutil
import pytest
from tqdm import tqdm

from miewid_core import files
from miewid_core.__main__ import main
from miewid_core.runs import notebooks
from miewid_core.runs.notebooks import ParameterError, skip_rest


def write(path, code):
    """A notebook with two parameters, and one more cell."""
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "x"}
    parameters = nbformat.v4.new_code_cell('catalog: str = "demo"  # data\nseed: int = 0  # seed')
    parameters.metadata["tags"] = ["parameters"]
    made.cells = [parameters, nbformat.v4.new_code_cell(code)]
    nbformat.write(made, path)
    return path


@pytest.fixture(autouse=True)
def saved_here(tmp_path, monkeypatch):
    monkeypatch.setenv("MIEWID_FIGURES", str(tmp_path / "figures"))


def executed(folder):
    """The executed copies that a run in a folder left."""
    return sorted((folder / "figures").rglob("*.ipynb"))


@pytest.fixture
def notebook(tmp_path):
    return write(tmp_path / "01_one.ipynb", "assert seed < 5, 'too big'\nseed")


def test_a_parameter_that_a_notebook_lacks_is_an_error(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["figures", "SED=1"])
    assert stopped.value.code == 2
    assert "no parameter sed in 01_one.ipynb; there are catalog, seed" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("word", ["WEIGHTS=w", "CATALOG=c", "OCCASION=D", "WHERE=1", "STUDY=1"])
def test_identify_refuses_what_it_would_ignore(word, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["identify", "photos", "--catalog", "known.csv", word])
    assert stopped.value.code == 2
    assert f"identify takes no {word.partition('=')[0].lower()}" in capsys.readouterr().err


def test_each_notebook_gets_the_parameters_that_it_has(notebook, tmp_path):
    other = shutil.copy(notebook, tmp_path / "02_two.ipynb")
    made = nbformat.read(other, 4)
    made.cells[0].source += "\nextra: int = 0"
    nbformat.write(made, other)
    given = notebooks.shared([notebook, other], {"extra": "2", "seed": "1"})
    assert given == [{"seed": 1}, {"seed": 1, "extra": 2}]
    with pytest.raises(ParameterError, match="no parameter sed in the notebooks; there"):
        notebooks.shared([notebook, other], {"sed": "1"})


MEET = """import pathlib, time
pathlib.Path("{own}").touch()
while not pathlib.Path("{other}").exists():
    time.sleep(0.1)
catalog"""


@pytest.fixture
def project(tmp_path):
    """A copy of the package, with notebooks of its own."""
    shutil.copytree(files.ROOT / "miewid_core", tmp_path / "miewid_core")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def start_in(project, *words, at_once=2):
    command = [sys.executable, "-m", "miewid_core", "figures", *words]
    given = os.environ | {"PYTHONPATH": str(project), "MIEWID_CACHE": str(project / "cache")}
    return subprocess.Popen(
        [*command, "--at-once", str(at_once)],
        cwd=project,
        env=given,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_in(project, *words, at_once=2):
    with start_in(project, *words, at_once=at_once) as process:
        _, told = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, stderr=told)


def wait_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_runs_with_parameters_and_says_what_failed(project, capfd):
    code = "import sys\nprint('50 %', file=sys.stderr)\nassert seed < 5, 'too big'\nseed"
    write(project / "notebooks" / "01_one.ipynb", code)
    done = run_in(project, "SEED=3")
    assert done.returncode == 0
    assert "50 %" in done.stderr  # at the terminal alone
    (output,) = nbformat.read(executed(project)[0], as_version=4).cells[-1].outputs
    assert output["data"]["text/plain"] == "3"
    done = run_in(project, "SEED=7")
    assert done.returncode == 1
    assert "AssertionError in a cell of 01_one.ipynb: too big" in done.stderr
    report = project / "figures" / "demo" / "index.html"
    assert capfd.readouterr().out.endswith(f"Report: {report}\n")
    assert "AssertionError: too big" in report.read_text()


@pytest.mark.slow
def test_two_notebooks_run_side_by_side(project):
    for name, own, other in (("01_a", "a", "b"), ("02_b", "b", "a")):  # each waits for the other
        write(project / "notebooks" / f"{name}.ipynb", MEET.format(own=own, other=other))
    done = run_in(project, "CATALOG=it's, mine", "SEED=2")
    assert done.returncode == 0, done.stderr
    assert "[1/2] 01_a: " in done.stderr
    assert [path.stem for path in executed(project)] == ["01_a", "02_b"]
    for path in executed(project):
        saved = nbformat.read(path, as_version=4)
        assert saved.cells[-1].outputs[0]["data"]["text/plain"] == repr("it's, mine")


def test_the_digest_of_a_notebook_is_of_its_code_alone(notebook):
    one = json.loads(notebooks.about(notebook, {"seed": 1}))
    assert (one["notebook"], one["parameters"]) == ("01_one.ipynb", {"seed": 1})
    made = nbformat.read(notebook, 4)
    made.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]
    made.cells.append(nbformat.v4.new_markdown_cell("words"))
    nbformat.write(made, notebook)
    assert json.loads(notebooks.about(notebook, {"seed": 1})) == one
    made.cells[1].source += "\n"
    nbformat.write(made, notebook)
    assert json.loads(notebooks.about(notebook, {"seed": 1}))["code"] != one["code"]


@pytest.mark.slow
def test_each_notebook_finds_what_it_is(project):
    asks = f"import json, os\njson.loads(os.environ[{files.ABOUT!r}])"
    every = [write(project / "notebooks" / f"0{number}_n.ipynb", asks) for number in range(2)]
    done = run_in(project, "SEED=2", at_once=1)
    assert done.returncode == 0, done.stderr
    for path in every:
        saved = nbformat.read(project / "figures" / "demo" / "notebooks" / path.name, 4)
        shown = saved.cells[-1].outputs[0]["data"]["text/plain"]
        assert ast.literal_eval(shown) == json.loads(notebooks.about(path, {"seed": 2}))


@pytest.mark.slow
def test_notebooks_share_a_process_but_no_names(project):
    names = "[name for name in sorted(globals()) if name.strip('_i0123456789')]"
    code = f"import os\nfound, {{own}} = {names}, 1\nos.getpid(), found, __annotations__"
    for name, own in (("01_a", "first"), ("02_b", "second")):
        write(project / "notebooks" / f"{name}.ipynb", code.format(own=own))
    done = run_in(project, at_once=1)
    assert done.returncode == 0, done.stderr
    saved = [nbformat.read(path, 4) for path in executed(project)]
    first, second = (notebook.cells[-1] for notebook in saved)
    assert first.outputs == second.outputs  # the same process, and the names of a fresh one
    assert first.execution_count == second.execution_count


@pytest.mark.slow
def test_notebooks_side_by_side_share_the_cores(project, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("01_a", "02_b"):
        write(project / "notebooks" / f"{name}.ipynb", "import os\nos.getenv('OMP_NUM_THREADS')")
    done = run_in(project)
    assert done.returncode == 0, done.stderr
    for path in executed(project):
        (output,) = nbformat.read(path, 4).cells[-1].outputs
        assert output["data"]["text/plain"] == repr(str(max(1, os.cpu_count() // 2)))


@pytest.mark.slow
def test_a_kernel_that_dies_is_named(project):
    for name in ("01_a", "02_b"):
        write(project / "notebooks" / f"{name}.ipynb", "import os\nos.kill(os.getpid(), 9)")
    done = run_in(project)
    assert done.returncode == 1
    assert "ipynb: its process died, most likely for want of memory; lower batch" in done.stderr


@pytest.mark.slow
def test_an_interrupt_ends_the_notebooks_at_once(project):
    code = "import os, pathlib, time\npathlib.Path(str(os.getpid())).touch()\ntime.sleep(100)"
    for name in ("01_a", "02_b"):
        write(project / "notebooks" / f"{name}.ipynb", code)
    with start_in(project) as process:
        try:
            wait_until(lambda: len(list(project.glob("[0-9]*"))) == 2)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) != 0
        finally:
            process.kill()  # one that ignored it is not waited for
    for began in project.glob("[0-9]*"):
        wait_until(lambda pid=int(began.name): not psutil.pid_exists(pid))


class Ending:
    """Is interrupted while it is destroyed, where Python loses what is raised."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def interrupt_beside():
    """In a thread, which the system may choose: nothing wakes the main one then."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))


@pytest.mark.parametrize("interrupt", [Ending, interrupt_beside])
def test_no_interrupt_is_lost(interrupt):
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell runs all this in background
    with notebooks.interrupts() as interrupted:
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            notebooks.wait_for({Future()}, FIRST_COMPLETED, interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_seen_while_nothing_ends():
    later = threading.Timer(1, interrupt_beside)
    later.start()
    with notebooks.interrupts() as interrupted, pytest.raises(KeyboardInterrupt):
        notebooks.wait_for({Future()}, FIRST_COMPLETED, interrupted)


def test_a_line_of_the_terminal_shows_the_last_words(capsys):
    with tqdm(bar_format="{desc}", disable=False) as bar:
        line = notebooks.Line("[1/2] 01_a", bar)
        for text in ("\rphotos: 1", "/2\rphotos: 2/2", "\n", "\n", "dropp"):
            print(text, end="", file=line)
        assert bar.desc == "[1/2] 01_a: dropp"
    kept = [words for words in capsys.readouterr().err.split("\n") if "photos: 2/2" in words]
    assert any(words.endswith("[1/2] 01_a: photos: 2/2") for words in kept)


@pytest.mark.slow
def test_after_a_failure_no_other_notebook_begins(project):
    write(project / "notebooks" / "01_a.ipynb", "raise ValueError('no such species')")
    write(project / "notebooks" / "02_b.ipynb", "import time\ntime.sleep(20)")
    write(project / "notebooks" / "03_c.ipynb", "open('begun', 'w')")
    done = run_in(project)
    assert done.returncode == 1
    assert done.stderr.endswith("\nValueError in a cell of 01_a.ipynb: no such species\n")
    assert re.search(r"\[1/3\] 01_a failed.*\[2/3\] 02_b: \d+ s", done.stderr, re.DOTALL)  # in turn
    assert not (project / "begun").exists()


@pytest.mark.parametrize("words", [["--only", "01", "99"], ["SEED=1", "--only", "99"]])
def test_no_notebook_of_that_name(notebook, tmp_path, monkeypatch, capsys, words):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(SystemExit):
        main(["figures", *words])
    assert "no notebook starts with 99; there are 01_one" in capsys.readouterr().err


def test_outside_a_checkout_it_is_said_where_notebooks_live(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(SystemExit):
        main(["figures"])
    assert "they live in the repository" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "01", "SEED=3", "CATALOG=2024"],
        ["SEED=3", "--only", "01", "CATALOG=2024"],
        ["SEED=3", "--at-once", "1", "CATALOG=2024", "--only", "01"],
    ],
)
def test_options_and_parameters_stand_in_any_order(notebook, tmp_path, monkeypatch, words):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    ran = []
    monkeypatch.setattr(notebooks, "run", lambda *given: ran.append(given) or [])
    main(["figures", *words])
    ((which, _, parameters, _),) = ran
    assert which == [notebook]
    assert parameters == {"seed": "3", "catalog": "2024"}


def test_a_parameter_in_the_environment_is_used(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    monkeypatch.setenv("CATALOG", "a.csv")
    monkeypatch.setenv("SEED", "1")
    ran = []
    monkeypatch.setattr(notebooks, "run", lambda *given: ran.append(given) or [])
    main(["figures", "SEED=2"])
    assert ran[0][2] == {"catalog": "a.csv", "seed": "2"}


@pytest.mark.slow
def test_a_notebook_run_by_hand_leaves_the_committed_results(project, monkeypatch):
    monkeypatch.delenv("MIEWID_FIGURES")
    code = "from miewid_core.files import FIGURES\nFIGURES.mkdir(parents=True, exist_ok=True)"
    path = write(project / "notebooks" / "01_a.ipynb", code)
    monkeypatch.setenv("PYTHONPATH", str(project))
    papermill.execute_notebook(path, project / "out.ipynb", progress_bar=False)
    by_hand = project / "figures" / "by_hand"
    assert list((project / "figures").iterdir()) == [by_hand]
    asked = ["git", "check-ignore", "-q", "figures/by_hand/demo/table.csv"]
    assert subprocess.run(asked, cwd=files.ROOT).returncode == 0
    by_hand.rmdir()
    assert run_in(project).returncode == 0
    assert not by_hand.exists()


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([("**Answer:** it wins.", []), ("- Won.\n- By 3.", ["conclusion"])], "it wins."),
        ([("- Won.\n- By 3.", ["conclusion"])], "Won."),
        ([("a word", [])], ""),
    ],
)
def test_the_headline_is_the_answer_or_the_first_of_the_conclusion(cells, told):
    made = nbformat.v4.new_notebook()
    for text, tags in cells:
        shown = nbformat.v4.new_output("display_data", data={"text/markdown": text})
        made.cells.append(nbformat.v4.new_code_cell("x", outputs=[shown], metadata={"tags": tags}))
    assert notebooks.ended(made, "01_a", 1).headline == told


@pytest.mark.slow
def test_a_notebook_that_ends_early_is_said_and_the_next_one_runs(project, capfd):
    skip = "from miewid_core.runs.notebooks import skip_rest\nskip_rest('one species.')"
    first = project / "notebooks" / "01_a.ipynb"
    made = nbformat.read(write(first, skip), 4)
    made.cells.append(nbformat.v4.new_code_cell("raise RuntimeError"))
    nbformat.write(made, first)
    write(project / "notebooks" / "02_b.ipynb", "open('ran', 'w').close()")
    done = run_in(project, "--at-once", "1")
    assert done.returncode == 0, done.stderr
    told = capfd.readouterr().out
    assert re.search(r"01_a \(\d+ s\): skipped: one species\.\n", told)
    assert re.search(r"02_b \(\d+ s\): done\n", told)
    assert "Trained: nothing" in told
    assert told.endswith(f"Report: {project / 'figures' / 'demo' / 'index.html'}\n")
    assert (project / "ran").exists()


def test_outside_a_notebook_the_reason_is_an_error():
    with pytest.raises(ValueError, match="one species"):
        skip_rest("one species")
