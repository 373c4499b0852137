"""Pair two sets of files by the keys in their names, never by their order."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from transforms.reading.input_files import InputFile, files_below, is_directory
from transforms.reading.templates import Template, check_templates, directory_template, parse_template, suggest
from transforms.storage.errors import READ_ERRORS, describe

Values = dict[str, str]


@dataclass(frozen=True, slots=True)
class FilePair:
    """A pair of files, or a file without its partner.

    Attributes:
        id: the key, its parts joined by `/`.
        generated: the generated image; None: there is none.
        target: its target; None: there is none, or more than one.
        fields: values of the template's fields by name.
        reason: why there is no pair: a key of `folders.REASONS`; empty if there is one.
        message: the same for people.
    """

    id: str
    generated: InputFile | None
    target: InputFile | None
    fields: Values
    reason: str = ""
    message: str = ""


def pair_files(generated: Sequence[str], target: Sequence[str]) -> list[FilePair]:
    """Find the files of both sides and pair them by key, sorted by id.

    The key is what the wildcards matched or, if the templates have fields, the fields of the target's template. The
    generated images may have further fields: then several of them belong to one target.

    Args:
        generated: templates, local or `gs://`; a directory stands for its images and those below it.
        target: the same.

    Raises:
        ValueError: a template is wrong or matches nothing, or nothing can be paired; one line.
    """
    ours = [_template(text) for text in generated]
    theirs = [_template(text) for text in target]
    further = check_templates(ours, theirs)
    order = (*theirs[0].fields, *further)
    left, right = _find(ours, "--generated"), _find(theirs, "--target")
    pairs = list(_join(left, right, order, further))
    if all(pair.reason in ("no_target", "no_generated") for pair in pairs):
        raise ValueError(_nothing_matches(left, right))
    return sorted(pairs, key=lambda pair: (pair.id, pair.generated or pair.target))


def _template(text: str) -> Template:
    template = parse_template(text)
    if template.fields or template.wildcards:
        return template
    try:
        return directory_template(template.prefix) if is_directory(template.prefix) else template
    except READ_ERRORS as error:
        raise ValueError(f"{text!r} cannot be looked up: {describe(error)}") from error


def _find(templates: Sequence[Template], flag: str) -> list[tuple[Values, InputFile]]:
    """The files that the templates match, each once, with the values of fields and wildcards."""
    found: dict[str, tuple[Values, InputFile]] = {}
    for template in templates:
        matches = False
        try:
            for file in files_below(template.prefix, template.depth):
                if (values := template.match(file.path)) is not None:
                    matches = bool(found.setdefault(file.path, (values, file)))
        except READ_ERRORS as error:
            raise ValueError(f"{flag}={template.text!r} cannot be looked up: {describe(error)}") from error
        if not matches:
            raise ValueError(f"{flag}={template.text!r} matches no file")
    return list(found.values())


def _join(
    left: Iterable[tuple[Values, InputFile]],
    right: Iterable[tuple[Values, InputFile]],
    order: Sequence[str],
    further: Sequence[str],
) -> Iterator[FilePair]:
    def key(values: Values, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(values[name] for name in names) if order else ("/".join(values.values()),)

    shared = order[: len(order) - len(further)]
    targets: dict[tuple[str, ...], list[InputFile]] = defaultdict(list)
    candidates: dict[tuple[str, ...], list[tuple[Values, InputFile]]] = defaultdict(list)
    for values, file in right:
        targets[key(values, shared)].append(file)
    for values, file in left:
        candidates[key(values, order)].append((values, file))
    paired = set()
    for full, files in candidates.items():
        name = "/".join(full) or "pair"
        shared_key = full[: len(shared)] if order else full
        paired.add(shared_key)
        partners = targets.get(shared_key, [])
        for values, file in files:
            target = partners[0] if len(partners) == 1 else None
            if len(files) > 1:
                message = f"{_names([other for _, other in files])} have the same key {name!r}"
                yield FilePair(name, file, target, values, "double_key", message)
            elif len(partners) > 1:
                message = f"{file.path} has {len(partners)} targets: {_names(partners)}"
                yield FilePair(name, file, None, values, "double_key", message)
            elif not partners:
                yield FilePair(name, file, None, values, "no_target", f"{file.path} has no target of the key {name!r}")
            else:
                yield FilePair(name, file, target, values)
    for shared_key, files_of_key in targets.items():
        if shared_key not in paired:
            name = "/".join(shared_key) or "pair"
            for file in files_of_key:
                message = f"{file.path} has no generated image of the key {name!r}"
                yield FilePair(name, None, file, {}, "no_generated", message)


def _names(files: Sequence[InputFile]) -> str:
    shown = ", ".join(sorted(file.path for file in files)[:3])
    return f"{shown}, ..." if len(files) > 3 else shown


def _nothing_matches(left: Sequence[tuple[Values, InputFile]], right: Sequence[tuple[Values, InputFile]]) -> str:
    ours, theirs = (sorted(file.path for _, file in side) for side in (left, right))
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
