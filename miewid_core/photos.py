"""A photo file: whether it can be used, its size, and its pixels upright in RGB."""

import math
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin

WHITE = (255, 255, 255)
Box = tuple[float, float, float, float]
SIDE_LIMIT = 32_767


def crop(photo: np.ndarray, box: Box, theta: float = 0.0) -> np.ndarray:
    """Cut a box (x, y, w, h in pixels) from `photo` (H, W, 3) uint8: (h, w, 3) uint8.

    The photo is turned counter-clockwise by `theta` radians about the box's centre first, as MiewID
    does; what lies outside the photo is white. Raises ChipError for a turned box that is too large.
    """
    if theta == 0:
        (left, right), (top, bottom) = _edges(box[0], box[2]), _edges(box[1], box[3])
        return _window(photo, left, top, right, bottom)
    x, y, w, h = box
    shape = max(1, round(w)), max(1, round(h))
    turn = rotation(theta)  # from the chip to the photo
    middle = np.array([x + w / 2, y + h / 2])
    # only the part around the box is turned: OpenCV takes no side of 32,767 pixels or more
    reach = np.abs(turn) @ shape / 2 + 2
    start, end = np.floor(middle - reach).astype(int), np.ceil(middle + reach).astype(int)
    if max(*shape, *(end - start)) >= SIDE_LIMIT:
        raise ChipError(f"a turned box of {shape[0]} x {shape[1]} pixels: scale the photo down")
    # pixels lie at whole numbers, half a pixel from their edges
    offset = middle - 0.5 - start - turn @ ((np.array(shape) - 1) / 2)
    return cv2.warpAffine(
        _window(photo, *start, *end),
        np.column_stack([turn, offset]),
        shape,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=WHITE,
    )


def rotation(theta: float) -> np.ndarray:
    """(2, 2) matrix by which points turn clockwise, as y points down."""
    sine, cosine = np.sin(theta), np.cos(theta)
    return np.array([[cosine, -sine], [sine, cosine]])


def _edges(start: float, length: float) -> tuple[int, int]:
    """Whole first and last edge of a side, at least a pixel apart."""
    # both edges are rounded, not the length: that could reach a pixel past the photo
    first = min(round(start), math.ceil(start + length) - 1)
    return first, max(first + 1, round(start + length))


