"""Reads the Huffman codes of a JPEG's data, without computing pixels, to find damage.

libjpeg warns of little. Behind overwritten or lost bytes, Huffman codes soon fall into step again, often without
one code too many or too few at the end. The damage shows in runs that go beyond the end of their block, which libjpeg
ignores, and in coefficients that no picture has: the difference that the lost bytes held is missing from all of the
averages behind them. Layout: ITU-T T.81, annexes C, F and G.
"""

from functools import lru_cache

import numba
import numpy as np
from numba import types

from transforms.worker.compiled import compiled

# Outcomes of `walk`.
SOUND, RAN_OUT, BROKEN = 0, 1, 2
# Bytes behind the data that `walk` may look at.
MARGIN = 512
# Most bits of a difference of averages.
_MOST_DC_BITS = 11
# Largest coefficient of 8-bit samples: 1024, and a quarter because encoders may overshoot white and black on purpose.
_MOST = 1280
_TABLES = 8


class HuffmanTables:
    """The tables in force, numbered 0 to 3 for DC and 4 to 7 for AC; codes of up to 8 bits are looked up.

    Attributes:
        arrays: for `walk`: length << 8 | value by the next 8 bits; of each length, the largest code and what to add to
            a code for its place among the values; the values.
    """

    def __init__(self) -> None:
        self.arrays: tuple[np.ndarray, ...] = (
            np.zeros((_TABLES, 256), np.int32),
            np.full((_TABLES, 17), -1, np.int32),
            np.zeros((_TABLES, 17), np.int32),
            np.zeros((_TABLES, 256), np.uint8),
        )

    def define(self, table: int, counts: bytes, values: bytes) -> None:
        """Replaces a table: the number of codes of each length from 1 to 16, and what they stand for."""
        for array, row in zip(self.arrays, _rows(counts, values), strict=True):
            array[table] = row


@lru_cache(64)
def _rows(counts: bytes, symbols: bytes) -> tuple[np.ndarray, ...]:
    """A table's rows of `HuffmanTables.arrays`, up to a length of which there are more codes than fit."""
    lookup, largest = np.zeros(256, np.int32), np.full(17, -1, np.int32)
    offset, values = np.zeros(17, np.int32), np.zeros(256, np.uint8)
    values[: len(symbols[:256])] = list(symbols[:256])
    code = index = 0
    for length, count in enumerate(counts, 1):
        if code + count > 1 << length or index + count > min(len(symbols), 256):
            break
        offset[length] = index - code
        if count:
            largest[length] = code + count - 1
        if length <= 8:
            width = 1 << (8 - length)
            entries = [length << 8 | symbol for symbol in symbols[index : index + count]]
            lookup[code * width : (code + count) * width] = np.repeat(np.array(entries, np.int32), width)
        code = (code + count) << 1
        index += count
    return lookup, largest, offset, values


@numba.njit(nogil=True)
def _words(data):  # type: ignore[no-untyped-def]
    """The 64 bits from each byte on."""
    words = np.empty(len(data) - 7, np.uint64)
    bits = np.uint64(0)
    for n in range(len(data)):
        bits = bits << np.uint64(8) | np.uint64(data[n])
        if n >= 7:
            words[n - 7] = bits
    return words


@numba.njit(nogil=True)
def _front(words, at):  # type: ignore[no-untyped-def]
    """At least 57 bits, from a bit on."""
    return words[at >> 3] << np.uint64(at & 7)


@numba.njit(nogil=True)
def _top(front, bits):  # type: ignore[no-untyped-def]
    """The number in the first bits, of which there is one at least."""
    return np.int64(front >> np.uint64(64 - bits))


@numba.njit(nogil=True)
def _long_code(bits, largest, offset, values):  # type: ignore[no-untyped-def]
    """Length << 8 | value of the code of more than 8 bits at the front of 16; -1 for none."""
    for length in range(9, 17):
        code = bits >> (16 - length)
        if code <= largest[length]:
            return length << 8 | np.int64(values[offset[length] + code])
    return -1


_INT64 = types.Array(types.int64, 2, "C")
_INT32 = types.Array(types.int32, 2, "C")
_WALK = types.UniTuple(types.int64, 2)(
    types.Array(types.uint8, 1, "C", readonly=True), types.int64, types.int64, _INT64, _INT64, types.int64,
    types.int64, types.int64, types.boolean, types.int64, types.boolean, types.Array(types.uint64, 1, "C"),
    _INT32, _INT32, _INT32, types.Array(types.uint8, 2, "C"),
)  # fmt: skip


