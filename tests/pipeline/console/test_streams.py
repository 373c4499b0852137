"""Commands whose output cannot be printed, each in a process of its own, as users run them."""

import subprocess
import sys

import pytest

COMMAND = """
import sys
from pipeline.console.streams import guarded

def main(argv):
    for _ in range(20_000):
        print("\\u00e9", argv[0])
    print("told", file=sys.stderr)
    return 3

sys.exit(guarded(main, ["line"]))
"""


def shell(command, **environment):
    line = f"set -o pipefail; {command.format(python=sys.executable)}"
    return subprocess.run(["bash", "-c", line, COMMAND], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("redirection", ["", "| head -1", "| true", ">&-", ">&- 2>&-", "2>&-", "2>/dev/full"])
def test_the_exit_code_stays(redirection):
    done = shell(f'{{python}} -c "$0" {redirection}')
    assert done.returncode == 3
    assert done.stderr == ("" if "2>" in redirection else "told\n")


def test_a_full_disk_is_one_line_of_error():
    done = shell('{python} -c "$0" > /dev/full')
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to standard output: No space left on device; send it elsewhere\n"


def test_characters_that_the_terminal_lacks_are_escaped():
    done = shell('{python} -c "$0" | tail -1', PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (3, "\\xe9 line\n")


def test_a_closed_stream_gives_its_descriptor_to_no_file(tmp_path):
    script = "import os, sys; from pipeline.console.streams import guarded\n" + (
        "guarded(lambda argv: os.write(1, b'x') * 0 + open(argv[0], 'w').fileno() * 0, [sys.argv[1]])"
    )
    path = tmp_path / "file"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$0" {path} >&-', script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, path.read_text()) == (0, "", "")
