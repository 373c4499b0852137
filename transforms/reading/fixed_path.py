"""The part of a pattern that names an existing file or directory, and is taken literally."""

import os
import re

_MAGIC = re.compile(r"[*?\[{}]")


def fixed_part(pattern: str) -> str:
    """The beginning of a pattern that is taken as it is, whatever characters it holds.

    Locally, the whole pattern if there is such a file or directory, or else its leading directories, up to the first
    one whose name has a wildcard or a brace and that does not exist. In a store, nothing.
    """
    if "://" in pattern:
        return ""
    if os.path.exists(pattern):
        return pattern
    *directories, _ = pattern.split("/")
    fixed = ""
    for directory in directories:
        if _MAGIC.search(directory) and not os.path.isdir(fixed + directory):
            break
        fixed += f"{directory}/"
    return fixed
