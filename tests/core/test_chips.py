"""Chips against per-pixel loops, MiewID's own way of cutting them, and files of every kind."""

import cmath
import io
import math
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from miewid_core import chips
from miewid_core.chips import ChipStore
from miewid_core.photos import ChipError, crop, read_photo, read_reduced, resize

WHITE = 255.0
SIDES = {  # EXIF orientation: where the stored row 0 and column 0 are seen
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixel(photo, column, row):
    inside = 0 <= row < photo.shape[0] and 0 <= column < photo.shape[1]
    return photo[row, column].astype(float) if inside else np.full(3, WHITE)


def sample(photo, x, y):
    """Bilinear colour at a point; the centre of the first pixel is (0.5, 0.5)."""
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    right, down = x - 0.5 - column, y - 0.5 - row
    upper = (1 - right) * pixel(photo, column, row) + right * pixel(photo, column + 1, row)
    lower = (1 - right) * pixel(photo, column, row + 1) + right * pixel(photo, column + 1, row + 1)
    return (1 - down) * upper + down * lower


def slow_crop(photo, box, theta):
    """Where each point of the chip was before the photo turned counter-clockwise, y upwards."""
    x, y, w, h = box
    columns, rows = max(1, round(w)), max(1, round(h))
    chip = np.empty((rows, columns, 3))
    for row in range(rows):
        for column in range(columns):
            seen = complex(column + 0.5 - columns / 2, -(row + 0.5 - rows / 2))
            was = seen * cmath.exp(-1j * theta)
            chip[row, column] = sample(photo, x + w / 2 + was.real, y + h / 2 - was.imag)
    return chip


boxes = st.tuples(*[st.floats(-12, 30)] * 2, *[st.floats(0.6, 20)] * 2)


@settings(max_examples=40, deadline=None)
@given(boxes, st.floats(-7, 7).filter(bool), st.integers(0, 5))
def test_turned_crop_is_bilinear_at_each_pixel(box, theta, seed):
    photo = noise(24, 31, seed)
    difference = np.abs(crop(photo, box, theta) - slow_crop(photo, box, theta))
    assert difference.max() < 10  # OpenCV rounds places to 1/32 pixel: on noise, 255 / 32 at most
    assert difference.mean() < 3


@settings(max_examples=40, deadline=None)
@given(st.integers(-9, 30), st.integers(-9, 30), st.integers(1, 14), st.integers(1, 14))
def test_upright_crop_is_a_slice_with_white_outside(x, y, w, h):
    photo = noise(24, 31)
    np.testing.assert_array_equal(
        crop(photo, (float(x), float(y), float(w), float(h))),
        [[pixel(photo, x + column, y + row) for column in range(w)] for row in range(h)],
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 60), st.data())
def test_no_upright_box_within_the_photo_gets_a_white_edge(width, data):
    start = data.draw(st.floats(0, width - 0.5))
    length = data.draw(st.floats(0.01, width - start))
    black = np.zeros((width, width, 3), np.uint8)
    assert crop(black, (start, 0, length, width)).max() == 0
    assert crop(black, (0, start, width, length)).max() == 0


