"""The numbered notebooks, run through papermill with parameters of a command line."""

import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nbformat
import papermill
import yaml
from IPython import get_ipython
from IPython.display import Markdown, display
from jupyter_client.manager import KernelManager
from nbclient.exceptions import DeadKernelError
from tqdm import tqdm

from miewid_core.files import ABOUT, ROOT, digest

KINDS = {  # of parameters, beside text
    "list": (list, "a list, such as zebra,leopard"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number, with a point"),
    "bool": (bool, "true or false"),
}


class ParameterError(ValueError):
    """A parameter that a notebook doesn't have, or that can't be read."""


def parse(assignments: Sequence[str]) -> dict[str, str]:
    """Parameters from words NAME=VALUE: names in lower case, values as they stand.

    Raises ParameterError for a word of another form.
    """
    parameters = {}
    for word in assignments:
        name, sign, value = word.partition("=")
        if not (sign and name.isidentifier()):
            raise ParameterError(f"{word!r} is no parameter; write NAME=VALUE, such as SEED=1")
        parameters[name.lower()] = value
    return parameters


def typed(name: str, value: str, kind: str) -> object:
    """A parameter's value as its notebook or function declares it: kind "str", "list", "int", ...

    Text stays text, and a list is written with commas, or as one word for a list of one. Raises
    ParameterError for what is none of its kind.
    """
    if kind == "str":
        return value
    if kind == "list" and not value.startswith("["):
        value = f"[{value.replace(';', ',')}]"
    types, words = KINDS[kind]
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ParameterError(f"{name}: {value!r} can't be read as {words}") from None
    if not isinstance(read, types) or (kind != "bool" and isinstance(read, bool)):
        raise ParameterError(f"{name} is {value!r}; give {words}")
    return read


SKIPPED = "**Skipped:** "  # how a notebook begins to say that it can't do what it is for
KEPT = "# the runner's"  # first line of a cell that runs all the same


def skip_rest(reason: str) -> None:
    """End the notebook that calls this: its other cells do nothing, and no error is raised.

    Raises ValueError with the reason outside a notebook.
    """
    shell = get_ipython()
    if shell is None:
        raise ValueError(reason)
    display(Markdown(SKIPPED + reason))
    shell.input_transformers_cleanup.append(
        lambda lines: lines if lines and lines[0].startswith(KEPT) else []
    )


# reset takes these of every module too, and a process that is spawned asks for them
RESET = f"""{KEPT}
get_ipython().input_transformers_cleanup.clear()
get_ipython().reset()
__doc__ = __loader__ = __package__ = __spec__ = None
__annotations__ = {{}}"""
CLIENT = "jupyter_client.asynchronous.AsyncKernelClient"  # what nbclient awaits answers of


@contextmanager
def started(beside: int = 1, cwd: Path | None = None) -> Iterator[KernelManager]:
    """A running kernel of this Python, of `beside`; it ends with the block, whatever it is doing.

    It has its share of the cores: two kernels with two threads each on two cores get a third as
    much done, as a thread that waits for another keeps its core busy.
    """
    kernel = KernelManager(kernel_name="python3", client_class=CLIENT)
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // beside))} if beside > 1 else {}
    kernel.start_kernel(env=share | os.environ, cwd=cwd)
    try:
        yield kernel
    finally:
        kernel.shutdown_kernel(now=True)


def _silently(kernel: KernelManager, code: str) -> None:
    """Run code in an idle kernel, without a trace in its notebook."""
    client = kernel.blocking_client()
    client.start_channels()
    try:
        client.execute(code, silent=True, reply=True, timeout=60)
    finally:
        client.stop_channels()


FOLDER = ROOT / "notebooks"
LOOK = 0.2  # seconds after which an interrupt is seen
ANSWER = "**Answer:** "  # how a notebook's first output begins, which its last cells fill
VOLATILE = "metadata.papermill cell.metadata.papermill cell.metadata.execution"


class NotebookError(RuntimeError):
    """A notebook that failed, and why."""


class Line(io.TextIOBase):
    """A file of which the last words stand on one line of the terminal, and whole lines for good.

    Progress bars, which go back to the start of their line, are followed there.
    """

    encoding = "utf-8"

    def __init__(self, title: str, bar: tqdm) -> None:
        self.title, self.bar, self.words = title, bar, ""

    def write(self, text: str) -> int:
        """Show a text, as far as it comes."""
        for piece in re.split("([\r\n])", text):
            if piece == "\n" and self.words.strip():
                tqdm.write(f"{self.title}: {self.words.rstrip()}", file=sys.stderr)
            self.words = "" if piece in ("\r", "\n") else self.words + piece
        shown = f"{self.title}: {self.words}"  # tqdm cuts no description at the terminal's edge
        self.bar.set_description_str(shown[: shutil.get_terminal_size().columns - 1])
        return len(text)


@dataclasses.dataclass
class Ended:
    """A notebook that ran: seconds, why it was skipped or failed ("" if it wasn't), conclusion.

    `headline`: what it found in a line.
    """

    notebook: str
    seconds: float
    skipped: str = ""
    failed: str = ""
    conclusion: str = ""
    headline: str = ""


def ended(notebook: nbformat.NotebookNode, name: str, seconds: float) -> Ended:
    """What an executed notebook says of itself: its answer, and its cell tagged "conclusion"."""
    told, answer = Ended(name, seconds), ""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/markdown", "")
            if text.startswith(SKIPPED):
                told.skipped = text.removeprefix(SKIPPED)
            if text.startswith(ANSWER):
                answer = text.removeprefix(ANSWER)
            if "conclusion" in cell.metadata.get("tags", []) and text:
                told.conclusion = told.conclusion or text
            if output.output_type == "error":
                told.failed = f"{output.ename}: {output.evalue}"
    record = notebook.metadata.get("papermill", {"end_time": "in git"})
    if not (told.failed or record.get("end_time")):
        told.failed = "it stopped before its end"
    told.headline = answer or told.conclusion.partition("\n")[0].removeprefix("- ")
    return told


def shared(notebooks: Sequence[Path], parameters: Mapping[str, str]) -> list[dict[str, object]]:
    """To each notebook those of the parameters that it has, of the kind that it declares.

    Raises ParameterError naming those that none of them has, and those there are.
    """
    known = [declared(notebook) for notebook in notebooks]
    every = dict.fromkeys(itertools.chain(*known))
    if unknown := ", ".join(sorted(set(parameters) - set(every))):
        which = notebooks[0].name if len(notebooks) == 1 else "the notebooks"
        raise ParameterError(f"no parameter {unknown} in {which}; there are {', '.join(every)}")
    return [
        {name: typed(name, parameters[name], kinds[name]) for name in kinds if name in parameters}
        for kinds in known
    ]


def declared(notebook: Path) -> dict[str, str]:
    """The parameters of a notebook: name to kind."""
    found = papermill.inspect_notebook(str(notebook))
    return {name: told["inferred_type_name"] for name, told in found.items()}


def from_environment(notebooks: Sequence[Path]) -> list[str]:
    """Words NAME=VALUE for the parameters of notebooks that the environment sets, in capitals."""
    names = dict.fromkeys(itertools.chain(*map(declared, notebooks)))
    return [f"{name}={os.environ[name.upper()]}" for name in names if name.upper() in os.environ]


def chosen(words: Sequence[str]) -> list[Path]:
    """The notebooks whose names start with one of `words` (all without any), in their order."""
    every = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    if not every:
        raise ParameterError(f"there are no notebooks in {FOLDER}: they live in the repository")
    for word in words:
        if not any(path.name.startswith(word) for path in every):
            names = ", ".join(path.stem for path in every)
            raise ParameterError(f"no notebook starts with {word}; there are {names}")
    return [path for path in every if not words or path.name.startswith(tuple(words))]


def about(notebook: Path, parameters: dict[str, object]) -> str:
    """A notebook's name, the digest of its code cells, and its parameters, as JSON."""
    cells = nbformat.read(notebook, 4).cells
    code = digest(*(cell.source for cell in cells if cell.cell_type == "code"))
    return json.dumps({"notebook": notebook.name, "code": code, "parameters": parameters})


def execute(
    notebook: Path,
    output: Path,
    parameters: dict[str, object],
    kernel: KernelManager,
    **options: object,
) -> None:
    """Run one notebook into `output` in an idle kernel, which finds `about` it in its environment.

    `options` are papermill's. Raises NotebookError with what a cell raised.
    """
    _silently(kernel, f"__import__('os').environ[{ABOUT!r}] = {about(notebook, parameters)!r}")
    output.parent.mkdir(parents=True, exist_ok=True)
    options = {"stderr_file": sys.stderr} | options
    try:
        papermill.execute_notebook(
            notebook, output, parameters, kernel_name="python3", km=kernel, **options
        )
    except papermill.PapermillExecutionError as error:
        told = f"{error.ename} in a cell of {notebook.name}: {error.evalue}"
        raise NotebookError(told) from None
    except DeadKernelError:
        told = f"{notebook.name}: its process died, most likely for want of memory"
        raise NotebookError(f"{told}; lower batch_size or image_size") from None
    finally:
        if output != notebook and output.exists():  # of a committed one a test looks at them
            _drop_stderr(output)


def _drop_stderr(executed: Path) -> None:
    """Take progress bars and warnings out of an executed copy: they were for the terminal."""
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    nbformat.write(notebook, executed)


def run(
    notebooks: list[Path], output: Path, parameters: Mapping[str, str], at_once: int = 0
) -> list[Ended]:
    """Run notebooks, each with those of the parameters that it has (see `shared`).

    `at_once` run side by side (0: as many as make sense), one after the other in the same process,
    which loads the packages once; what two of them ask for is still trained once (see
    `run.Training`). Raises NotebookError when one fails: no other one begins then.
    """
    given = shared(notebooks, parameters)
    if len(notebooks) == 1:
        at_once = 1
    at_once, running, every = at_once or _most_at_once(parameters), set(), []
    with ThreadPoolExecutor(at_once) as pool, ExitStack() as stack:
        places = [(line, stack.enter_context(started(at_once))) for line in range(at_once)]
        interrupted = stack.enter_context(interrupts())
        for number, (notebook, own) in enumerate(zip(notebooks, given, strict=True), 1):
            title = f"[{number}/{len(given)}] {notebook.stem}"
            every.append(pool.submit(_run_in, places, notebook, title, output, own))
            running.add(every[-1])
            if len(running) == at_once:
                running = wait_for(running, FIRST_COMPLETED, interrupted)
        wait_for(running, ALL_COMPLETED, interrupted)
    return [future.result() for future in every]


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Is set by Ctrl-C instead of KeyboardInterrupt, of which Python loses one that it raises in a
    destructor; that of a progress bar then keeps the lock of all bars."""
    interrupted = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(running: set[Future], until: str, interrupted: threading.Event) -> set[Future]:
    """Those still running then; when one has failed, the others end before its error is raised.

    Raises KeyboardInterrupt once `interrupted`, which nothing wakes: it is looked for.
    """
    ended, going_on = set(), running
    while going_on and not (ended and until == FIRST_COMPLETED):
        ended, going_on = wait(running, LOOK, until)
        if interrupted.is_set():
            raise KeyboardInterrupt
        if any(future.exception() for future in ended):
            until = ALL_COMPLETED
    for future in ended:
        future.result()
    return going_on


def _run_in(
    places: list[tuple[int, KernelManager]],
    notebook: Path,
    title: str,
    output: Path,
    parameters: dict[str, object],
) -> Ended:
    """Run a notebook in a free kernel, whose last words stand on a line of the terminal."""
    begun, (line, kernel) = time.monotonic(), places.pop()
    with tqdm(bar_format="{desc}", position=line, leave=False) as bar:
        told = Line(title, bar)
        shown = {"stderr_file": told, "progress_bar": {"file": told}}
        try:
            execute(notebook, output / notebook.name, parameters, kernel, **shown)
        except NotebookError as error:  # which is raised when what runs beside it has ended
            tqdm.write(f"{title} failed: {error}", file=sys.stderr)
            raise
    _silently(kernel, RESET)  # the next notebook finds none of this one's names
    places.append((line, kernel))
    executed = nbformat.read(output / notebook.name, 4)
    done = ended(executed, notebook.stem, time.monotonic() - begun)
    tqdm.write(f"{title}: {done.seconds:.0f} s", file=sys.stderr)
    return done


def _most_at_once(parameters: Mapping[str, str]) -> int:
    """Two, as loading packages and drawing figures keep one core busy; one where a GPU trains."""
    from miewid_core.machine import default_device  # not for one notebook: seconds of torch

    on_gpus = parameters.get("scheduler") or default_device().type == "cuda"
    return 1 if on_gpus else min(2, os.cpu_count() or 1)


def refresh(notebooks: list[Path]) -> None:
    """Run notebooks on the demo data in place, and clean them for git with their outputs kept."""
    os.environ["TQDM_DISABLE"] = "1"  # the kernel inherits it: no progress bars in what is kept
    for notebook in notebooks:
        sys.stderr.write(f"{notebook.name}\n")
        with started(cwd=FOLDER) as kernel:
            execute(notebook, notebook, {}, kernel)
        options = ["--keep-output", "--keep-count", "--extra-keys", VOLATILE]
        subprocess.run([sys.executable, "-m", "nbstripout", *options, str(notebook)], check=True)
