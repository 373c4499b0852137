"""Parts of JSON Schemas, and the check of JSON by a schema: for files that somebody may have damaged or forged."""

from typing import Any

from jsonschema import Draft202012Validator

_MOST_CHARACTERS = 200

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**53}


def objects(**properties: Any) -> dict[str, Any]:
    """An object that has these properties, and perhaps others."""
    return {"type": "object", "required": list(properties), "properties": properties}


def lists(items: Any, **schema: Any) -> dict[str, Any]:
    """A list of such items."""
    return {"type": "array", "items": items, **schema}


def mappings(values: Any) -> dict[str, Any]:
    """An object with any keys and such values."""
    return {"type": "object", "additionalProperties": values}


def check(data: Any, schema: dict[str, Any]) -> None:
    """Check that data fits a schema.

    Raises:
        ValueError: it does not; the message names the first part that does not.
    """
    errors = sorted(Draft202012Validator(schema).iter_errors(data), key=lambda error: list(map(str, error.path)))
    if errors:
        place = ".".join(map(str, errors[0].absolute_path))
        raise ValueError(f"{place}{': ' if place else ''}{errors[0].message}"[:_MOST_CHARACTERS])
