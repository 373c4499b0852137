"""`pairloss score out/ gt/`: a short form of `pairloss run` for two folders, which ends with the mean of every loss."""

import sys
import time
from collections.abc import Sequence

from pipeline.errors import OK, USAGE, UsageError
from pipeline.flags import Parser, path
from pipeline.run import main as run


def main(argv: Sequence[str]) -> int:
    """Score the folders and print the means; return the exit code of the run."""
    parser = Parser(
        "pairloss score",
        "Score the images of a folder against those of another. Pairs have the same path, but for the extension.",
        "After the folders, all flags of `pairloss run` are accepted, such as --losses=lpips_vgg,ssim.",
    )
    parser.add_argument("generated", help="the generated images: a directory or a pattern; they come first")
    parser.add_argument("target", help="their targets")
    parser.add_argument("--csv", action="store_true", help="also write the metrics as CSV, in metrics_csv/")
    parser.add_argument(
        "--output",
        type=path,
        default=time.strftime("runs/%Y-%m-%d_%H%M%S"),
        metavar="DIR",
        help="the run's directory (default: runs/ with date and time)",
    )
    try:
        given, flags = parser.parse_known_args(argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    sides = [f"--generated={given.generated}", f"--target={given.target}", f"--output={given.output}"]
    code = run([*sides, *["--metrics_format=csv"] * given.csv, *flags])
    if code == OK:
        _print_means(given.output)
    return code


def _print_means(output: str) -> None:
    # These import Beam, which takes seconds; wrong arguments are reported before that.
    from pipeline.console.tables import make_console, print_means
    from transforms.storage.json_files import read_json
    from transforms.storage.run_files import RunFiles

    print_means(read_json(RunFiles(output).summary), make_console())
