"""Parquet files whose footers lie: the footer of a good one, read and written again as Thrift's compact protocol."""

import io
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Field numbers of parquet.thrift.
FILE_ROWS, FILE_GROUPS = 3, 4
GROUP_COLUMNS, GROUP_ROWS = 1, 3
COLUMN_META, COLUMN_STATISTICS = 3, 16

_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


def lie(table: pa.Table, change: Callable[[list[Any]], None], **options: Any) -> bytes:
    """The table as a Parquet file of one row group, its footer changed."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    data = buffer.getvalue()
    (size,) = struct.unpack("<I", data[-8:-4])
    footer = _Reader(data[-8 - size : -8]).value(_STRUCT)
    change(footer)
    changed = _write(_STRUCT, footer)
    return data[: -8 - size] + changed + struct.pack("<I", len(changed)) + b"PAR1"


def claim_rows(rows: int) -> Callable[[list[Any]], None]:
    """A change: the file and its row group claim so many rows."""

    def change(footer: list[Any]) -> None:
        _field(footer, FILE_ROWS)[2] = rows
        _field(_field(footer, FILE_GROUPS)[2][1][0], GROUP_ROWS)[2] = rows

    return change


def claim_levels(footer: list[Any]) -> None:
    """A change: the statistics of the columns count one level too many, on which pyarrow 20 to 25 aborts."""
    for column in _field(_field(footer, FILE_GROUPS)[2][1][0], GROUP_COLUMNS)[2][1]:
        for field in _field(_field(column, COLUMN_META)[2], COLUMN_STATISTICS)[2]:
            if field[0] in (2, 3):
                field[2] = (field[2][0], field[2][1] + [0])


def _field(struct: list[Any], number: int) -> Any:
    return next(field for field in struct if field[0] == number)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def byte(self) -> int:
        return self.data.read(1)[0]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def value(self, type: int) -> Any:
        if type in _BOOLEANS:
            return type == 1
        if type == _BYTE:
            return self.byte()
        if type in _INTEGERS:
            return self.signed()
        if type == _DOUBLE:
            return self.data.read(8)
        if type == _BINARY:
            return self.data.read(self.number())
        if type in _LISTS:
            head = self.byte()
            size = head >> 4 if head >> 4 < 15 else self.number()
            of = head & 15
            return of, [self.byte() == 1 if of in _BOOLEANS else self.value(of) for _ in range(size)]
        fields, number = [], 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            fields.append([number, head & 15, self.value(head & 15)])
        return fields


def _number(value: int) -> bytes:
    written = b""
    while value > 127:
        written += bytes([value & 127 | 128])
        value >>= 7
    return written + bytes([value])


def _signed(value: int) -> bytes:
    return _number(((value << 1) ^ (value >> 63)) & (2**64 - 1))


def _write(type: int, value: Any) -> bytes:
    if type in _BOOLEANS:
        return b""
    if type == _BYTE:
        return bytes([value])
    if type in _INTEGERS:
        return _signed(value)
    if type == _DOUBLE:
        return value
    if type == _BINARY:
        return _number(len(value)) + value
    if type in _LISTS:
        of, items = value
        head = bytes([len(items) << 4 | of]) if len(items) < 15 else bytes([0xF0 | of]) + _number(len(items))
        return head + b"".join(bytes([1 if x else 2]) if of in _BOOLEANS else _write(of, x) for x in items)
    written, last = b"", 0
    for number, kind, item in value:
        kind = (1 if item else 2) if kind in _BOOLEANS else kind
        step = number - last
        written += (bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _signed(number)) + _write(
            kind, item
        )
        last = number
    return written + b"\0"
