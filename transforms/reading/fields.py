"""The fields of a file that hold images, ids and kept values, and the checks that every format shares."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from transforms.schema import Fields, encoded_schema, metrics_schema

RESERVED = frozenset((*encoded_schema().names, *metrics_schema(()).names))


# The note `not_kept:FIELD` of a pair.
NOT_KEPT = "not_kept"


def is_bytes(dtype: pa.DataType) -> bool:
    """Tell whether values of this Arrow type are byte strings."""
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(dtype) for check in kinds)


def is_text(dtype: pa.DataType) -> bool:
    """Tell whether values of this Arrow type are character strings."""
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)


def is_list(dtype: pa.DataType) -> bool:
    """Tell whether values of this Arrow type are lists."""
    return pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)


def is_array(dtype: pa.DataType) -> bool:
    """Tell whether values of this Arrow type are arrays of numbers: lists of numbers, or of such lists."""
    if isinstance(dtype, pa.BaseExtensionType):
        return is_array(dtype.storage_type)
    if not is_list(dtype):
        return False
    item = dtype.value_type
    return pa.types.is_integer(item) or pa.types.is_floating(item) or is_array(item)


def is_image(dtype: pa.DataType) -> bool:
    """Tell whether a field can hold images or their paths: bytes, text, Hugging Face's struct, lists, arrays."""
    if pa.types.is_dictionary(dtype):
        return is_image(dtype.value_type)
    # A shard may hold nothing but nulls, each of which is a failure.
    if is_array(dtype) or pa.types.is_null(dtype):
        return True
    if is_list(dtype):
        return is_image(dtype.value_type)
    if not pa.types.is_struct(dtype):
        return is_bytes(dtype) or is_text(dtype)
    parts = {part.name: part.type for part in dtype}
    image = parts.get("bytes", pa.null())
    return is_bytes(image) or is_text(image) or is_text(parts.get("path", pa.null()))


def kept_type(dtype: pa.DataType) -> pa.DataType | None:
    """The type of a kept field in the metrics, however it is encoded; None if it is not a scalar that can be kept.

    Decimals, times of day and UUIDs are kept as text, for JSON and CSV have no better type for them.
    """
    if pa.types.is_dictionary(dtype):
        return kept_type(dtype.value_type)
    if is_text(dtype) or isinstance(dtype, pa.UuidType) or pa.types.is_decimal(dtype) or pa.types.is_time(dtype):
        return pa.string()
    if isinstance(dtype, pa.BaseExtensionType):
        return kept_type(dtype.storage_type)
    plain = (
        pa.types.is_null,
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_timestamp,
        pa.types.is_date,
    )
    return dtype if any(check(dtype) for check in plain) else None


def is_id(dtype: pa.DataType) -> bool:
    """Tell whether a field can name pairs: any scalar that a database has."""
    if isinstance(dtype, pa.BaseExtensionType):
        return is_id(dtype.storage_type)
    return is_bytes(dtype) or pa.types.is_temporal(dtype) or kept_type(dtype) is not None


def id_field(schema: pa.Schema, fields: Fields) -> str | None:
    """The field that names the pairs; None if they are named after the file and the record number."""
    if fields.id is not None:
        return fields.id
    return "id" if schema.names.count("id") == 1 and is_id(schema.field("id").type) else None


def asked_for(fields: Fields) -> tuple[str, ...]:
    """The names of all fields, without repetition."""
    id = () if fields.id is None else (fields.id,)
    return tuple(dict.fromkeys((*fields.images, *id, *fields.keep)))


def with_nested(schema: pa.Schema, fields: Fields) -> pa.Schema:
    """The schema, and in it as fields of their own the nested ones that are asked for, such as `pair.generated`."""
    for name in asked_for(fields):
        if name not in schema.names and (found := nested_type(schema, name)) is not None:
            schema = schema.append(pa.field(name, found))
    return schema


def nested_type(schema: pa.Schema, name: str) -> pa.DataType | None:
    """The type of a field within structs; None if there is none."""
    first, *parts = name.split(".")
    if not parts or schema.names.count(first) != 1:
        return None
    dtype = schema.field(first).type
    for part in parts:
        if not pa.types.is_struct(dtype) or dtype.get_field_index(part) < 0:
            return None
        dtype = dtype.field(part).type
    return dtype


