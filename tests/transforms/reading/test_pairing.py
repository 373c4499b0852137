"""Two sets of files, paired by key."""

import os

import pytest
from support import shards

from transforms.reading.pairing import pair_files


def tree(root, *names):
    for name in names:
        shards.write(root / name, name.encode())


def paired(root, generated, target):
    """Id, generated, target and reason of each pair; the paths below `root`."""
    sides = [[f"{root}/{text}" for text in side.split()] for side in (generated, target)]
    return [
        (pair.id, *(file and file.path.removeprefix(f"{root}/") for file in (pair.generated, pair.target)), pair.reason)
        for pair in pair_files(*sides)
    ]


@pytest.mark.parametrize(
    ("files", "generated", "target", "expected"),
    [
        ("o/b.png o/a.png g/a.png g/b.png", "o/*.png", "g/*.png", ["a o/a.png g/a.png", "b o/b.png g/b.png"]),
        ("o/a.jpg g/a.png", "o/*.jpg", "g/*.png", ["a o/a.jpg g/a.png"]),
        ("o/s/a.png g/s/a.png", "o/**/*.png", "g/**/*.png", ["s/a o/s/a.png g/s/a.png"]),
        ("o/s/a.png g/s/a.png g/note.txt", "o/**/*.png", "g", ["s/a o/s/a.png g/s/a.png"]),
        ("o/a.jpg g/a.png", "o/", "g/", ["a o/a.jpg g/a.png"]),
        ("o/1x4.png g/1.png", "o/{id}x4.png", "g/{id}.png", ["1 o/1x4.png g/1.png"]),
        (
            "o/s/m.png o/s/n.png g/s.png",
            "o/{s}/{m}.png",
            "g/{s}.png",
            ["s/m o/s/m.png g/s.png", "s/n o/s/n.png g/s.png"],
        ),
        ("o/1.png p/2.png g/1.png g/2.png", "o/*.png p/*.png", "g/*.png", ["1 o/1.png g/1.png", "2 p/2.png g/2.png"]),
        ("o.png g.png", "o.png", "g.png", ["pair o.png g.png"]),
        ("o/a.png o/b.png g.png", "o/{m}.png", "g.png", ["a o/a.png g.png", "b o/b.png g.png"]),
        ("o/a.png o/A.png g/a.png g/A.png", "o/*.png", "g/*.png", ["A o/A.png g/A.png", "a o/a.png g/a.png"]),
    ],
)
def test_pairs(tmp_path, files, generated, target, expected):
    tree(tmp_path, *files.split())
    assert paired(tmp_path, generated, target) == [(*line.split(), "") for line in expected]


def test_a_link_to_itself_costs_no_other_pair(tmp_path):
    tree(tmp_path, "o/a.png", "g/a.png", "g/b.png")
    (tmp_path / "o" / "b.png").symlink_to("b.png")
    assert paired(tmp_path, "o", "g") == [("a", "o/a.png", "g/a.png", ""), ("b", "o/b.png", "g/b.png", "")]


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("generated", "target", "expected"),
    [
        ([DECOMPOSED], [COMPOSED], [(DECOMPOSED, COMPOSED, "other_spelling")]),
        ([COMPOSED], [DECOMPOSED], [(COMPOSED, DECOMPOSED, "other_spelling")]),
        ([COMPOSED, DECOMPOSED], [COMPOSED, DECOMPOSED], [(COMPOSED, COMPOSED, ""), (DECOMPOSED, DECOMPOSED, "")]),
        # Which of the two names in one folder is meant cannot be known.
        ([COMPOSED, DECOMPOSED], [COMPOSED], [(COMPOSED, COMPOSED, "")]),
        ([DECOMPOSED], [COMPOSED, DECOMPOSED], [(DECOMPOSED, DECOMPOSED, "")]),
    ],
)
def test_names_that_differ_in_their_unicode_form(tmp_path, generated, target, expected):
    tree(tmp_path, "o/a.png", "g/a.png", "m/a.png")
    tree(
        tmp_path,
        *(f"o/{name}.png" for name in generated),
        *(f"{folder}/{name}.png" for name in target for folder in "gm"),
    )
    found = pair_files([f"{tmp_path}/o"], [f"{tmp_path}/g"], mask=[f"{tmp_path}/m"])
    named = [(pair.generated.path, pair.target.path, pair.mask.path, pair.note) for pair in found if not pair.reason]
    wanted = [(f"{tmp_path}/o/{a}.png", f"{tmp_path}/g/{b}.png", f"{tmp_path}/m/{b}.png", c) for a, b, c in expected]
    assert sorted(named[1:]) == sorted(wanted)
    assert {pair.id for pair in found if pair.note} == {b for _, b, note in expected if note}
    assert all(r"cafe\u0301'; another" in pair.message for pair in found if pair.reason == "no_target")


