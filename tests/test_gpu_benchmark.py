"""The benchmark for GPUs, in miniature on a CPU, so that it works for the first who has a card."""

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_every_table_is_printed(capsys):
    miniature = ["--seconds=0.05", "--side=48", "--batches", "1", "4", "--precisions", "float32"]
    assert gpu.main(miniature) == 0
    lines = capsys.readouterr().out.splitlines()
    for words in (
        "1 device(s), the first: a CPU",
        "decoding alone: ",
        "pairs per second, --preset=default",
        "the network alone by batch",
        "--preset=default, pictures of one size and of five",
        "a descent of lpips_vgg",
        "a process of its own",
    ):
        assert sum(line.startswith(words) for line in lines) == 1, words
    *_, of_float32, of_auto = (line for line in lines if "losses" in line and line.startswith("│"))
    assert of_float32.count("4 of 4 losses") == of_auto.count("4 of 4 losses") == 2
