"""A JPEG of which only the upper rows are decoded."""

import struct

FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of headers with the photo's size


def shortened(jpeg: bytes, rows: int) -> bytes:
    """The same JPEG, but its header says that it is `rows` pixels high, so decoders stop there.

    Nothing else is changed, and nothing decoded: a JPEG is stored from the top down (ITU-T T.81,
    B.2.2 has the header). The lowest rows may differ, since colours are smoothed across blocks.
    What has no such header where one is due comes back as it was.
    """
    place = 2  # behind the mark that a JPEG starts with
    while place + 9 <= len(jpeg):
        start, marker, length = struct.unpack_from(">BBH", jpeg, place)
        if start != 0xFF:
            break
        if marker in FRAMES:  # length, bits of a sample, rows, columns
            return jpeg[: place + 5] + struct.pack(">H", rows) + jpeg[place + 7 :]
        place += 1 if marker == 0xFF else 2 + length  # any number of 0xFF may precede a marker
    return jpeg