@pytest.mark.parametrize("name", ["{a}", "}", "a*", "?", "[ab]", "{", "{{a}}"])
def test_what_exists_is_no_template(tmp_path, name):
    """A directory, one above fields, and a file, although its name has the characters of a template."""
    for side in ("o", "g"):
        tree(tmp_path, *(f"{side}{folder}/{file}.png" for folder in (name, "ab", "a") for file in (name, "b")))
    sides = f"o{name}", f"g{name}"
    both = sorted((file, *(f"{side}/{file}.png" for side in sides), "") for file in (name, "b"))
    assert paired(tmp_path, *sides) == both
    assert paired(tmp_path, *(f"{side}/{{id}}.png" for side in sides)) == both
    file = tuple(f"{side}/{name}.png" for side in sides)
    assert paired(tmp_path, *file) == [("pair", *file, "")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("o/b.png", ("b", "o/b.png", None, "no_target")),
        ("g/b.png", ("b", None, "g/b.png", "no_generated")),
        ("g/b.png h/b.png o/b.png", ("b", "o/b.png", None, "double_key")),
    ],
)
def test_a_file_without_its_partner(tmp_path, files, expected):
    tree(tmp_path, "o/a.png", "g/a.png", "h/a2.png", "o/a2.png", *files.split())
    assert expected in paired(tmp_path, "o/*.png", "g/*.png h/*.png")


def test_each_of_several_generated_images_of_one_key_fails(tmp_path):
    tree(tmp_path, "o/a.png", "o/a.jpg", "o/b.png", "g/a.png", "g/b.png")
    assert paired(tmp_path, "o", "g") == [
        ("a", "o/a.jpg", "g/a.png", "double_key"),
        ("a", "o/a.png", "g/a.png", "double_key"),
        ("b", "o/b.png", "g/b.png", ""),
    ]


def test_nothing_can_be_paired(tmp_path):
    tree(tmp_path, *(f"o/{n}x4.png" for n in range(901, 905)), *(f"g/{n}.png" for n in range(901, 905)))
    with pytest.raises(ValueError, match="none of the 4") as caught:
        paired(tmp_path, "o/*.png", "g/*.png")
    message = str(caught.value)
    assert "\n" not in message
    assert f"none of the 4 generated images has one of the 4 targets. Generated: {tmp_path}/o/901x4.png" in message
    assert f"Targets: {tmp_path}/g/901.png, {tmp_path}/g/902.png, {tmp_path}/g/903.png." in message
    assert f"Try --generated='{tmp_path}/o/{{id}}x4.png' --target='{tmp_path}/g/{{id}}.png'" in message


@pytest.mark.parametrize(
    ("generated", "target", "message"),
    [
        ("no/*.png", "g/*.png", "--generated='.*no/\\*.png' matches no file"),
        ("o/*.png", "g/*.jpg", "--target='.*g/\\*.jpg' matches no file"),
        ("o/*.png", "missing", "--target='.*missing' matches no file"),
        ("o/{a}_{b}.png", "g/{a}_{b}.png", "ambiguous"),
    ],
)
def test_bad_templates(tmp_path, generated, target, message):
    tree(tmp_path, "o/a_b_c.png", "g/a_b_c.png")
    with pytest.raises(ValueError, match=message):
        paired(tmp_path, generated, target)


