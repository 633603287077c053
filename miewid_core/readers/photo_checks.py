"""Whether the file of each row is a photo that can be read, without decoding it twice."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import ExifTags, Image
from tqdm import tqdm

from miewid_core.files import CACHE, Findings
from miewid_core.photos import SAVE_AGAIN, UNREADABLE, _refuse_what_is_no_photo
from miewid_core.readers.checks import shown

HINTS = 20  # so many missing files are looked for under similar names, which takes time


def look_at(files: pd.Series, root: Path, verify: bool, absolute: bool) -> pd.DataFrame:
    """Per row its photo's path, key, width, height, problem and remedy; each file is read once.

    Indexed as `files`. The key is the path below `root` (posix), width and height are pixels of the
    upright photo, NaN where there is a problem. `verify` decodes the pixels too; a photo found
    sound so is remembered, and not read again until it changes.
    """
    memory = Findings(CACHE / "sound_photos.json")
    look = partial(_look, root=root, verify=verify, absolute=absolute, memory=memory)
    unique = files.unique()
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # before any thread starts
        seen = list(tqdm(pool.map(look, unique), "photos", len(unique)))
    memory.save()
    columns = ["path", "key", "width", "height", "problem", "remedy"]
    looks = pd.DataFrame(seen, index=unique, columns=columns)
    for file in looks.index[looks["problem"].str.startswith("missing file")][:HINTS]:
        if alike := _alike(root, file):
            looks.loc[file, "remedy"] = f"there is {alike}: write its path exactly so"
    return looks.loc[files].set_index(files.index)


def _look(file: str, root: Path, verify: bool, absolute: bool, memory: Findings) -> tuple:
    """A row of `look_at`."""
    unseen = (np.nan, np.nan)
    if not file:
        return "", "", *unseen, "no file", "fill in its path, or the image that its id names"
    if Path(file).is_absolute() and not absolute:
        return "", file, *unseen, "absolute path", "make it relative or pass absolute_paths=True"
    key = file
    try:
        path = (root / file).resolve()
        inside = path.is_relative_to(root)
        key = path.relative_to(root).as_posix() if inside else path.as_posix()
        if not inside and not Path(file).is_absolute():
            remedy = "move the photo there, or write its absolute path"
            return "", key, *unseen, "path leaves the catalog's folder", remedy
        if not path.is_file():
            found = f"{path} is {'a folder' if path.is_dir() else 'none'}"
            remedy = "correct its path or put the photo there"
            if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
                found, remedy = f"{path} is a folder that you may not read", "allow yourself to"
            return "", key, *unseen, f"missing file: {found}", remedy
        return str(path), key, *_known_size(path, verify, memory), "", ""
    except UNREADABLE as error:
        return "", key, *unseen, f"unreadable file: {error}", SAVE_AGAIN


def _alike(root: Path, file: str) -> str:
    """The path below `root` that `file` is but for its case, accents or slashes; "" for none."""
    here = root
    for part in Path(file.replace("\\", "/")).parts:
        listable = here.is_dir() and os.access(here, os.R_OK)
        names = [path for path in here.iterdir() if _same(path.name, part)] if listable else []
        if len(names) != 1:
            return ""
        here = names[0]
    return here.relative_to(root).as_posix() if here.is_file() else ""


def _same(name: str, other: str) -> bool:
    return shown(name).casefold() == shown(other).casefold()


def _known_size(path: Path, verify: bool, memory: Findings) -> tuple[int, int]:
    state = path.stat()
    if known := memory.of(str(path), state):
        return tuple(known)
    size = _size(path, verify)
    if verify:
        memory.note(str(path), state, size)
    return size


def _size(path: Path, verify: bool) -> tuple[int, int]:
    """Width and height of the upright photo, in pixels; with `verify`, after decoding it."""
    with Image.open(path) as photo:
        _refuse_what_is_no_photo(photo)
        # Pillow swaps a turned TIFF's sides by itself, on opening it or later
        tiff = photo.format == "TIFF"
        width, height = (photo.tag_v2[256], photo.tag_v2[257]) if tiff else photo.size
        turned = photo.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        if verify:
            photo.draft(None, (max(1, width // 8), max(1, height // 8)))  # quick, JPEG only
            photo.load()
    return (height, width) if turned else (width, height)