@pytest.mark.parametrize("quarters", [-3, -2, -1, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(("w", "h"), [(8, 4), (7, 7), (5, 9), (1, 3), (12, 2)])
def test_quarter_turns_are_rot90_of_the_box_on_its_side(quarters, w, h):
    photo, (x, y) = noise(24, 31), (11, 8)
    across, down = (h, w) if quarters % 2 else (w, h)
    left, top = x + (w - across) // 2, y + (h - down) // 2
    upright = photo[top : top + down, left : left + across]
    chip = crop(photo, (x, y, w, h), quarters * math.pi / 2)
    np.testing.assert_array_equal(chip, np.rot90(upright, quarters))


@pytest.mark.parametrize("theta", [0.3, -0.4, 1.7, 3.0, -2.5])
def test_turned_crop_is_what_miewid_cuts(theta):
    photo = cv2.GaussianBlur(noise(90, 120), (0, 0), 2)
    x, y, w, h = 40, 25, 31, 21
    centre = (x + w // 2, y + h // 2)  # whole: MiewID rounds it, and the sides are odd
    matrix = cv2.getRotationMatrix2D(centre, np.rad2deg(theta), 1)
    turned = cv2.warpAffine(photo, matrix, (120, 90), borderValue=(255, 255, 255))
    expected = turned[y : y + h, x : x + w].astype(int)
    assert np.abs(crop(photo, (x, y, w, h), theta) - expected).max() <= 3


def test_outside_the_photo_is_white():
    black = np.zeros((20, 20, 3), np.uint8)
    corner = crop(black, (-10.0, -10.0, 20.0, 20.0), 1e-9)
    assert (corner[:10] == 255).all()
    assert (corner[:, :10] == 255).all()
    assert (corner[10:, 10:] == 0).all()
    assert (crop(black, (50.0, 50.0, 4.0, 6.0), 0.5) == 255).all()
    assert (crop(black, (50.0, 50.0, 4.0, 6.0)) == 255).all()


def triangle(size, length):
    """Weights (size, length) of a side's antialiased bilinear resizing."""
    factor = length / size
    weights = np.zeros((size, length))
    for i in range(size):
        for j in range(length):
            away = abs((j + 0.5) - (i + 0.5) * factor) / max(factor, 1)
            weights[i, j] = max(0, 1 - away)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width", "size"), [(40, 25, 8), (7, 31, 16), (9, 5, 12)])
def test_resize_is_the_antialiased_triangle_filter_without_aspect(height, width, size):
    image = noise(height, width)
    rows, columns = triangle(size, height), triangle(size, width)
    expected = np.einsum("ih,hwc,jw->ijc", rows, image.astype(float), columns)
    assert np.abs(resize(image, size) - expected).max() <= 1.5
    np.testing.assert_array_equal(resize(noise(size, size), size), noise(size, size))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", SIDES)
def test_every_exif_orientation_comes_out_upright(tmp_path, orientation, suffix):
    stored = np.kron(noise(4, 6), np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif, quality=95, subsampling=0)
    first_row, first_column = SIDES[orientation]
    sideways = first_row in ("left", "right")
    expected = np.empty((96, 64, 3) if sideways else (64, 96, 3))
    for row in range(64):
        for column in range(96):
            across = row if first_row in ("top", "left") else 63 - row
            along = column if first_column in ("left", "top") else 95 - column
            place = (along, across) if sideways else (across, along)
            expected[place] = stored[row, column]
    found = read_photo(tmp_path / f"a.{suffix}")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (0 if suffix != "jpg" else 30)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_photo_as_it_is(tmp_path):
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12"
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), noise(8, 8))


def sixteen(values):
    return np.round(values / 257)


GRAY = np.array([[0, 1, 2, 100], [200, 254, 255, 7]], np.uint8)
DEEP = (GRAY.astype(np.uint16) * 257) ^ np.uint16(1)
ALPHA = np.array([[0, 255, 128, 255], [64, 255, 0, 200]], np.uint8)


def over_white(colours, alpha):
    share = alpha.astype(float) / 255
    return np.round(colours * share + 255 * (1 - share))


PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
PLACES = np.array([[0, 1], [2, 1]], np.uint8)


def palette_image(transparency):
    image = Image.fromarray(PLACES)
    image.putpalette(PALETTE.ravel().tolist())
    image.info["transparency"] = transparency
    return image


CMYK = np.array([[[0, 0, 0, 0], [255, 0, 0, 0]], [[0, 0, 0, 255], [10, 20, 30, 40]]], np.uint8)
LA = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)])
FILES = {
    "gray png": (Image.fromarray(GRAY), "png", GRAY),
    "one bit": (Image.fromarray(GRAY > 99), "png", 255 * (GRAY > 99)),
    "gray and alpha": (LA, "png", over_white(GRAY, ALPHA)),
    "16 bits": (Image.fromarray(DEEP), "png", sixteen(DEEP)),
    "16 bits, little endian": (Image.fromarray(DEEP), "tif", sixteen(DEEP)),
    "16 bits, big endian": (
        Image.frombytes("I;16B", (4, 2), DEEP.astype(">u2").tobytes()),
        "tif",
        sixteen(DEEP),
    ),
    "16 in 32 bits": (Image.fromarray(DEEP.astype(np.int32)), "tif", sixteen(DEEP)),
    "8 in 32 bits": (Image.fromarray(GRAY.astype(np.int32)), "tif", GRAY),
    "32 bits": (Image.fromarray(DEEP.astype(np.int32) * 32768), "tif", sixteen(DEEP)),
    "float of 0 to 1": (Image.fromarray(GRAY.astype(np.float32) / 255), "tif", GRAY),
    "float of 0 to 255": (Image.fromarray(GRAY.astype(np.float32)), "tif", GRAY),
    "float of 16 bits": (Image.fromarray(DEEP.astype(np.float32)), "tif", sixteen(DEEP)),
    "cmyk": (
        Image.frombytes("CMYK", (2, 2), CMYK.tobytes()),
        "tif",
        (255.0 - CMYK[..., :3]) * (255.0 - CMYK[..., 3:]) / 255,
    ),
    "cmyk jpeg": (
        Image.new("CMYK", (16, 16), (55, 225, 165, 0)),
        "jpg",
        np.full((16, 16, 3), (200, 30, 90)),
    ),
    "palette": (
        palette_image(b"\xff\x80\x00"),
        "png",
        over_white(PALETTE, np.array([[255], [128], [0]]))[PLACES],
    ),
    "gif": (palette_image(1), "gif", over_white(PALETTE, np.array([[255], [0], [255]]))[PLACES]),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_comes_out_right(tmp_path, kind):
    image, suffix, expected = FILES[kind]
    image.save(tmp_path / f"a.{suffix}", quality=95)
    expected = np.asarray(expected, float)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    found = read_photo(tmp_path / f"a.{suffix}")
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= (4 if suffix == "jpg" else 1)


def test_transparent_colours_show_white(tmp_path):
    colours = noise(2, 4)
    Image.fromarray(np.dstack([colours, ALPHA])).save(tmp_path / "a.png")
    expected = over_white(colours, ALPHA[..., None])
    assert np.abs(read_photo(tmp_path / "a.png") - expected).max() <= 1
    Image.fromarray(colours).save(tmp_path / "b.png", transparency=tuple(map(int, colours[0, 1])))
    keyed = colours.copy()
    keyed[0, 1] = 255
    np.testing.assert_array_equal(read_photo(tmp_path / "b.png"), keyed)


@pytest.mark.parametrize(("at_least", "fraction"), [(1.0, 1), (0.6, 1), (0.5, 2), (0.3, 2)])
@pytest.mark.parametrize(("width", "height"), [(1001, 603), (333, 1200), (1, 7), (3, 2)])
def test_jpegs_are_reduced_no_further_than_asked(tmp_path, at_least, fraction, width, height):
    Image.new("RGB", (width, height), (9, 99, 199)).save(tmp_path / "a.jpg")
    found, scale = read_reduced(tmp_path / "a.jpg", at_least)
    assert found.shape == (math.ceil(height * scale), math.ceil(width * scale), 3)
    assert scale >= at_least
    if min(width, height) > 8:
        assert scale == 1 / fraction
        assert read_reduced(tmp_path / "a.jpg", 0.01)[1] == 1 / 8


def smooth(height, width):
    """A photo without detail finer than some 40 pixels."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + y / 29), np.sin(x / 31 - y / 19), np.cos(x / 23 + y / 37)]
    return np.round(127 + 120 * np.dstack(waves)).astype(np.uint8)


def photos(*rows):
    return pd.DataFrame(rows, columns=["path", "x", "y", "w", "h", "theta"]).astype({"path": str})


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("height", "width"), [(803, 1003), (800, 1004)])
def test_a_reduced_jpeg_gives_the_chip_of_the_full_one(tmp_path, orientation, height, width):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = smooth(height, width)
    Image.fromarray(stored).save(tmp_path / "a.jpg", quality=95, exif=exif)
    boxes = [(520.0, 300.0, 276.0, 284.0), (96.0, 208.0, 300.0, 404.0), (0.0, 0.0, 800.0, 800.0)]
    rows = [(tmp_path / "a.jpg", *box, theta) for box in boxes for theta in (0.0, 0.7)]
    store = ChipStore(tmp_path / "small", 32)
    reduced = [store.read(key) for key in store.build(photos(*rows))]
    odd = orientation != 1 and height % 4
    assert read_reduced(tmp_path / "a.jpg", 64 / 276)[1] == (1 if odd else 1 / 4)
    upright = np.rot90(stored, {1: 0, 3: 2, 6: 3, 8: 1}[orientation])
    for (_, *box, theta), chip in zip(rows, reduced, strict=True):
        full = resize(crop(upright, tuple(box), theta), 32)
        assert np.abs(chip - full.astype(float)).max() <= 12
        assert np.abs(chip - full.astype(float)).mean() <= 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200), st.integers(70, 300))
def test_a_reduced_photo_has_no_white_edge(tmp_path_factory, start, length):
    folder = tmp_path_factory.mktemp("black")
    width = start + length
    Image.new("RGB", (width, width)).save(folder / "a.jpg")
    store = ChipStore(folder / "chips", 16)
    table = photos((folder / "a.jpg", start, start, length, length, 0.0))
    assert store.read(store.build(table).iloc[0]).max() < 10


def test_chips_are_cut_and_resized_in_any_order(tmp_path):
    for number in range(3):
        Image.fromarray(noise(30, 40, number)).save(tmp_path / f"{number}.png")
    table = photos(
        *[
            (tmp_path / f"{number}.png", x, 2.0, 11.0, 13.0, theta)
            for theta in (0.0, 0.5)
            for number in range(3)
            for x in (1.0, 9.0)
        ]
    ).set_axis(range(100, 112))
    store = ChipStore(tmp_path / "chips", 8)
    keys = store.build(table)
    assert keys.index.tolist() == table.index.tolist()
    assert keys.nunique() == len(table)
    for key, (path, *box, theta) in zip(keys, table.itertuples(index=False), strict=True):
        photo = np.asarray(Image.open(path))
        np.testing.assert_array_equal(store.read(key), resize(crop(photo, tuple(box), theta), 8))
    again = store.build(table.iloc[::-1])
    pd.testing.assert_series_equal(again, keys.iloc[::-1])


def test_chips_go_on_where_rows_share_labels(tmp_path):
    """Several trainings' rows in one table, of which some chips were made before."""
    for number in range(4):
        Image.fromarray(noise(30, 40, number)).save(tmp_path / f"{number}.png")
    rows = [(tmp_path / f"{number}.png", 1.0, 2.0, 11.0, 13.0, 0.0) for number in range(4)]
    store = ChipStore(tmp_path / "chips", 8)
    store.build(photos(*rows[:1]))
    keys = store.build(photos(*rows).set_axis([0, 1, 0, 1]))
    assert keys.index.tolist() == [0, 1, 0, 1]
    assert all(map(store.has, keys))


def test_keys_follow_the_content_the_box_and_the_size(tmp_path):
    Image.fromarray(noise(20, 20)).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    store = ChipStore(tmp_path / "chips", 8)
    box = (1.0, 2.0, 9.0, 9.0, 0.0)
    one, copy = store.build(photos((tmp_path / "a.png", *box), (tmp_path / "b.png", *box)))
    assert one == copy
    others = [(*box[:i], box[i] + 1, *box[i + 1 :]) for i in range(5)]
    keys = store.build(photos(*[(tmp_path / "a.png", *other) for other in others]))
    assert len({one, *keys}) == 6
    assert ChipStore(tmp_path / "chips", 9).build(photos((tmp_path / "a.png", *box)))[0] != one
    Image.fromarray(noise(20, 21, 1)).save(tmp_path / "a.png")
    assert store.build(photos((tmp_path / "a.png", *box)))[0] != one


@pytest.mark.parametrize(
    ("suffix", "depth", "anew"),
    [("png", 16, True), ("tif", 16, True), ("png", 8, False), ("jpg", 8, False), ("bmp", 8, False)],
)
def test_chips_of_16_bits_from_before_their_range_was_found_are_made_anew(
    tmp_path, monkeypatch, suffix, depth, anew
):
    pixels = noise(20, 30)
    pixels = pixels if depth == 8 else pixels.astype(np.uint16) * 16  # 12 bits, of which 8 are used
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), pixels)
    store = ChipStore(tmp_path / "chips", 16)
    table = photos((path, 0, 0, 30, 20, 0))
    (key,) = store.build(table)
    assert depth == 8 or store.read(key).mean() > 100
    monkeypatch.setattr(chips, "DEEP", chips.VERSION)
    assert (key != store.keys(table)[0]) == anew


