"""Whether the file of each row is a photo that can be read, without decoding it twice."""

import contextlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from miewid_core import progress
from miewid_core.files import CACHE, Findings
from miewid_core.photos import SAVE_AGAIN, UNREADABLE, open_photo, refuse_what_is_no_photo
from miewid_core.readers.checks import shown
from miewid_core.readers.sources import CAMERA_RAW

PART = 64  # photos that a thread takes at once
HINTS = 20  # so many missing files are looked for under similar names, which takes time
ABSOLUTE = "make it relative, give photos_dir, or absolute_paths=True if you trust the catalog"
FETCH = "fetch it from where it is kept: git lfs pull, git annex get, dvc pull"
MOVE = "correct its path, put the photo there, or give photos_dir"
OUTSIDE = "move the photo there, or write its absolute path"
HUGE = "scale it down, or save it as a JPEG, which is read at a reduced size"


class Look(NamedTuple):
    """What is known of a row's photo.

    `key`: its path below the root (posix). `width`, `height`: pixels of the upright photo, NaN
    where there is a problem; `turned`: whether the stored one lies on its side (EXIF). `size` in
    bytes, `changed` in seconds since 1970.
    """

    path: str = ""
    key: str = ""
    width: float = np.nan
    height: float = np.nan
    turned: bool = False
    size: int = 0
    changed: float = np.nan
    problem: str = ""
    remedy: str = ""


def look_at(files: pd.Series, root: Path, verify: bool, absolute: bool) -> pd.DataFrame:
    """Per row the `Look` at its photo, indexed as `files`; each file is read once.

    `verify` decodes the pixels too; a photo found sound so is remembered, where the cache can be
    written, and not read again until it changes.
    """
    memory = Findings(CACHE / "checked_photos.json")
    look = partial(_look, root=root, verify=verify, absolute=absolute, memory=memory)
    unique = files.unique()
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        # before any thread starts; photos that are too large are refused all the same
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        parts = [unique[start : start + PART] for start in range(0, len(unique), PART)]
        looked = pool.map(lambda part: [look(file) for file in part], parts)
        seen = [found for part in progress(looked, "photos", len(parts)) for found in part]
    with contextlib.suppress(OSError):  # a checkout that can't be written
        memory.save()
    looks = pd.DataFrame(seen, index=unique, columns=Look._fields)
    for file in looks.index[looks["problem"].str.startswith("missing file")][:HINTS]:
        if alike := _alike(root, file):
            looks.loc[file, "remedy"] = f"there is {alike}: write its path exactly so"
    return looks.loc[files].set_index(files.index)


def relative(files: pd.Series, root: Path, absolute: bool) -> pd.Series:
    """Files with paths of another computer, as they lie below `root`, if they do.

    These are absolute paths, cut, unless they are there and `absolute`; and those of Windows.
    """
    named = pd.Series(files.unique(), dtype=object)
    named = named[named.str.contains(r"^(?:/|[A-Za-z]:/)|\\", regex=True)]
    other = [file for file in named if not (absolute and Path(file).is_file())]
    found = [cut for file in other[:HINTS] if (cut := _below(file, root)) is not None]
    if not found:
        return files
    cut = max(set(found), key=found.count)
    moved = {file: "/".join(_parts(file)[cut:]) or file for file in other}
    return files.map(lambda file: moved.get(file, file))


def _parts(file: str) -> tuple[str, ...]:
    return (PurePosixPath if file.startswith("/") else PureWindowsPath)(file).parts


def _below(file: str, root: Path) -> int | None:
    """How many first parts of a path are to be left out to find it below root; None for nowhere."""
    parts = _parts(file)
    cuts = range(1, len(parts)) if PureWindowsPath(file).anchor else (0,)
    there = (cut for cut in cuts if os.path.isfile(root.joinpath(*parts[cut:])))  # noqa: PTH113
    return None if ".." in parts else next(there, None)


def _look(file: str, root: Path, verify: bool, absolute: bool, memory: Findings) -> Look:
    key = os.path.normpath(file)
    for refused, problem, remedy in (
        (not file, "no file", "fill in its path, or the image that its id names"),
        (Path(file).is_absolute() and not absolute, "absolute path", ABSOLUTE),
        (Path(file).suffix.lower() in CAMERA_RAW, "a camera's raw file", "export it as JPEG"),
        (key.split("/")[0] == "..", "path leaves the catalog's folder", OUTSIDE),
    ):
        if refused:
            return Look(key=file and key, problem=problem, remedy=remedy)
    try:
        link = (root / key).is_symlink()
        path = (root / key).resolve()  # links are the user's own: they may lead elsewhere
        inside = path.is_relative_to(root)
        key = path.relative_to(root).as_posix() if inside else key
        if not path.is_file():
            problem, remedy = _missing(path, link)
            return Look(key=key, problem=f"missing file: {problem}", remedy=remedy)
        state = path.stat()
        size = _size(path, state, verify, memory)
        return Look(str(path if inside else root / key), key, *size, state.st_size, state.st_mtime)
    except UNREADABLE as error:
        huge = isinstance(error, Image.DecompressionBombError)
        remedy = HUGE if huge else FETCH if _is_pointer(root / key) else SAVE_AGAIN
        return Look(key=key, problem=f"unreadable file: {error}", remedy=remedy)


def _is_pointer(path: Path) -> bool:
    """Whether Git LFS keeps a file elsewhere."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as opened:
        return opened.read(19) == b"version https://git"
    return False


def _missing(path: Path, link: bool) -> tuple[str, str]:
    """What is where a photo should be, and the remedy."""
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        return f"{path} is a folder that you may not read", "allow yourself to"
    return f"{path} is {'a folder' if path.is_dir() else 'none'}", FETCH if link else MOVE


def _alike(root: Path, file: str) -> str:
    """The path below `root` that `file` is but for its case, accents or slashes; "" for none."""
    here = root
    for part in Path(file.replace("\\", "/")).parts:
        listable, look = here.is_dir() and os.access(here, os.R_OK), shown(part).casefold()
        names = [p for p in here.iterdir() if shown(p.name).casefold() == look] if listable else []
        if len(names) != 1:
            return ""
        here = names[0]
    return here.relative_to(root).as_posix() if here.is_file() else ""


def _size(
    path: Path, state: os.stat_result, verify: bool, memory: Findings
) -> tuple[int, int, bool]:
    """Width and height in pixels of the upright photo, whether it is stored on its side.

    With `verify`, after decoding it, which is remembered.
    """
    if known := memory.of(str(path), state):
        return tuple(known)
    with open_photo(path) as photo:
        refuse_what_is_no_photo(photo)
        # Pillow swaps a turned TIFF's sides by itself, on opening it or later
        tiff = photo.format == "TIFF"
        width, height = (photo.tag_v2[256], photo.tag_v2[257]) if tiff else photo.size
        turned = photo.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        if verify:
            photo.draft(None, (max(1, width // 8), max(1, height // 8)))  # quick, JPEG only
            photo.load()
    size = (height, width, turned) if turned else (width, height, turned)
    if verify:
        memory.note(str(path), state, size)
    return size