def nested_value(values: Mapping[str, Any], name: str) -> tuple[Any, bool]:
    """The value of a field, also within objects, and False if it is missing."""
    if name in values:
        return values[name], True
    first, *parts = name.split(".")
    value: Any = values.get(first) if parts else None
    for part in parts:
        if not isinstance(value, Mapping) or part not in value:
            return None, False
        value = value[part]
    return value, bool(parts)


def partitions(path: str) -> dict[str, str | None]:
    """The values of the Hive partitions that a file lies in: `day=1/part-0.parquet` is of day 1."""
    found = (segment.partition("=") for segment in path.split("/")[:-1])
    values = {name: unquote(value) for name, is_partition, value in found if is_partition and name}
    return {name: None if value == "__HIVE_DEFAULT_PARTITION__" else value for name, value in values.items()}


def check_schema(schema: pa.Schema, fields: Fields, strict: bool = False) -> tuple[pa.Field, ...]:
    """Check that a file holds the fields asked for, in usable types.

    Args:
        schema: of the file.
        fields: the fields asked for.
        strict: whether it must hold the kept fields as well. Their lack costs no pair: they become null.

    Returns:
        The kept fields that it holds, as they are in the metrics, in the order asked for.

    Raises:
        ValueError: one line with everything that is wrong and the fields found.
    """
    schema = with_nested(schema, fields)
    counts = Counter(schema.names)
    problems = [f"--keep_fields={name}: the name is taken" for name in fields.keep if name in RESERVED]
    problems += [f"--keep_fields={name}: given twice" for name, times in Counter(fields.keep).items() if times > 1]
    wanted = [*(("generated_field", name) for name in fields.generated), ("target_field", fields.target)]
    wanted += [("mask_field", fields.mask)] if fields.mask else []
    wanted += [("id_field", fields.id)] if fields.id is not None else []
    wanted += [("keep_fields", name) for name in fields.keep if strict]
    for flag, name in wanted:
        if counts[name] == 0:
            problems.append(f"no field {name!r} (--{flag})")
        elif counts[name] > 1:
            problems.append(f"{counts[name]} fields are called {name!r} (--{flag})")
        elif not _USABLE[flag](schema.field(name).type) or _lacks_shape(schema.field(name).type, flag, fields):
            problems.append(f"field {name!r} (--{flag}) is {schema.field(name).type}, but {_EXPECTED[flag]} is needed")
    if problems:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
        raise ValueError(f"{'; '.join(problems)}. Fields found: {found}")
    kept = {name: kept_type(schema.field(name).type) for name in fields.keep if counts[name] == 1}
    return tuple(pa.field(name, dtype) for name, dtype in kept.items() if dtype is not None)


def unite_kept(names: Sequence[str], schemas: Iterable[Sequence[pa.Field]]) -> tuple[pa.Field, ...]:
    """The kept fields in types that hold the values of every file: wider ones, or text where types have none in common.

    Args:
        names: of the kept fields.
        schemas: per file, the kept fields that it holds.
    """
    types: dict[str, list[pa.DataType]] = {name: [] for name in names}
    for schema in schemas:
        for field in schema:
            types[field.name].append(field.type)
    return tuple(pa.field(name, common_type(found)) for name, found in types.items())


def common_type(types: Iterable[pa.DataType]) -> pa.DataType:
    """The narrowest type that holds values of all these types; text if there is none."""
    distinct = {str(dtype): dtype for dtype in types if not pa.types.is_null(dtype)}.values()
    schemas = [pa.schema([pa.field("kept", dtype)]) for dtype in distinct]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type if schemas else pa.string()
    except pa.ArrowException:
        return pa.string()


def fit_kept(column: pa.ChunkedArray, dtype: pa.DataType) -> tuple[pa.ChunkedArray | pa.Array, list[int]]:
    """The values of a kept field in the type that it has in the metrics.

    Returns:
        the values, null where one does not fit, and the positions of these.
    """
    if pa.types.is_string(dtype) and kept_type(column.type) is not None:
        return pa.array(texts(column), pa.string()), []
    try:
        return column.cast(dtype), []
    except pa.ArrowException:
        fitting = [_fitting(value, dtype) for value in column]
        lost = [index for index, value in enumerate(column) if value.is_valid and fitting[index] is None]
        return pa.array(fitting, dtype), lost


