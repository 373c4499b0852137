"""Templates of file names: what they match, and which are refused."""

import re

import pytest

from transforms.reading.templates import check_templates, directory_template, parse_template, suggest


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("out/*.png", "out/a.png", {"0": "a"}),
        ("out/*.png", "out/d/a.png", None),
        ("out/*.png", "out/a.PNG", None),
        ("out/?.png", "out/a.png", {"0": "a"}),
        ("out/**/*.png", "out/a.png", {"1": "a"}),
        ("out/**/*.png", "out/d/e/a.png", {"0": "d/e", "1": "a"}),
        ("out/**.png", "out/d/a.png", {"0": "d/a"}),
        ("out/*/x_*.png", "out/d/x_a.png", {"0": "d", "1": "a"}),
        ("out/[1].png", "out/[1].png", {}),
        ("out/{id}x4.png", "out/0901x4.png", {"id": "0901"}),
        ("out/{id}.png", "out/d/a.png", None),
        ("out/{id:path}.png", "out/d/a.png", {"id": "d/a"}),
        ("out/{scene}/{method}.png", "out/s/m.png", {"scene": "s", "method": "m"}),
        ("out/{id}/{id}.png", "out/a/a.png", {"id": "a"}),
        ("out/{id}/{id}.png", "out/a/b.png", None),
        ("out/{{x}}_{id}.png", "out/{x}_a.png", {"id": "a"}),
        ("out/LAZY{id}\n.png", "out/LAZYa\n.png", {"id": "a"}),
        ("*/{id}_*.png", "d/a_9.png", {"id": "a"}),
        ("gs://b/out/{id}.png", "gs://b/out/a.png", {"id": "a"}),
    ],
)
def test_match(template, path, expected):
    assert parse_template(template).match(path) == expected


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("out/a.png", "a"),
        ("out/d/a.b.JPEG", "d/a.b"),
        ("out/a.txt", None),
        ("out/.hidden.png", None),
        ("out/.git/a.png", None),
        ("output/a.png", None),
    ],
)
def test_a_directory_stands_for_its_images(path, key):
    found = directory_template("out/").match(path)
    assert found == (None if key is None else {"0": key})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{a}{b}.png", "ambiguous"),
        ("{a:path}/{b:path}.png", "2 fields with :path"),
        ("{a.png", "belongs to no field"),
        ("a}.png", "belongs to no field"),
        ("{}.png", "belongs to no field"),
        ("{a b}.png", "belongs to no field"),
    ],
)
def test_refused(template, message):
    with pytest.raises(ValueError, match=message):
        parse_template(template)


def test_a_name_that_can_be_read_in_two_ways():
    template = parse_template("{a}_{b}.png")
    assert template.match("x_y.png") == {"a": "x", "b": "y"}
    with pytest.raises(ValueError, match=r"ambiguous: 'x_y_z.png' gives a='x_y', b='z' or a='x', b='y_z'"):
        template.match("x_y_z.png")


@pytest.mark.parametrize(
    ("generated", "target", "expected"),
    [
        (["o/*.png"], ["g/*.png"], ()),
        (["o/{id}x4.png"], ["g/{id}.png"], ()),
        (["o/{s}/{m}.png"], ["g/{s}.png"], ("m",)),
        (["o/{m}.png"], ["target.png"], ("m",)),
        (["o/{id}.png", "p/{id}.png"], ["g/{id}.png"], ()),
        (["o/{id}.png"], ["g/*.png"], "wildcards; write {id} in both"),
        (["o/*.png"], ["g/{id}.png"], "--target has {id}, which --generated='o/*.png' lacks"),
        (["o/{id}.png", "p/*.png"], ["g/{id}.png"], "have different fields"),
    ],
)
def test_templates_of_both_sides(generated, target, expected):
    sides = ([parse_template(text) for text in side] for side in (generated, target))
    if isinstance(expected, tuple):
        assert check_templates(*sides) == expected
    else:
        with pytest.raises(ValueError, match=re.escape(expected)):
            check_templates(*sides)


@pytest.mark.parametrize(
    ("generated", "target", "expected"),
    [
        (["o/{}x4.png", "o/{}x4.png"], ["g/{}.png", "g/{}.png"], "--generated='o/{id}x4.png' --target='g/{id}.png'"),
        (["o/out_{}.jpg"] * 2, ["g/{}_gt.png"] * 2, "--generated='o/out_{id}.jpg' --target='g/{id}_gt.png'"),
        (["o/a.png", "o/b.png"], ["g/c.png", "g/d.png"], ""),
    ],
)
def test_suggestions(generated, target, expected):
    sides = [[name.replace("{}", f"09{n}7") for n, name in enumerate(side)] for side in (generated, target)]
    assert suggest(*sides) == expected