def test_linked_directories(tmp_path):
    tree(tmp_path, "o/a.png", "real/s/a.png", "g/a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert paired(tmp_path, "linked/*/*.png", "real/*/*.png") == [("s/a", "linked/s/a.png", "real/s/a.png", "")]
    assert [pair[0] for pair in paired(tmp_path, "**/a.png", "**/a.png")] == ["g", "linked/s", "o", "real/s"]
    (tmp_path / "o" / "scene").symlink_to(tmp_path / "real" / "s")
    (tmp_path / "g" / "scene").symlink_to(tmp_path / "real" / "s")
    assert [pair[0] for pair in paired(tmp_path, "o", "g")] == ["a", "scene/a"]


def test_what_cannot_be_read_is_still_a_pair(tmp_path):
    tree(tmp_path, "o/a.png", "g/a.png")
    for side in ("o", "g"):
        (tmp_path / side / "gone.png").symlink_to(tmp_path / "nowhere")
        os.mkfifo(tmp_path / side / "pipe.png")
    assert [(id, reason) for id, _, _, reason in paired(tmp_path, "o", "g")] == [("a", ""), ("gone", ""), ("pipe", "")]


def test_files_of_the_run_itself_are_no_input(tmp_path):
    tree(tmp_path, "o/a.png", "o/run/optimized/a.png", "o/running.png", "g/a.png")
    pairs = pair_files([f"{tmp_path}/o"], [f"{tmp_path}/g"], output=f"{tmp_path}/g/../o/run")
    assert [(pair.id, pair.reason) for pair in pairs] == [("a", ""), ("running", "no_target")]
    with pytest.raises(ValueError, match="matches only files of --output"):
        pair_files([f"{tmp_path}/o/run"], [f"{tmp_path}/g"], output=f"{tmp_path}/o/run")


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ("o/*.png g/*.png m/*.png", {"1": "m/1.png", "2": "no_mask"}),
        ("o g m", {"1": "m/1.png", "2": "no_mask"}),
        ("o/{id}.png g/{id}.png m/{id}.png", {"1": "m/1.png", "2": "no_mask"}),
        ("o/{id}.png g/{id}.png n.png", {"1": "n.png", "2": "n.png"}),
        ("s/{s}/{id}.png g/{id}.png m/{s}.png", {"1/a": "no_mask", "1/1": "m/1.png", "2": "no_generated"}),
        ("a=o/{id}.png b=p/{id}.png g/{id}.png m/{id}.png", {"1": "m/1.png", "2": "no_mask"}),
    ],
)
def test_masks(tmp_path, sides, expected):
    folders = {"o": "12", "p": "12", "g": "12", "m": "1", "s/a": "1", "s/1": "1"}
    tree(tmp_path, "n.png", *(f"{folder}/{name}.png" for folder, names in folders.items() for name in names))
    *generated, target, mask = (f"{a}{b}{tmp_path}/{c}" for a, b, c in (s.rpartition("=") for s in sides.split()))
    pairs = pair_files(generated, [target], mask=[mask])
    found = {pair.id: pair.mask.path.removeprefix(f"{tmp_path}/") if pair.mask else pair.reason for pair in pairs}
    assert found == expected
    assert all("has no mask of the key" in pair.message for pair in pairs if pair.reason == "no_mask")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("x/{id}.png", "--mask=.* matches no file"),
        ("m/{s}.png", "--mask has {s}, which --generated=.* lacks"),
        ("m/*.png", "--generated has {id}, but --mask=.* has wildcards"),
        ("k/{id}.png", "no pair has a mask: .*o/1.png has no mask of the key '1'"),
    ],
)
def test_masks_that_cannot_be_found(tmp_path, mask, message):
    tree(tmp_path, "o/1.png", "g/1.png", "m/1.png", "k/2.png")
    with pytest.raises(ValueError, match=message):
        pair_files([f"{tmp_path}/o/{{id}}.png"], [f"{tmp_path}/g/{{id}}.png"], mask=[f"{tmp_path}/{mask}"])


def test_two_masks_of_one_pair(tmp_path):
    tree(tmp_path, "o/1.png", "o/2.png", "g/1.png", "g/2.png", "m/1.png", "m/2.png", "n/1.png")
    sides = [[f"{tmp_path}/{side}/*.png"] for side in "og"]
    first, second = pair_files(*sides, mask=[f"{tmp_path}/m/*.png", f"{tmp_path}/n/*.png"])
    assert (first.reason, second.reason) == ("double_key", "")
    assert "o/1.png has 2 masks" in first.message
