"""The MiewID paper companion: a catalog of photos goes in, the paper's numbers come out.

What notebooks use is exported here, and loaded when it is first asked for:
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

__version__ = "0.2.0"

# Read by OpenMP when torch is loaded, so it must be set before. By default a thread that waits for
# the others keeps its core busy: beside two other busy processes on two cores, a training step of
# the demo network then ran at 12 instead of 102 photos/s.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

EXPORTS = {  # public name: module, name there
    "open_study": ("paper.study", "open_study"),
    "parameters": ("paper.study", "parameters"),
    "compare": ("paper.comparison", "compare"),
    "verdict": ("paper.comparison", "verdict"),
    "no_better_in_words": ("paper.comparison", "no_better_in_words"),
    "with_heads": ("paper.intervals", "with_heads"),
    "save": ("runs.manifest", "save"),
    "one_vs_all": ("evaluation", "one_vs_all"),
    "top_k": ("evaluation", "top_k"),
    "mean_average_precision": ("evaluation", "mean_average_precision"),
    "load_catalog": ("readers.load", "load_catalog"),
    "read_photo": ("photos", "read_photo"),
    "split": ("splits", "split"),
    "load_model": ("readers.weights", "load_model"),
    "MiewIDNet": ("model", "MiewIDNet"),
    "SubCenterArcFace": ("loss", "SubCenterArcFace"),
    "dynamic_margins": ("loss", "dynamic_margins"),
}
__all__ = sorted(EXPORTS)


def __getattr__(name: str) -> object:
    """A public name, its module imported now (PEP 562)."""
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = EXPORTS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def progress(*arguments: object, **options: object) -> "tqdm":
    """tqdm's progress bar: a widget in a notebook, text at a terminal and for its runner.

    None is shown where TQDM_DISABLE is set, which tqdm's own widget doesn't heed.
    """
    from tqdm import auto, std

    from miewid_core.files import ABOUT  # the runner passes text on to its terminal

    tqdm = std.tqdm if ABOUT in os.environ else auto.tqdm
    options["disable"] = bool(options.get("disable") or os.environ.get("TQDM_DISABLE"))
    return tqdm(*arguments, **options)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
