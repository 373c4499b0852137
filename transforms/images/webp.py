"""WebP: the size in the header, which Pillow only tells after allocating the canvas."""

from transforms.images.decode_error import DecodeError


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height. Layout: RFC 9649, sections 2.5 to 2.7.

    Raises:
        DecodeError: `truncated`, if the file is shorter than its header says.
    """
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise DecodeError("truncated", f"WebP: {len(data)} bytes are fewer than the header claims.")
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