def _window(photo: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Pixels of `photo` from left and top up to right and bottom, white outside."""
    part = photo[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if part.shape[:2] == (bottom - top, right - left):  # as of most boxes: nothing to fill
        return part
    window = np.full((bottom - top, right - left, 3), WHITE, np.uint8)
    down, along = max(0, -top), max(0, -left)
    window[down : down + part.shape[0], along : along + part.shape[1]] = part
    return window


# what Pillow raises for damaged files
DAMAGE = (ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, struct.error)
UNREADABLE = (  # and what else stops its reader, pathlib for paths that can't be included
    *(*DAMAGE, OSError, RuntimeError, MemoryError),
    *(Image.DecompressionBombError, Warning),  # huge photos are a warning, made an error below
)
MOVING = {"GIF", "PNG", "WEBP", "AVIF"}  # not MPO, a phone's photo with its preview, nor TIFF
PROGRAMS = {"EPS", "WMF", "EMF"}  # Pillow has another program run what such a file says
SAVE_AGAIN = "replace it, or save it again as JPEG or PNG"
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


def refuse_what_is_no_photo(image: Image.Image) -> None:
    """Raise ValueError for programs that draw, and for animations."""
    if image.format in PROGRAMS:
        raise ValueError(f"{image.format} is no photo but a program that draws one")
    if image.format in MOVING and image.is_animated:
        raise ValueError(f"an animation of {image.n_frames} pictures, not one photo")


def read_photo(path: Path | str) -> np.ndarray:
    """A photo file's pixels as the notebooks see them: upright, RGB, (H, W, 3) uint8.

    EXIF orientation is applied, 16 bits are scaled to 8, transparency shows white. A JPEG of more
    pixels than Pillow takes is read at a reduced size. Raises ChipError for what is no photo.
    """
    return read_reduced(path, 1.0)[0]


def read_reduced(path: Path | str, at_least: float) -> tuple[np.ndarray, float]:
    """What `read_photo` gives, and its size relative to the file's (1, 1/2, 1/4, 1/8).

    JPEGs are decoded at a reduced size, as far as that is at least `at_least` times the full one.
    """
    try:
        with open_photo(path) as opened:
            refuse_what_is_no_photo(opened)
            deep = opened.mode[0] not in "IF" and ";16" in str(opened.tile)  # before it is loaded
            turn = _turn(opened)
            fraction = _fraction(opened, turn, at_least)
            full = opened.width
            opened.draft(None, tuple(max(1, side // fraction) for side in opened.size))
            # the last column may be cut: the ratio of the widths is not quite the scale
            scale = 1 / round(full / opened.width)
            opened.load()
            # Pillow has turned TIFFs by itself, and then forgot that it had to
            upright = opened if turn is None or _turn(opened) is None else opened.transpose(turn)
            if deep and _dark(upright):
                upright = _found_range(path, upright, turn)
            return np.asarray(_as_rgb(upright)), scale
    except UNREADABLE as error:
        raise ChipError(f"can't be read as an image ({error}); {SAVE_AGAIN}") from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright by its EXIF orientation; damaged EXIF says nothing."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except DAMAGE:
        return None


def _fraction(image: Image.Image, turn: Image.Transpose | None, at_least: float) -> int:
    """8, 4, 2 or 1: how much smaller a JPEG may be decoded, or has to be."""
    # what doesn't fill the last pixels comes first once turned, and all would be off by a part
    whole = [f for f in (8, 4, 2) if turn is None or not any(side % f for side in image.size)]
    wanted = next((f for f in whole if 1 / f >= at_least), 1)
    pixels = image.width * image.height
    return next((f for f in (1, 2, 4, 8) if f >= wanted and pixels <= f**2 * _most_pixels()), 8)


def _most_pixels() -> float:
    """Pixels that Pillow decodes of a photo."""
    return 2 * (Image.MAX_IMAGE_PIXELS or np.inf)


def open_photo(path: Path | str) -> Image.Image:
    """A photo, not decoded yet: a JPEG may have 16 times as many pixels as Pillow takes.

    Raises what Pillow raises (UNREADABLE).
    """
    try:
        return Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        try:
            image = JpegImagePlugin.jpeg_factory(str(path))
        except SyntaxError:
            raise error from None
        if image.width * image.height > 16 * _most_pixels():  # an eighth of each side: a quarter
            image.close()
            raise
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16 bits and more are scaled, transparency shows white."""
    if image.mode[0] in "IF":
        usual = {"I": (*BITS, 2**31 - 1), "F": (1, *BITS)}.get(image.mode, BITS)
        grey = Image.fromarray(_scaled(np.asarray(image, dtype=np.float64), usual))
        return grey.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


BITS = (255, 1023, 4095, 16_383, 65_535)  # white where 8, 10, 12, 14 and 16 bits are used


def _scaled(values: np.ndarray, usual: tuple[int, ...]) -> np.ndarray:
    """Values to uint8. No file says what white is: the lowest usual value that none exceeds."""
    values = np.nan_to_num(values)
    white = next((top for top in usual if values.max() <= top), values.max())
    return (values * (255 / white)).round().clip(0, 255).astype(np.uint8)


def _dark(image: Image.Image) -> bool:
    """Whether no colour of 16 bits, of which Pillow keeps the upper 8, uses the upper two."""
    colours = image.getchannel(0) if image.mode == "LA" else image.convert("RGB")
    return int(np.asarray(colours).max()) < 64


def _found_range(path: Path | str, image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Colours of 16 bits by the range that they use; the image as it is if OpenCV can't tell."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return image
    colours = Image.fromarray(_scaled(values[..., 2::-1].astype(np.float64), BITS))
    if values.shape[2] == 4:
        colours.putalpha(Image.fromarray((values[..., 3] / 257).round().astype(np.uint8)))
    return colours if turn is None else colours.transpose(turn)


def resize(image: np.ndarray, size: int, resizing: str = "card") -> np.ndarray:
    """(H, W, 3) to (size, size, 3) uint8, aspect not kept, bilinear.

    `resizing`: "card" antialiases, "plugin" doesn't (see `model.Preprocess`).
    """
    if resizing == "plugin":
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).copy()
