"""The table at the end of a run: data are shown as they are."""

import io
from dataclasses import asdict

import pytest
from rich.console import Console
from support.scored import columns_named

from pipeline.console.numbers import UNDEFINED
from pipeline.console.tables import print_run
from transforms.storage.run_files import RunFiles

COUNTS = {"listed": 4, "read": 4, "scored": 4, "failed": 0, "unread": 0, "files_failed": 0}


def row(id: str, mae: float | None = 0.25, psnr: float | None = None, notes=()) -> dict[str, object]:
    return {"id": id, "source": "in#0", "height": 4, "width": 5, "mae": mae, "psnr": psnr, "notes": list(notes)}


def summary(rows=(), **others: object) -> dict[str, object]:
    losses = {"mae": {"worst": list(rows)}, "psnr": {"worst": []}}
    whole = {
        "counts": COUNTS,
        "failures": {},
        "precision": ["float32"],
        "devices": [],
        "failed_files": {},
        "losses": losses,
    }
    whole |= {"duplicate_ids": 0} | others
    return whole | {"columns": [asdict(column) for column in columns_named(*whole["losses"])]}


def printed(summary: dict[str, object], output: str = "runs/today", width: int = 200, **console: object) -> str:
    stream = io.StringIO()
    print_run(summary, RunFiles(output), Console(file=stream, width=width, **console))
    return stream.getvalue()


def cells(text: str, id: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if id in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


@pytest.mark.parametrize(
    ("id", "shown"),
    [
        ("plain", "plain"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("[/]", "[/]"),
        ("a[0]:smile:", "a[0]:smile:"),
        ("\\[b]", "\\[b]"),
        ("ünï-日本", "ünï-日本"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("bell\x07\x9b", "bell\\x07\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_ids_are_shown_literally(id, shown, terminal):
    text = printed(summary([row(id)]), force_terminal=terminal, color_system=None, emoji=True)
    assert shown in text
    assert id == shown or id not in text


def test_optimized_losses_stand_beside_the_first():
    worst = row("a") | {"mae_optimized": 0.125, "psnr_optimized": None}
    text = printed(summary([worst], losses={"mae": {"worst": [worst]}, "psnr": {"worst": []}, "mae_optimized": {}}))
    assert cells(text, "a ")[1] == "0.25 > 0.125"
    assert "mae_optimized" not in text


class TestNarrowTerminal:
    ROW = row("the-beginning-" + "x" * 300 + "-the-end", 0.123456, 31.98765)
    LOSSES = {"mae": {"worst": [ROW]}, "psnr": {"worst": []}}

    def test_long_ids_are_shortened_in_the_middle(self):
        (shown,) = (line for line in self.lines(80) if "the-beginning" in line)
        assert "x…x" in shown
        assert "-the-end │ 0.1235 │ 31.99 │" in shown

    def test_columns_are_left_out_and_counted(self):
        columns = ["mae", "psnr", *("lpips_vgg", "ssim", "sobel_l1", "objective")]
        worst = row("a", 0.123456, 31.98765) | dict.fromkeys(columns[2:], 0.25)
        losses = {name: {"worst": [worst]} for name in columns}
        lines = printed(summary(losses=losses), width=40).splitlines()
        assert [cell.strip() for cell in lines[2].strip("┃").split("┃")] == ["id", "mae", "psnr", "lpips_vgg"]
        assert "+3 columns in metrics" in lines

    @pytest.mark.parametrize("width", [20, 40, 60, 80])
    def test_numbers_are_never_cut(self, width):
        assert "0.1235" in "\n".join(self.lines(width))

    def lines(self, width: int) -> list[str]:
        return printed(summary(losses=self.LOSSES), width=width).splitlines()


def test_numbers():
    rows = [row("a", 0.123456, 31.98765), row("b", 1e-9, None), row("c", 123456.0, 0.0)]
    text = printed(summary(rows))
    assert "worst pairs by mae" in text
    assert cells(text, "a ") == ["a", "0.1235", "31.99"]
    assert cells(text, "b ") == ["b", "1e-09", UNDEFINED]
    assert cells(text, "c ") == ["c", "1.235e+05", "0"]


def test_notes_where_there_are_any():
    text = printed(summary([row("a"), row("b", notes=["target:gray", "too_small:psnr"])]))
    assert cells(text, "b ") == ["b", "0.25", UNDEFINED, "target:gray, too_small:psnr"]
    assert "notes" not in printed(summary([row("a")]))


def test_failures():
    counts = COUNTS | {"read": 9, "failed": 5, "unread": 256, "files_failed": 1}
    text = printed(
        summary([row("a")], counts=counts, failures={"corrupt": 5}, failed_files={"in/[x].parquet": "unreadable_file"})
    )
    assert cells(text, "corrupt") == ["corrupt", "5"]
    assert cells(text, "in/[x].parquet") == ["in/[x].parquet", "unreadable_file"]
    assert "9 pairs read, 4 scored, 5 failed, 256 not read\n" in text
    assert "failures: runs/today/failures/*.jsonl\n" in text


def test_nothing_scored():
    counts = COUNTS | {"scored": 0, "failed": 4}
    text = printed(summary(counts=counts, failures={"corrupt": 4}))
    assert "worst" not in text
    assert "4 pairs read, 0 scored, 4 failed\n" in text


def test_nothing_read():
    text = printed(summary(counts=dict.fromkeys(COUNTS, 0)))
    assert "0 pairs read, 0 scored, 0 failed\n" in text
    assert "failures" not in text


@pytest.mark.parametrize("output", ["runs/[red]today", "gs://bucket/run", "runs/with space/" + "long" * 50])
def test_where_the_files_are(output):
    """One line each, to be copied."""
    lines = printed(summary([row("a")]), output, width=60).splitlines()
    assert f"metrics:  {output}/metrics/*.parquet" in lines
    assert f"summary:  {output}/summary.json" in lines


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_where_the_text_is(format):
    stream = io.StringIO()
    print_run(summary([row("a")]), RunFiles("runs/today"), Console(file=stream, width=200), format)
    assert f"\n{format + ':':9} runs/today/metrics_{format}/*.{format}\n" in stream.getvalue()
