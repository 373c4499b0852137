"""Input files found by patterns."""

import os
from dataclasses import replace

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
            (["**/*.parquet"], ["a.parquet", "b.parquet", "deep/c.parquet", "deep/er/d.parquet"]),
            (["**/deep/**/d.parquet"], ["deep/er/d.parquet"]),
            (["dee**/c.parquet"], ["deep/c.parquet"]),
            ([], []),
        ],
    )
    def test_sorted_and_each_once(self, tree, patterns, expected):
        files = match_files([f"{tree}/{pattern}" for pattern in patterns])
        assert [file.path for file in files] == [f"{tree}/{name}" for name in expected]
        found = [replace(file, label="") for file in files]
        assert found == [shards.input_file(tree / name) for name in expected]

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

    @pytest.mark.parametrize("pattern", ["pipe.parquet", "*.parquet"])
    def test_a_pipe_is_refused_before_it_is_opened(self, tree, pattern):
        os.mkfifo(tree / "pipe.parquet")
        with pytest.raises(ValueError, match=r"pipe.parquet is a pipe or a device; copy") as caught:
            match_files([f"{tree}/{pattern}"])
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [("nosuch://x", "nosuch://x"), ("hdfs://b/x.parquet", r"apache-beam\[hadoop\]")],
    )
    def test_an_unknown_file_system(self, pattern, message):
        with pytest.raises(ValueError, match=message) as caught:
            match_files([pattern])
        assert pattern in str(caught.value)


def labels(tmp_path, *patterns):
    return {
        os.path.relpath(file.path, tmp_path): file.label for file in match_files([f"{tmp_path}/{p}" for p in patterns])
    }


class TestNames:
    @pytest.mark.parametrize(
        "name", ["run[1]", "a,b", "{x,y}", "a*b", "what?", "[ab]", "#%20", os.fsdecode(b"\xff\xe9")]
    )
    def test_what_exists_is_taken_as_it_is(self, tmp_path, name):
        for file in ("x.parquet", f"{name}.parquet"):
            shards.write(tmp_path / name / file, b"")
        shards.write(tmp_path / "b" / "x.parquet", b"")
        assert list(labels(tmp_path, f"{name}/x.parquet")) == [f"{name}/x.parquet"]
        assert list(labels(tmp_path, f"{name}/{name}.parquet")) == [f"{name}/{name}.parquet"]
        assert len(labels(tmp_path, f"{name}/*.parquet")) == 2

    def test_braces(self, tmp_path):
        for name in ("a/x.parquet", "b/x.parquet", "c/x.parquet"):
            shards.write(tmp_path / name, b"")
        assert labels(tmp_path, "{a,{b,z}}/*.parquet") == {"a/x.parquet": "a/x.parquet", "b/x.parquet": "b/x.parquet"}

    def test_one_file_by_several_spellings(self, tmp_path):
        path = tmp_path / "in" / "x.parquet"
        shards.write(path, b"")
        (tmp_path / "link").symlink_to(tmp_path / "in")
        (tmp_path / "in" / "alias.parquet").symlink_to(path)
        spellings = [
            path,
            tmp_path / "in/./x.parquet",
            tmp_path / "link/x.parquet",
            f"file://{path}",
            f"{tmp_path}/in//*",
        ]
        assert [file.path for file in match_files(list(map(str, spellings)))] == [str(path)]

    def test_linked_directories(self, tmp_path):
        shards.write(tmp_path / "elsewhere" / "x.parquet", b"")
        shards.write(tmp_path / "top" / "y.parquet", b"")
        (tmp_path / "top" / "sub").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "top" / "circle").symlink_to(tmp_path / "top")
        assert set(labels(tmp_path, "top/**.parquet")) == {"top/sub/x.parquet", "top/y.parquet"}
        assert set(labels(tmp_path, "top/*/*.parquet")) >= {"top/sub/x.parquet"}

    @pytest.mark.parametrize(
        "name",
        [
            "_SUCCESS",
            "_metadata",
            "_committed_12",
            ".part-0.parquet.crc",
            ".hidden.parquet",
            "x.parquet.crc",
            "_temporary/x.parquet",
        ],
    )
    def test_what_is_not_data(self, tmp_path, name):
        shards.write(tmp_path / name, b"")
        shards.write(tmp_path / "_x.parquet", b"")
        assert list(labels(tmp_path, "**")) == ["_x.parquet"]
        assert list(labels(tmp_path, name)) == [name]


class TestLabels:
    """They are unique, and stay as they are when more files come."""

    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            (["day=1/x.parquet"], {"day=1/x.parquet": "x.parquet"}),
            (["**.parquet"], {name: name for name in ("day=1/x.parquet", "day=2/x.parquet")}),
            (["day=*/x.parquet"], {name: name for name in ("day=1/x.parquet", "day=2/x.parquet")}),
            (["day=2/*"], {"day=2/x.parquet": "x.parquet"}),
        ],
    )
    def test_below_the_fixed_part(self, tmp_path, patterns, expected):
        for name in ("day=1/x.parquet", "day=2/x.parquet"):
            shards.write(tmp_path / name, b"")
        assert labels(tmp_path, *patterns) == expected

    def test_of_several_patterns(self, tmp_path):
        for name in ("a/x.parquet", "b/x.parquet"):
            shards.write(tmp_path / name, b"")
        first, both = labels(tmp_path, "a/*"), labels(tmp_path, "a/*", "b/*")
        assert both == first | {"b/x.parquet": f"{tmp_path}/b/x.parquet"}
