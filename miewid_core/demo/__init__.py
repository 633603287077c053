"""The drawn animals: a catalog that is made on first use, without a download."""

from pathlib import Path

from filelock import FileLock

VERSION = "5"  # raise it whenever the same seed and scale give other files
SIDES_DIFFER = "speckled_shark", "coral_turtle"  # species whose sides carry different patterns


def draw_animals(
    folder: Path, seed: int = 0, scale: float = 1.0, workers: int | None = None
) -> Path:
    """Draw all scenes below `folder`, once for a seed and scale; returns their annotations.csv.

    `scale` multiplies the number of individuals. A killed drawing is begun anew; a second process
    waits for the first. The files' bytes don't depend on the number of workers.
    """
    here = Path(folder) / f"v{VERSION}-seed{seed}-scale{scale:g}"
    here.mkdir(parents=True, exist_ok=True)
    with FileLock(here / "lock"):
        if not (here / "annotations.csv").exists():
            from miewid_core.demo.draw import draw  # not for what is drawn already

            draw(here, seed, scale, workers)
    return here / "annotations.csv"
