"""Pair two sets of files by the keys in their names, never by their order."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from unicodedata import normalize

from transforms.reading.folders import OTHER_SPELLING
from transforms.reading.input_files import InputFile, files_below, is_directory, is_inside, look_up, open_input
from transforms.reading.templates import Template, check_templates, directory_template, parse_templates, suggest
from transforms.reading.zip_members import ZipMember, list_members, split_archive
from transforms.row_keys import CANDIDATE
from transforms.storage.errors import READ_ERRORS, describe
from transforms.worker.sandbox import Sandbox, SandboxError

Values = dict[str, str]
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilePair:
    """A pair of files, or a file without its partner.

    Attributes:
        id: the key, its parts joined by `/`.
        generated: the generated image; None: there is none.
        target: its target; None: there is none, or more than one.
        fields: values of the template's fields by name.
        candidate: which of the target's candidates the generated image is; empty: they have no names.
        reason: why there is no pair: a key of `folders.REASONS`; empty if there is one.
        message: the same for people.
        mask: the file that says which of its pixels count; None: there are no masks, or there is no pair.
        note: what is to be said of the pair: a key of `folders.NOTES`; empty: nothing.
    """

    id: str
    generated: InputFile | None
    target: InputFile | None
    fields: Values
    reason: str = ""
    message: str = ""
    candidate: str = ""
    mask: InputFile | None = None
    note: str = ""


@dataclass(frozen=True, order=True, slots=True)
class ArchivedFile(InputFile):
    """A member of a zip file, whose path is that of the zip file and its own.

    Attributes:
        archive: the zip file.
        member: where it lies in that.
    """

    archive: str = ""
    member: ZipMember | None = None


def pair_files(
    generated: Sequence[str],
    target: Sequence[str],
    sandbox: Sandbox = Sandbox(),
    mask: Sequence[str] = (),
    output: str = "",
) -> list[FilePair]:
    """Find the files of both sides and pair them by key, sorted by id.

    The key is what the wildcards matched or, if the templates have fields, the fields of the target's template. The
    generated images may have further fields: then several of them belong to one target. The field `candidate`, and
    names before the templates, do not belong to the id: every target needs an image of every candidate.

    A name may hold é as one character or as e and an accent, as on a Mac. Such names are one key if each side has one
    of them; the pair gets a note, and the target's spelling as its id.

    Args:
        generated: templates, local or in a store; a directory, or a zip file, stands for its images and those below it.
        target: the same.
        sandbox: parses zip files.
        mask: the same, of masks, which several pairs may share; empty: there are none.
        output: directory of the run itself, in which no image is looked for.

    Raises:
        ValueError: a template is wrong or matches nothing, or nothing can be paired; one line.
    """
    ours, theirs = ([_directory(one) for one in parse_templates(texts)] for texts in (generated, target))
    further = check_templates(ours, theirs)
    order = (*theirs[0].fields, *(name for name in further if name != CANDIDATE))
    find = partial(_find, sandbox=sandbox, output=output)
    left, right = find(ours, "--generated"), find(theirs, "--target")
    pairs = list(_join(left, right, order, theirs[0].fields))
    if all(pair.reason in ("no_target", "no_generated") for pair in pairs):
        raise ValueError(_nothing_matches(pairs))
    if mask:
        masks = [_directory(one) for one in parse_templates(mask)]
        check_templates(ours, masks, "--mask")
        pairs = list(_with_masks(pairs, find(masks, "--mask"), masks[0].fields, bool(ours[0].fields)))
        missing = [pair.message for pair in pairs if pair.reason == "no_mask"]
        if missing and all(pair.reason for pair in pairs):
            raise ValueError(f"no pair has a mask: {missing[0]}")
    return sorted(pairs, key=_order)


def _directory(template: Template) -> Template:
    """The template, or that of the images in the directory or the zip file it names."""
    if template.fields or template.wildcards:
        return template
    try:
        if not is_directory(template.prefix) and not split_archive(template.prefix)[0]:
            return template
        return replace(directory_template(template.prefix), candidate=template.candidate)
    except READ_ERRORS as error:
        raise ValueError(f"{template.text!r} cannot be looked up: {describe(error)}") from error


def _order(pair: FilePair) -> tuple[str, str]:
    file = pair.generated or pair.target
    return pair.id, file.path if file else ""


def _files(prefix: str, depth: int | None, sandbox: Sandbox) -> Iterator[InputFile]:
    """The files, also of a zip file, whose paths begin with `prefix`."""
    archive, _ = split_archive(prefix)
    if not archive or is_directory(archive):
        yield from files_below(prefix, depth)
        return
    found = look_up(archive)
    with open_input(archive, found.version) as file:
        for name, member in list_members(file, sandbox):
            path = f"{archive}/{name}"
            if path.startswith(prefix):
                yield ArchivedFile(path, member.size, found.modified, etag=found.etag, archive=archive, member=member)


def _find(
    templates: Sequence[Template], flag: str, sandbox: Sandbox, output: str
) -> Iterator[tuple[Values, InputFile]]:
    """The files that the templates match, each once, with the values of fields and wildcards."""
    seen: set[tuple[InputFile, str]] = set()
    for template in templates:
        matches = own = False
        try:
            for file in _files(template.prefix, template.depth, sandbox):
                values = template.match(file.path)
                if values is not None and output and is_inside(file.path, output):
                    own = True
                    continue
                matches = matches or values is not None
                if values is None or (file, template.candidate) in seen:
                    continue
                # One template finds no file twice, and there may be a million.
                if len(templates) > 1:
                    seen.add((file, template.candidate))
                yield values, file
        except (*READ_ERRORS, SandboxError) as error:
            raise ValueError(f"{flag}={template.text!r} cannot be looked up: {describe(error)}") from error
        if own and not matches:
            raise ValueError(
                f"{flag}={template.text!r} matches only files of --output={output}; give the run another directory"
            )
        if not matches:
            raise ValueError(f"{flag}={template.text!r} matches no file")


def _join(
    left: Iterable[tuple[Values, InputFile]],
    right: Iterable[tuple[Values, InputFile]],
    order: Sequence[str],
    shared: Sequence[str],
) -> Iterator[FilePair]:
    """Join both sides.

    Args:
        left: the generated images.
        right: the targets.
        order: the fields of an id; empty: the wildcards are.
        shared: those of them that the target has.
    """

    targets: dict[Key, list[InputFile]] = defaultdict(list)
    generated: dict[tuple[Key, str], list[tuple[Values, InputFile]]] = defaultdict(list)
    for values, file in left:
        generated[_key(values, order, bool(order)), values.get(CANDIDATE, "")].append((values, file))
    for values, file in right:
        targets[_key(values, shared, bool(order))].append(file)
    candidates = sorted({candidate for _, candidate in generated})
    width = len(shared) if order else 1
    respelled = {
        candidate: _respelled((full[:width] for full, other in generated if other == candidate), targets)
        for candidate in candidates
    }
    forms = set(map(_form, targets))
    paired = set()
    for (full, candidate), files in generated.items():
        shared_key = respelled[candidate].get(full[:width], full[:width])
        note = OTHER_SPELLING if shared_key != full[:width] else ""
        name = "/".join((*shared_key, *full[width:])) or "pair"
        paired.add((shared_key, candidate))
        partners = targets.get(shared_key, [])
        pair = partial(FilePair, name, candidate=candidate, note=note)
        for values, file in files:
            target = partners[0] if len(partners) == 1 else None
            if len(files) > 1:
                message = f"{_names([other for _, other in files])} have the same key {name!r}"
                yield pair(file, target, values, "double_key", message)
            elif len(partners) > 1:
                message = f"{file.path} has {len(partners)} targets: {_names(partners)}"
                yield pair(file, None, values, "double_key", message)
            elif not partners:
                alike = f", {name!a}; another one looks the same" if _form(shared_key) in forms else ""
                yield pair(file, None, values, "no_target", f"{file.path} has no target of the key {name!r}{alike}")
            else:
                yield pair(file, target, values)
    for shared_key, files_of_key in targets.items():
        name = "/".join(shared_key) or "pair"
        for candidate in candidates:
            if (shared_key, candidate) in paired:
                continue
            for file in files_of_key:
                what = f"generated image of {candidate}" if candidate else "generated image"
                message = f"{file.path} has no {what} with the key {name!r}"
                yield FilePair(name, None, file, {}, "no_generated", message, candidate)


def _with_masks(
    pairs: Iterable[FilePair], found: Iterable[tuple[Values, InputFile]], names: Sequence[str], by_fields: bool
) -> Iterator[FilePair]:
    """The pairs with their masks, which are found by these fields of the generated images, or by their wildcards."""
    masks: dict[Key, list[InputFile]] = defaultdict(list)
    for values, file in found:
        masks[_key(values, names, by_fields)].append(file)
    pairs = list(pairs)
    respelled = _respelled((_key(pair.fields, names, by_fields) for pair in pairs if not pair.reason), masks)
    for pair in pairs:
        if pair.reason:
            yield pair
            continue
        key = _key(pair.fields, names, by_fields)
        files = masks.get(respelled.get(key, key), [])
        path = pair.generated.path if pair.generated else ""
        if len(files) == 1:
            yield replace(pair, mask=files[0])
        elif files:
            yield replace(pair, reason="double_key", message=f"{path} has {len(files)} masks: {_names(files)}")
        else:
            yield replace(pair, reason="no_mask", message=f"{path} has no mask of the key {'/'.join(key)!r}")


def _key(values: Values, names: Sequence[str], by_fields: bool) -> Key:
    """The values of these fields or, if no template has fields, what the wildcards matched."""
    if by_fields:
        return tuple(values[name] for name in names)
    return ("/".join(text for name, text in values.items() if name != CANDIDATE),)


def _respelled(ours: Iterable[Key], theirs: Iterable[Key]) -> dict[Key, Key]:
    """The key of theirs for each of ours that differs from it in its Unicode form alone, where each side has one such.

    Two different names in one folder are never taken for one.
    """
    sides: list[dict[Key, set[Key]]] = [defaultdict(set), defaultdict(set)]
    for keys, side in zip((ours, theirs), sides, strict=True):
        for key in keys:
            side[_form(key)].add(key)
    return {
        key: their
        for form, (key, *others) in sides[0].items()
        for their in sides[1].get(form, ())
        if key != their and not others and len(sides[1][form]) == 1
    }


def _form(key: Key) -> Key:
    """The key with every accent in the letter's own character."""
    return tuple(normalize("NFC", part) for part in key)


def _names(files: Sequence[InputFile]) -> str:
    shown = ", ".join(sorted(file.path for file in files)[:3])
    return f"{shown}, ..." if len(files) > 3 else shown


def _nothing_matches(pairs: Iterable[FilePair]) -> str:
    found = [(pair.generated, pair.target) for pair in pairs]
    # Each candidate lacks the same target.
    ours, theirs = (sorted({file.path for file in side if file}) for side in zip(*found, strict=True))
    remedy = suggest(ours, theirs)
    return (
        f"none of the {len(ours)} generated images has one of the {len(theirs)} targets. Generated: "
        f"{', '.join(ours[:3])}. Targets: {', '.join(theirs[:3])}. "
        + (
            f"Try {remedy}"
            if remedy
            else "Write {id} where their names agree, as in 'out/{id}x4.png' and 'gt/{id}.png'"
        )
    )
