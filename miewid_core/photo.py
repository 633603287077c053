"""A photo file: whether it can be used, its size, and its pixels upright in RGB."""

import io
import math
import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import ExifTags, Image
from tqdm import tqdm

from miewid_core.files import CACHE
from miewid_core.jpeg import shortened
from miewid_core.memory import Memory
from miewid_core.spelling import shown

# what Pillow raises for damaged files
DAMAGE = (ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, struct.error)
UNREADABLE = (  # and what else stops its reader, pathlib for paths that can't be included
    *(*DAMAGE, OSError, RuntimeError, MemoryError),
    *(Image.DecompressionBombError, Warning),  # huge photos are a warning, made an error below
)
MOVING = {"GIF", "PNG", "WEBP", "AVIF"}  # not MPO, a phone's photo with its preview, nor TIFF
PROGRAMS = {"EPS", "WMF", "EMF"}  # Pillow has another program run what such a file says
SAVE_AGAIN = "replace it, or save it again as JPEG or PNG"
BELOW = 64  # rows decoded below the last one asked for, whose colours are of its neighbours too
HINTS = 20  # so many missing files are looked for under similar names, which takes time
TURNS = {  # EXIF orientation: how to turn the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ChipError(ValueError):
    """Photos that can't be read, named with the reason."""


def look_at(files: pd.Series, root: Path, verify: bool, absolute: bool) -> pd.DataFrame:
    """Per row its photo's path, key, width, height, problem and remedy; each file is read once.

    Indexed as `files`. The key is the path below `root` (posix), width and height are pixels of the
    upright photo, NaN where there is a problem. `verify` decodes the pixels too; a photo found
    sound so is remembered, and not read again until it changes.
    """
    memory = Memory(CACHE / "sound_photos.json")
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


def _look(file: str, root: Path, verify: bool, absolute: bool, memory: Memory) -> tuple:
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


def _known_size(path: Path, verify: bool, memory: Memory) -> tuple[int, int]:
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


def _refuse_what_is_no_photo(image: Image.Image) -> None:
    if image.format in PROGRAMS:
        raise ValueError(f"{image.format} is no photo but a program that draws one")
    if image.format in MOVING and image.is_animated:
        raise ValueError(f"an animation of {image.n_frames} pictures, not one photo")


def read_photo(
    path: Path | str, at_least: float = 1.0, down_to: float = math.inf
) -> tuple[np.ndarray, float]:
    """An upright RGB photo (H, W, 3) uint8, and its size relative to the file's (1, 1/2, 1/4, 1/8).

    JPEGs are decoded at a reduced size, as far as that is at least `at_least` times the full one;
    rows below `down_to` (in pixels of the full size) may be missing. Raises ChipError.
    """
    try:
        with _opened(path, down_to) as opened:
            _refuse_what_is_no_photo(opened)
            turn = _turn(opened)
            fraction = _fraction(opened, turn, at_least)
            full = opened.width
            opened.draft(None, tuple(max(1, side // fraction) for side in opened.size))
            # the last column may be cut: the ratio of the widths is not quite the scale
            scale = 1 / round(full / opened.width)
            opened.load()
            # Pillow has turned TIFFs by itself, and then forgot that it had to
            upright = opened if turn is None or _turn(opened) is None else opened.transpose(turn)
            return np.asarray(_as_rgb(upright)), scale
    except UNREADABLE as error:
        raise ChipError(f"can't be read as an image ({error}); {SAVE_AGAIN}") from error


def _opened(path: Path | str, down_to: float) -> Image.Image:
    """A photo, not decoded yet; a JPEG that is stored upright without the rows far below."""
    image, rows = Image.open(path), max(0, down_to) + BELOW
    if image.format not in ("JPEG", "MPO") or rows >= image.height or _turn(image) is not None:
        return image
    image.close()
    return Image.open(io.BytesIO(shortened(Path(path).read_bytes(), math.ceil(rows))))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright by its EXIF orientation; damaged EXIF says nothing."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except DAMAGE:
        return None


def _fraction(image: Image.Image, turn: Image.Transpose | None, at_least: float) -> int:
    """8, 4, 2 or 1: how much smaller a JPEG may be decoded."""
    # what doesn't fill the last pixels comes first once turned, and all would be off by a part
    whole = [f for f in (8, 4, 2) if turn is None or not any(side % f for side in image.size)]
    return next((f for f in whole if 1 / f >= at_least), 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16 bits and more are scaled, transparency shows white."""
    if image.mode[0] in "IF":
        return _as_eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _as_eight_bits(image: Image.Image) -> Image.Image:
    """Modes I;16, I and F to L.

    I and F don't say what white is: it is the lowest usual value that none exceeds.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    usual = {"I": (255, 65535, 2**31 - 1), "F": (1, 255, 65535)}.get(image.mode, (65535,))
    white = next((top for top in usual if values.max() <= top), values.max())
    return Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))
