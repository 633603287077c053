"""Headers of JPEGs, beside what Pillow reads of them."""

import io

import numpy as np
import pytest
from PIL import Image

from miewid_core.jpeg import shortened


def saved(**options):
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 40, 3), np.uint8)
    Image.fromarray(pixels).save(content, "jpeg", **options)
    return content.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 9}])
@pytest.mark.parametrize("rows", [1, 64, 89])
def test_the_header_alone_changes(options, rows):
    whole = saved(**options)
    part = shortened(whole, rows)
    assert len(part) == len(whole)
    assert sum(old != new for old, new in zip(whole, part, strict=True)) <= 2
    with Image.open(io.BytesIO(part)) as image:
        assert image.size == (40, rows)


def test_a_header_after_filling_is_found():
    whole = saved()
    filled = whole[:2] + b"\xff" * 5 + whole[2:]
    assert shortened(filled, 64) == filled[:7] + shortened(whole, 64)[2:]


@pytest.mark.parametrize("end", [0, 2, 10, 100])
def test_what_has_no_header_stays(end):
    assert shortened(saved()[:end], 64) == saved()[:end]
    assert shortened(saved()[:2] + b"no JPEG at all", 64) == saved()[:2] + b"no JPEG at all"
