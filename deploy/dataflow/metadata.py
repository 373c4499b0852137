"""Make the metadata of the Flex Template: its parameters are the program's flags. After a change of a flag, run

python -m deploy.dataflow.metadata > deploy/dataflow/metadata.json
"""

import argparse
import json
import sys
from typing import Any

from pipeline.parse import parser
from transforms.losses.networks.specs import NETWORKS

# Flags that are not parameters, each with its reason.
NOT_PARAMETERS = {
    "help": "prints and exits",
    "version": "prints and exits",
    "list_losses": "prints and exits",
    "quiet": "the launcher shows neither progress nor a table",
    "gate": "the launcher does not wait for the end of the job; `pairloss audit gate` judges the finished run",
    "baseline": "belongs to --gate",
}

_WEIGHTS = [network.flag for network in NETWORKS.values()]
# Patterns of valid values, as POSIX extended expressions. Paths are in a store, because workers open them; the program
# checks all in a list.
_STORED = "(gs|s3)://.+$"
_PATTERNS = {
    **dict.fromkeys(("input", "target", "mask", "output", "reuse", *_WEIGHTS), f"^{_STORED}"),
    "image_root": "^(gs|s3|https?)://.+$",
    # A candidate may have a name.
    "generated": f"^([A-Za-z0-9_.-]+=)?{_STORED}",
    "accelerator": "^type:[a-z0-9-]+;count:[1-9][0-9]*(;[^; ]+)*$",
    "min_ram": "^[0-9]+([.][0-9]+)?[KMGT]i?B$",
}
_WHOLE_NUMBER = "^[0-9]+$"
_WHOLE_NUMBER_TYPES = ("int", "positive")


def describe() -> dict[str, Any]:
    """The template's metadata, as JSON of Dataflow's TemplateMetadata."""
    grouped = ((group.title or "", action) for group in parser()._action_groups for action in group._group_actions)
    return {
        "name": "PairLoss",
        "description": "Perceptual, structural and image-gradient losses of every pair of a dataset of image pairs.",
        "parameters": [_parameter(action, title) for title, action in grouped if _name(action) not in NOT_PARAMETERS],
    }


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1].removeprefix("--")


def _parameter(action: argparse.Action, group: str) -> dict[str, Any]:
    name = _name(action)
    parameter = {
        "name": name,
        "label": name.replace("_", " ").capitalize(),
        "helpText": (action.help or "") % vars(action),
        "groupName": group,
        "isOptional": not action.required,
        # Google has types for paths, but they take gs:// alone.
        "paramType": "TEXT",
    }
    if action.choices and action.default is None:
        # An ENUM has a default: the console would choose the first if the user chooses none.
        parameter["regexes"] = [f"^({'|'.join(action.choices)})$"]
    elif action.choices:
        parameter["paramType"] = "ENUM"
        parameter["enumOptions"] = [{"value": choice, "label": choice} for choice in action.choices]
    elif action.nargs == "?":
        parameter["paramType"] = "BOOLEAN"
    elif name in _PATTERNS:
        parameter["regexes"] = [_PATTERNS[name]]
    elif getattr(action.type, "__name__", "") in _WHOLE_NUMBER_TYPES:
        parameter["regexes"] = [_WHOLE_NUMBER]
    if action.default not in (None, ""):
        parameter["defaultValue"] = str(action.default).lower() if action.nargs == "?" else str(action.default)
    return parameter


if __name__ == "__main__":
    json.dump(describe(), sys.stdout, indent=2)
    print()
