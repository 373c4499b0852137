"""Write into docs/ the tables that the program knows itself: `python -m benchmarks.docs_tables`, or `make docs`.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`, where NAME is a key of `TABLES`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.audit.judging.rules import rules_schema
from pipeline.parse import parser
from pipeline.presets import PRESETS
from transforms.descent.settings import STOP_REASONS
from transforms.images.decode import NOTES, REASONS
from transforms.losses.catalog import describe_losses
from transforms.reading import folders
from transforms.reading.read_chunks import READ_REASONS
from transforms.scoring.score import SCORE_REASONS
from transforms.worker.sandbox import SANDBOX_REASONS

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
    groups = [(group.title or "", group._group_actions) for group in parser()._action_groups]
    return "\n".join(
        f"### {'General' if title == 'options' else title[0].upper() + title[1:]}\n\n"
        + _table(("flag", "meaning"), [_flag(action) for action in actions])
        for title, actions in groups
        if actions
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
    read = {name: meaning for name, meaning in READ_REASONS.items() if name not in folders.REASONS}
    stages = {
        "pair": folders.REASONS,
        "list, read": read,
        "decode": REASONS,
        "list, read, decode": SANDBOX_REASONS,
        "score": SCORE_REASONS,
    }
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
    rows = []
    for entry in rules_schema()["properties"]["rules"]["items"]["allOf"]:
        kind, definition = entry["if"]["properties"]["rule"]["const"], entry["then"]
        needed = definition.get("required", [])
        keys = [key for key in definition["properties"] if key != "rule"]
        either = " or ".join(f"`{key}`" for choice in definition.get("anyOf", ()) for key in choice["required"])
        required = ", ".join([*(f"`{key}`" for key in keys if key in needed), *([either] if either else [])])
        optional = ", ".join(f"`{key}`" for key in keys if key not in needed and f"`{key}`" not in either)
        rows.append((f"`{kind}`", definition["description"], required, optional))
    return _table(("rule", "measures", "needs", "takes"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    table.__name__: table for table in (options, losses, presets, reasons, notes, stop_reasons, rules)
}


def _flag(action: argparse.Action) -> tuple[str, str]:
    choices = f"; one of {', '.join(filter(None, action.choices))}" if action.choices else ""
    return f"`{action.option_strings[-1]}`", (action.help or "") % vars(action) + choices


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    # A bar would end the cell, even in code, and an angle bracket would begin HTML.
    escaped = [[cell.replace("|", "\\|").replace("<", "\\<") for cell in cells] for cells in lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


if __name__ == "__main__":
    sys.exit(main())
