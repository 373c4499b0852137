"""`pairloss audit merge RUN_OR_SUMMARY... --output=summary.json`: one summary of many shards or days."""

from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from pipeline.audit.runs.summaries import merge_summaries, read_summary, write_summary
from pipeline.errors import UsageError
from pipeline.flags import Parser, path
from transforms.storage.run_files import RunFiles


def main(argv: Sequence[str]) -> int:
    """Merge the summaries and write the result; return the exit code."""
    parser = Parser(
        "pairloss audit merge",
        "Merge summaries. The result equals, to the last digit, the summary of one run of all pairs.",
    )
    parser.add_argument("parts", metavar="RUN_OR_SUMMARY", nargs="+", type=path, help="run directories, summary files")
    parser.add_argument(
        "--output", required=True, type=path, metavar="FILE", help="a .json file; an old one is replaced"
    )
    given = parser.parse_args(argv)
    if repeated := sorted({part for part in given.parts if given.parts.count(part) > 1}):
        raise UsageError(f"{', '.join(repeated)} is given twice, so its pairs would count twice; name it once")
    _check_output(given.output)
    merged = merge_summaries([read_summary(part) for part in given.parts], given.output)
    write_summary(merged)
    print(f"{given.output}: {merged.summary.scored} scored pairs, merged from {len(given.parts)}")
    return 0


def _check_output(output: str) -> None:
    if not output.endswith(".json"):
        raise UsageError(f"--output={output} must end in .json")
    if FileSystems.exists(RunFiles(FileSystems.split(output)[0] or ".").config):
        raise UsageError(f"--output={output} lies in a run's directory; choose another place")
