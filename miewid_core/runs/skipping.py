"""A notebook that can't do what it is for with a catalog says so and ends, without an error."""

from IPython import get_ipython
from IPython.display import Markdown, display

SKIPPED = "**Skipped:** "  # how the sentence begins
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
