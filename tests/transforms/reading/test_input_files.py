"""Input files found by patterns."""

import pytest
from support import shards

from transforms.reading.input_files import match_files


class TestMatchFiles:
    @pytest.fixture
    def tree(self, tmp_path):
        for name in ("b.parquet", "a.parquet", "a.tfrecord", "deep/c.parquet", "deep/er/d.parquet"):
            shards.write(tmp_path / name, name.encode())
        (tmp_path / "empty").mkdir()
        return tmp_path

    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            (["a.parquet"], ["a.parquet"]),
            (["*.parquet"], ["a.parquet", "b.parquet"]),
            (["*.tfrecord", "a.*", "a.parquet"], ["a.parquet", "a.tfrecord"]),
            (["deep/*"], ["deep/c.parquet"]),
            (["**.parquet"], ["a.parquet", "b.parquet", "deep/c.parquet", "deep/er/d.parquet"]),
            ([], []),
        ],
    )
    def test_sorted_and_each_once(self, tree, patterns, expected):
        files = match_files([f"{tree}/{pattern}" for pattern in patterns])
        assert [file.path for file in files] == [f"{tree}/{name}" for name in expected]
        assert all(file == shards.input_file(tree / name) for file, name in zip(files, expected, strict=True))

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("missing.parquet", "matches no file"),
            ("*.png", "matches no file"),
            ("nowhere/*", "matches no file"),
            ("deep", "is a directory.*deep/\\*.parquet"),
            ("deep/", "is a directory.*deep/\\*.parquet"),
            ("empty", "is a directory"),
        ],
    )
    def test_bad_patterns(self, tree, pattern, message):
        with pytest.raises(ValueError, match=message) as caught:
            match_files([f"{tree}/a.parquet", f"{tree}/{pattern}"])
        assert f"{tree}/{pattern}" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_an_unknown_file_system(self):
        with pytest.raises(ValueError, match="nosuch://x"):
            match_files(["nosuch://x"])
