"""Paths of images that records name: where they may lead, and what is read there."""

import os

import pytest
from support import shards

from transforms.reading.image_paths import NamedPair, Place, named_chunk
from transforms.reading.named_images import fetch_images, resolve
from transforms.reading.record_error import RecordError
from transforms.schema import Chunk


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("a.png", "/data", "/data/a.png"),
        ("d/../a.png", "/data", "/data/a.png"),
        ("/data/a.png", "/data", "/data/a.png"),
        ("a.png", "", "a.png"),
        ("d/a.png", "sets", "sets/d/a.png"),
        ("a.png", "gs://b/sets", "gs://b/sets/a.png"),
        ("gs://b/sets/a.png", "gs://b/sets", "gs://b/sets/a.png"),
        ("a.png", "../sets", "../sets/a.png"),
        ("../a.png", "/data", "outside_root"),
        ("../a.png", "../sets", "outside_root"),
        ("d/../../a.png", "", "outside_root"),
        ("/etc/passwd", "/data", "outside_root"),
        ("/database/a.png", "/data", "outside_root"),
        ("/etc/passwd", "", "outside_root"),
        ("gs://other/a.png", "gs://b", "outside_root"),
        ("gs://b/a.png", "/data", "outside_root"),
        ("../../c/a.png", "gs://b/sets", "outside_root"),
        ("/a.png", "gs://b", "outside_root"),
        ("file:///etc/passwd", "/data", "outside_root"),
        ("https://example.com/a.png", "/data", "not_a_file"),
        ("", "/data", "not_a_file"),
        ("a\0.png", "/data", "not_a_file"),
    ],
)
def test_resolve(path, root, expected):
    if "_" not in expected:
        assert resolve(path, root) == expected
        return
    with pytest.raises(RecordError) as caught:
        resolve(path, root)
    assert caught.value.reason == expected


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("https://example.com/a.png", "/data", "https://example.com/a.png"),
        ("HTTP://example.com/a b.png", "gs://b", "HTTP://example.com/a b.png"),
        ("d/../a.png", "https://example.com/sets", "https://example.com/sets/a.png"),
        ("../a.png", "https://example.com/sets", "outside_root"),
        ("/a.png", "https://example.com", "outside_root"),
        ("a.png", "/data", "/data/a.png"),
        ("ftp://example.com/a.png", "/data", "outside_root"),
    ],
)
def test_resolve_with_addresses(path, root, expected):
    if expected != "outside_root":
        assert resolve(path, root, allow_http=True) == expected
        return
    with pytest.raises(RecordError) as caught:
        resolve(path, root, allow_http=True)
    assert caught.value.reason == expected


def test_a_refused_address_names_the_flag():
    for path, root in (("https://example.com/a.png", "/data"), ("a.png", "https://example.com")):
        with pytest.raises(RecordError, match="is not fetched; give --allow_http"):
            resolve(path, root)


def test_each_bad_file_costs_its_pairs_only(tmp_path):
    good = Place(shards.write(tmp_path / "good.png", b"good").path, size=4)
    os.mkfifo(tmp_path / "pipe.png")
    paths = {"missing": f"{tmp_path}/no.png", "directory": str(tmp_path), "pipe": f"{tmp_path}/pipe.png"}
    pairs = [NamedPair("good", "s#0", (good, good)), NamedPair("bytes", "s#1", (b"in the record", good))]
    pairs += [NamedPair("none", "s#2", (None, good)), NamedPair("changed", "s#3", (good, Place(good.path, size=5)))]
    pairs += [
        NamedPair(name, f"s#{number}", (good, Place(path))) for number, (name, path) in enumerate(paths.items(), 4)
    ]
    encoded = fetch_images(named_chunk(Chunk("c", "s", "csv", 0, len(pairs)), pairs, ()), None, ())
    assert encoded.pairs.select(["id", "generated", "target"]).to_pylist() == [
        {"id": "good", "generated": b"good", "target": b"good"},
        {"id": "bytes", "generated": b"in the record", "target": b"good"},
        {"id": "none", "generated": None, "target": b"good"},
    ]
    assert {failure.id: failure.reason for failure in encoded.failures} == {
        "changed": "changed_image",
        **dict.fromkeys(paths, "unreadable_image"),
    }
