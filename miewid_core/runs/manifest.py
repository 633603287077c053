"""What the saved tables and figures rest on: MANIFEST.json beside them, an entry a notebook.

The runner of notebooks writes it: what is saved by a notebook that a reader opened is not in it.
An entry holds the digest of each file that the notebook saved, of its code cells, the parameters
it was given, the folders of the trainings it used, and the versions, machine and commit.
"""

import json
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import pandas as pd
from filelock import FileLock

from miewid_core import figures
from miewid_core.files import ABOUT, file_digest, replacing

NAME = "MANIFEST.json"
PLACES = ("figures_dir", "runs_dir", "scheduler")  # parameters that change no number


def save(
    folder: Path,
    name: str,
    table: pd.DataFrame,
    figure: figures.Figure | None = None,
    runs: Collection[str] = (),
) -> None:
    """Write a table, or a figure with the table that it draws, into `folder`, and note it."""
    note(folder, figures.save(table, name, folder, figure), runs)


def note(folder: Path, names: Collection[str], runs: Collection[str] = ()) -> None:
    """Note files of `folder` in its manifest, if the runner runs a notebook here.

    `runs`: names of the folders of all trainings that the notebook has used so far. An entry of
    another notebook text, other parameters, versions or machine is begun anew.
    """
    if ABOUT not in os.environ:
        return
    from miewid_core.runs.run import versions  # not for figures alone: seconds of torch

    about = json.loads(os.environ[ABOUT])
    notebook = about.pop("notebook")
    about["parameters"] = _portable(about["parameters"])
    about["versions"] = versions()
    with FileLock(Path(folder) / f".{NAME}.lock"):
        entries = read(folder)
        files = entries.get(notebook, {}).pop("files", {})
        if about != {key: entries.get(notebook, {}).get(key) for key in about}:
            files = {}
        files |= {name: file_digest(Path(folder) / name) for name in names}
        entries[notebook] = about | {"files": files, "runs": sorted(runs)}
        with replacing(Path(folder) / NAME) as temporary:
            temporary.write_text(f"{json.dumps(entries, indent=1, sort_keys=True)}\n", "utf-8")


def read(folder: Path) -> dict[str, dict]:
    """The manifest of a folder: notebook to entry; empty where it is missing or damaged."""
    with suppress(FileNotFoundError, ValueError):
        return json.loads((Path(folder) / NAME).read_bytes())
    return {}


def digests(entries: dict[str, dict]) -> dict[str, str]:
    """The SHA-256 of each file that a manifest names."""
    return {name: found for entry in entries.values() for name, found in entry["files"].items()}


def _portable(parameters: dict[str, object]) -> dict[str, object]:
    """Parameters that decide the numbers; of files and folders only their names."""
    kept = {name: value for name, value in parameters.items() if name not in PLACES}
    return {
        name: Path(value).name if isinstance(value, str) and _is_path(value) else value
        for name, value in kept.items()
    }


def _is_path(value: str) -> bool:
    path = Path(value).expanduser()
    return bool(value) and (path.is_absolute() or path.exists())
