"""Write into docs/ the tables that the program knows itself: `python -m benchmarks.docs_tables`, or `make docs`.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`, where NAME is a key of `TABLES`.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib import resources
from pathlib import Path

from pipeline.config import parse
from pipeline.flags import PRESETS
from transforms.descent.settings import STOP_REASONS
from transforms.images.decode import NOTES, REASONS
from transforms.losses.catalog import describe_losses
from transforms.reading.read_chunks import READ_REASONS
from transforms.scoring.score import SCORE_REASONS

DOCS = Path(__file__).resolve().parents[1] / "docs"

_BLOCK = re.compile(r"(?<=<!-- table: )(\w+)( -->\n).*?(?=<!-- end of table -->)", re.DOTALL)


def main() -> int:
    """Rewrite the pages whose tables have changed, and print their paths."""
    for page in sorted(DOCS.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(page)
    return 0


def filled(text: str) -> str:
    """The text of a page with its tables as the program has them now.

    Raises:
        KeyError: the page asks for a table that `TABLES` does not have.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}{found[2]}{TABLES[found[1]]()}", text)


def options() -> str:
    """A table of flags for each group of `pairloss run --help`."""
    return "\n".join(
        f"### {title[0].upper()}{title[1:]}\n\n" + _table(("flag", "meaning"), rows) for title, rows in _flag_groups()
    )


def losses() -> str:
    """`pairloss run --list_losses`, as it prints it."""
    return f"```\n{describe_losses()}\n```\n"


def presets() -> str:
    """The presets, with their objectives."""
    rows = [
        (f"`{name}`", " ".join(f"`{loss}`" for loss in preset.losses), f"`{preset.objective}`" * bool(preset.objective))
        for name, preset in PRESETS.items()
    ]
    return _table(("preset", "losses", "objective"), rows)


def reasons() -> str:
    """Why a record could not be scored, by the stage that found out."""
    stages = {"list, read": READ_REASONS, "decode": REASONS, "score": SCORE_REASONS}
    rows = [(f"`{name}`", stage, meaning) for stage, names in stages.items() for name, meaning in names.items()]
    return _table(("reason", "stage", "meaning"), rows)


def notes() -> str:
    """How an image was converted."""
    return _table(("note", "meaning"), [(f"`{name}`", meaning) for name, meaning in NOTES.items()])


def stop_reasons() -> str:
    """Why the descent of a pair ended."""
    return _table(("stop_reason", "meaning"), [(f"`{name}`", meaning) for name, meaning in STOP_REASONS.items()])


def rules() -> str:
    """The kinds of rules with their keys, from the schema of a rules file."""
    schema = json.loads((resources.files("pipeline.audit.judging") / "rules.schema.json").read_text(encoding="utf-8"))
    kinds = schema["$defs"]["rule"]["properties"]["rule"]["enum"]
    rows = []
    for kind in kinds:
        definition = schema["$defs"][kind]
        needed = definition.get("required", [])
        keys = [key for key in definition["properties"] if key != "rule"]
        either = " or ".join(f"`{key}`" for entry in definition.get("anyOf", ()) for key in entry["required"])
        required = ", ".join([*(f"`{key}`" for key in keys if key in needed), *([either] if either else [])])
        optional = ", ".join(f"`{key}`" for key in keys if key not in needed and f"`{key}`" not in either)
        rows.append((f"`{kind}`", definition["description"], required, optional))
    return _table(("rule", "measures", "needs", "takes"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    table.__name__: table for table in (options, losses, presets, reasons, notes, stop_reasons, rules)
}


def _flag_groups() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The title of each group in the program's help, and its flags with their meaning."""
    for part in re.split(r"^(?=\S[^\n]*:\n)", _help(), flags=re.MULTILINE):
        title, _, body = part.partition(":\n")
        flags = re.findall(r"^  (--\w+)(?: +(\S.*?))?(?:  +|\n {8,})(\S.*)$", body, flags=re.MULTILINE)
        if flags:
            yield (
                {"options": "general"}.get(title, title),
                [(f"`{flag}`", f"{meaning}{_choices(values)}") for flag, values, meaning in flags],
            )


def _choices(values: str) -> str:
    """The values of a flag that are written `{one,other}`."""
    return f"; one of {', '.join(values[1:-1].split(','))}" if values.startswith("{") else ""


def _help() -> str:
    """`pairloss run --help`, each flag's text on one line."""
    printed = io.StringIO()
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        with redirect_stdout(printed), suppress(SystemExit):
            parse(["--help"])
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    return printed.getvalue()


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    # A bar would end the cell, even in code, and an angle bracket would begin HTML.
    escaped = [[cell.replace("|", "\\|").replace("<", "\\<") for cell in cells] for cells in lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


if __name__ == "__main__":
    sys.exit(main())