def test_a_store_of_the_plugins_way_resizes_as_opencv_does_and_keeps_the_others(tmp_path):
    Image.fromarray(noise(400, 300)).save(tmp_path / "a.jpg", quality=95)
    table = photos((tmp_path / "a.jpg", 10.0, 20.0, 250.0, 330.0, 0.2))
    card, plugin = (ChipStore(tmp_path / "chips", 32, *way) for way in ([], ["plugin"]))
    (one,), (other,) = card.build(table), plugin.build(table)
    assert one != other
    assert card.path(one).parent.parent == tmp_path / "chips" / "32"
    assert plugin.path(other).parent.parent == tmp_path / "chips" / "32-plugin"
    assert not card.has(other)
    assert not plugin.has(one)
    whole = crop(read_photo(tmp_path / "a.jpg"), (10, 20, 250, 330), 0.2)
    right = cv2.resize(whole, (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(plugin.read(other), right)
    assert np.abs(card.read(one) - right.astype(float)).mean() > 10


def test_all_photos_that_cannot_be_read_are_named_and_the_others_made(tmp_path):
    Image.fromarray(noise(20, 20)).save(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("no image")
    cut = io.BytesIO()
    Image.fromarray(noise(90, 90)).save(cut, "jpeg")
    (tmp_path / "cut.jpg").write_bytes(cut.getvalue()[:900])
    names = ["text.jpg", "good.png", "cut.jpg"]
    table = photos(*[(tmp_path / name, 1.0, 1.0, 9.0, 9.0, 0.0) for name in names])
    store = ChipStore(tmp_path / "chips", 8)
    with pytest.raises(ChipError, match=r"(?s)2 photos can't be read.*text\.jpg.*replace") as told:
        store.build(table)
    assert str(tmp_path / "cut.jpg") in str(told.value)
    assert "good.png" not in str(told.value)
    assert len(list((tmp_path / "chips" / "8").rglob("*.safetensors"))) == 1


def test_a_photo_that_is_gone_is_named(tmp_path):
    store = ChipStore(tmp_path / "chips", 8)
    with pytest.raises(ChipError, match=r"gone\.png: there is no such file"):
        store.build(photos((tmp_path / "gone.png", 1.0, 1.0, 9.0, 9.0, 0.0)))


@pytest.mark.parametrize("theta", [0.0, 0.2, math.pi])
def test_a_photo_wider_than_opencv_takes_is_cut(tmp_path, theta):
    photo = np.tile(noise(40, 500), (1, 70, 1))  # 35,000 pixels wide
    Image.fromarray(photo).save(tmp_path / "wide.png", compress_level=1)
    store = ChipStore(tmp_path / "chips", 16)
    table = photos((tmp_path / "wide.png", 34_000.0, 10.0, 16.0, 16.0, theta))
    chip = store.read(store.build(table).iloc[0])
    near = crop(photo[:, 33_500:34_500], (500.0, 10.0, 16.0, 16.0), theta)
    np.testing.assert_array_equal(chip, near)


def test_a_turned_box_wider_than_opencv_takes_is_refused_by_name(tmp_path):
    Image.new("RGB", (35_000, 8)).save(tmp_path / "wide.png")
    store = ChipStore(tmp_path / "chips", 4)
    with pytest.raises(ChipError, match=r"wide\.png: a turned box of 34000 x 8 pixels"):
        store.build(photos((tmp_path / "wide.png", 0.0, 0.0, 34_000.0, 8.0, 0.1)))
    whole = photos((tmp_path / "wide.png", 0.0, 0.0, 34_000.0, 8.0, 0.0))
    assert store.read(store.build(whole).iloc[0]).max() == 0