@compiled(_WALK, nogil=True, error_model="numpy")
def walk(  # type: ignore[no-untyped-def]
    data, start, stop, components, steps, columns, first, last, refines, low, progressive, nonzero,
    lookup, largest, offset, values,
):  # fmt: skip
    """Reads the codes of the MCUs from `start` to `stop`, which lie between two restart markers.

    It is one long function because every array costs time at a call: in five functions it takes half as long again.

    Args:
        data: the bytes without stuffing, and `MARGIN` more, uint8.
        start: number of the first MCU.
        stop: number behind the last MCU.
        components: of each, DC table, AC table, blocks across and down in an MCU, blocks in a row, and the number of
            the first block; [C, 6] int64.
        steps: of each component, the quantization table in the order of the codes, [C, 64] int64.
        columns: MCUs in a row.
        first: of the coefficients.
        last: of the coefficients.
        refines: whether the scan adds a bit to coefficients that came before.
        low: the lowest bit of the coefficients in this scan.
        progressive: whether the frame is.
        nonzero: of each block of a progressive frame, the coefficients that came, a bit each, uint64; is updated.
        lookup: as in `HuffmanTables.arrays`, like the next three.
        largest: see there.
        offset: see there.
        values: see there.

    Returns:
        `SOUND`, `RAN_OUT` or `BROKEN`; and the number of bits read.
    """
    words = _words(data)
    limit = 8 * (len(data) - MARGIN)
    at = 0
    run = 0
    averages = np.zeros(len(components), np.int64)
    # No picture has a coefficient beyond the largest; the smallest number of n bits is half of 2**n.
    most_bits = np.zeros((len(components), 64), np.int64)
    for c in range(len(components)):
        for k in range(64):
            step = max(steps[c, k], 1) << low
            while step << (most_bits[c, k] + 1) <= 2 * (_MOST + step):
                most_bits[c, k] += 1
    for mcu in range(start, stop):
        row, column = mcu // columns, mcu % columns
        for c in range(len(components)):
            dc_table, ac_table, across, down, stride, place = components[c]
            dc, ac = lookup[dc_table], lookup[ac_table]
            for block in range(across * down):
                if at > limit:
                    return RAN_OUT, at
                k = first
                if k == 0:
                    if refines:
                        at += 1
                    else:
                        front = _front(words, at)
                        found = np.int64(dc[_top(front, 8)])
                        if found == 0:
                            found = _long_code(_top(front, 16), largest[dc_table], offset[dc_table], values[dc_table])
                        bits = found & 0xFF
                        if found < 0 or bits > _MOST_DC_BITS:
                            return BROKEN, at
                        at += found >> 8
                        if bits:
                            value = _top(_front(words, at), bits)
                            averages[c] += value if value >> (bits - 1) else value - (1 << bits) + 1
                            at += bits
                        step = steps[c, 0] << low
                        if abs(averages[c]) * step > _MOST + step:
                            return BROKEN, at
                    k = 1
                if not progressive:
                    front, used = _front(words, at), 0
                    while k < 64:
                        if used > 31:  # of 57 bits, when a code and its number take up to 26
                            at += used
                            front, used = _front(words, at), 0
                        found = np.int64(ac[_top(front, 8)])
                        if found == 0:
                            found = _long_code(_top(front, 16), largest[ac_table], offset[ac_table], values[ac_table])
                            if found < 0:
                                return BROKEN, at
                        bits = found & 0xF
                        k += found >> 4 & 0xF
                        length = (found >> 8) + bits
                        front <<= np.uint64(length)
                        used += length
                        if bits == 0:
                            if found & 0xFF == 0:
                                break
                            if found & 0xFF != 0xF0:
                                return BROKEN, at
                        if k > 63 or bits > most_bits[c, k]:
                            return BROKEN, at
                        k += 1
                    at += used
                    continue
                if k > last:
                    continue
                here = place + (row * down + block // across) * stride + column * across + block % across
                came = nonzero[here]
                while k <= last and run == 0:
                    if at > limit:
                        return RAN_OUT, at
                    front = _front(words, at)
                    found = np.int64(ac[_top(front, 8)])
                    if found == 0:
                        found = _long_code(_top(front, 16), largest[ac_table], offset[ac_table], values[ac_table])
                        if found < 0:
                            return BROKEN, at
                    at += found >> 8
                    skipped, bits = found >> 4 & 0xF, found & 0xF
                    if bits == 0 and skipped < 15:
                        run = 1 << skipped
                        if skipped:
                            run += _top(_front(words, at), skipped)
                            at += skipped
                        break
                    at += bits
                    if refines:
                        if bits > 1:
                            return BROKEN, at
                        while k <= last:
                            if came >> np.uint64(k) & np.uint64(1):
                                at += 1
                            elif skipped == 0:
                                break
                            else:
                                skipped -= 1
                            k += 1
                    else:
                        k += skipped
                    if k > last or (not refines and bits > most_bits[c, k]):
                        return BROKEN, at
                    if bits:
                        came |= np.uint64(1) << np.uint64(k)
                    k += 1
                if run > 0:
                    run -= 1
                    if refines:
                        while k <= last:
                            at += np.int64(came >> np.uint64(k) & np.uint64(1))
                            k += 1
                nonzero[here] = came
    if at > limit:
        return RAN_OUT, at
    return (BROKEN if run else SOUND), at