def fitted(value: Any, dtype: pa.DataType) -> tuple[Any, bool]:
    """A value in the type of a kept field, and False if it does not fit."""
    if isinstance(value, int) and not isinstance(value, bool) and pa.types.is_string(dtype):
        # It may have more digits than a number of Arrow.
        return str(value), True
    try:
        return pa.scalar(value).cast(dtype).as_py(), True
    except (pa.ArrowException, OverflowError):
        return None, False


def _fitting(value: pa.Scalar, dtype: pa.DataType) -> pa.Scalar | None:
    try:
        return value.cast(dtype)
    except pa.ArrowException:
        return None


def note_lost(pairs: pa.Table, lost: Mapping[str, Iterable[int]]) -> pa.Table:
    """Add the column `notes` to encoded pairs if values of kept fields were lost.

    Args:
        pairs: table of `encoded_schema`.
        lost: per kept field, the rows whose value does not fit its type.
    """
    notes: list[list[str]] = [[] for _ in range(len(pairs))]
    for name, rows in lost.items():
        for row in rows:
            notes[row].append(f"{NOT_KEPT}:{name}")
    return with_notes(pairs, notes)


def with_notes(pairs: pa.Table, notes: Sequence[Sequence[str]]) -> pa.Table:
    """Add the column `notes` to encoded pairs, with the notes of each row, if there are any."""
    return pairs.append_column("notes", pa.array(notes, pa.list_(pa.string()))) if any(notes) else pairs


def texts(column: pa.ChunkedArray) -> list[str | None]:
    """A scalar column as plain text: numbers without exponents, UUIDs with hyphens, times in ISO 8601.

    Arrow does not check that text is UTF-8; bytes that are not come out escaped, and those of a fixed size in hex.
    """
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        return texts(column.cast(dtype.value_type))
    if isinstance(dtype, pa.UuidType):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if isinstance(dtype, pa.BaseExtensionType):
        return texts(pc.cast(column, dtype.storage_type))
    if pa.types.is_fixed_size_binary(dtype):
        return [None if value is None else value.hex() for value in column.to_pylist()]
    if is_bytes(dtype) or is_text(dtype):
        raw = column.cast(pa.binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "backslashreplace") for value in raw]
    if pa.types.is_timestamp(dtype):
        # With a zone Arrow would look it up, and a worker may not know it.
        zone = "Z" if dtype.tz else ""
        plain = column.cast(pa.timestamp(dtype.unit)).cast(pa.string()).to_pylist()
        return [None if value is None else value.replace(" ", "T") + zone for value in plain]
    written = column.cast(pa.string()).to_pylist()
    if pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return [_plain(value) if value is not None and math.isfinite(float(value)) else value for value in written]
    return written


def _plain(number: str) -> str:
    # 12.0 of a column that a missing value made floating is the 12 that it was. A decimal keeps its places.
    return f"{Decimal(number.removesuffix('.0')):f}"


def _lacks_shape(dtype: pa.DataType, flag: str, fields: Fields) -> bool:
    """True for flat lists of numbers that are to be arrays, but whose shape is not declared. Bytes may be a file's."""
    return flag in _IMAGES and is_array(dtype) and not fields.array_shape and _is_flat(dtype)


def _is_flat(dtype: pa.DataType) -> bool:
    storage = dtype.storage_type if isinstance(dtype, pa.BaseExtensionType) else dtype
    is_file = storage.value_type in (pa.uint8(), pa.int8()) and not pa.types.is_fixed_size_list(storage)
    return not is_list(storage.value_type) and not is_file


def _is_kept(dtype: pa.DataType) -> bool:
    return kept_type(dtype) is not None


_IMAGES = ("generated_field", "target_field", "mask_field")
_USABLE = dict.fromkeys(_IMAGES, is_image) | {"id_field": is_id, "keep_fields": _is_kept}
_IMAGE = "binary, struct<bytes: binary, ...>, a path, a list of one, or an array (a flat one with --array_shape)"
_EXPECTED = dict.fromkeys(_IMAGES, _IMAGE) | {
    "id_field": "a string, a number, a date or binary",
    "keep_fields": "a string, bool, number, date, time or UUID",
}
