"""The fields of a file that hold images, ids and kept values, and the checks that every format shares."""

from collections import Counter

import pyarrow as pa

from transforms.schema import Fields, encoded_schema, metrics_schema

RESERVED = frozenset((*encoded_schema().names, *metrics_schema(()).names))


def is_bytes(dtype: pa.DataType) -> bool:
    """Tell whether values of this Arrow type are byte strings of any length."""
    return pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype)


def is_text(dtype: pa.DataType) -> bool:
    """Tell whether values of this Arrow type are character strings."""
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)


def is_image(dtype: pa.DataType) -> bool:
    """Tell whether a field can hold encoded images or their paths: bytes, text, or Hugging Face's struct of both."""
    if pa.types.is_dictionary(dtype):
        return is_image(dtype.value_type)
    if not pa.types.is_struct(dtype):
        return is_bytes(dtype) or is_text(dtype)
    parts = {part.name: part.type for part in dtype}
    return is_bytes(parts.get("bytes", pa.null())) or is_text(parts.get("path", pa.null()))


def kept_type(dtype: pa.DataType) -> pa.DataType | None:
    """The type of a kept field in the metrics, however it is encoded; None if it is not a scalar that can be kept."""
    if pa.types.is_dictionary(dtype):
        return kept_type(dtype.value_type)
    if is_text(dtype):
        return pa.string()
    plain = (
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_timestamp,
        pa.types.is_date,
    )
    return dtype if any(check(dtype) for check in plain) else None


def is_id(dtype: pa.DataType) -> bool:
    """Tell whether a field can name pairs: any scalar that can be kept, or bytes."""
    return is_bytes(dtype) or kept_type(dtype) is not None


def id_field(schema: pa.Schema, fields: Fields) -> str | None:
    """The field that names the pairs; None if they are named after the file and the record number."""
    if fields.id is not None:
        return fields.id
    return "id" if schema.names.count("id") == 1 and is_id(schema.field("id").type) else None


def check_schema(schema: pa.Schema, fields: Fields) -> tuple[pa.Field, ...]:
    """Check that a file holds the fields asked for, in usable types.

    Returns:
        The kept fields as they are in the metrics, in the order asked for.

    Raises:
        ValueError: one line with everything that is wrong and the fields found.
    """
    counts = Counter(schema.names)
    problems = [f"--keep_fields={name}: the name is taken" for name in fields.keep if name in RESERVED]
    problems += [f"--keep_fields={name}: given twice" for name, times in Counter(fields.keep).items() if times > 1]
    wanted = [("generated_field", fields.generated), ("target_field", fields.target)]
    wanted += [("id_field", fields.id)] if fields.id is not None else []
    wanted += [("keep_fields", name) for name in fields.keep]
    for flag, name in wanted:
        if counts[name] == 0:
            problems.append(f"no field {name!r} (--{flag})")
        elif counts[name] > 1:
            problems.append(f"{counts[name]} fields are called {name!r} (--{flag})")
        elif not _USABLE[flag](schema.field(name).type):
            problems.append(f"field {name!r} (--{flag}) is {schema.field(name).type}, but {_EXPECTED[flag]} is needed")
    if problems:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
        raise ValueError(f"{'; '.join(problems)}. Fields found: {found}")
    return tuple(pa.field(name, kept_type(schema.field(name).type)) for name in fields.keep)


def _is_kept(dtype: pa.DataType) -> bool:
    return kept_type(dtype) is not None


_USABLE = {"generated_field": is_image, "target_field": is_image, "id_field": is_id, "keep_fields": _is_kept}
_EXPECTED = {
    "generated_field": "binary, struct<bytes: binary, ...> or a path",
    "target_field": "binary, struct<bytes: binary, ...> or a path",
    "id_field": "a string, an integer or binary",
    "keep_fields": "a string, bool, number, date or timestamp",
}
