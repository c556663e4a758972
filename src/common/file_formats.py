"""Typed result files: checks of their contents, and their description for docs/file-formats.md.

Every JSON file has one ``TypedDict`` in the ``file_formats.py`` of its room. A field is annotated with what
it means and its unit: ``accuracy: Annotated[float, "share of correct answers, 0 to 1"]``. The docstring of
the class names the file. A field of another ``TypedDict`` (or a list or dict of such) is described in a table
of its own.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints


# --- making ----------------------------------------------------------------------------------------
def with_fields(kind: Any, fields: Mapping[str, Any]) -> Any:
    """Make a copy of ``kind``, a ``TypedDict``, with more ``fields`` (key -> type) after its own."""
    hints = {**get_type_hints(kind, include_extras=True), **fields}
    made = typing.TypedDict(kind.__name__, hints)  # type: ignore[misc]  # keys known at run time only
    made.__doc__ = kind.__doc__
    return made


# --- checking --------------------------------------------------------------------------------------
def format_problems(content: Any, kind: Any) -> list[str]:
    """Say where ``content`` (read from JSON) differs from ``kind``, a ``TypedDict``; [] if nowhere.

    Checks missing and unknown keys and the types of values, at every depth. A whole number is also a float.
    """
    return list(_problems(content, kind, ""))


def _problems(content: Any, kind: Any, place: str) -> Iterator[str]:
    kind = _bare(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return
    if typing.is_typeddict(kind):
        yield from _problems_of_keys(content, kind, place)
    elif origin in (Union, types.UnionType):
        tries = [list(_problems(content, each, place)) for each in arguments]
        if all(tries) and isinstance(content, dict):  # probably meant for the one with the fewest problems
            yield min(tries, key=len)[0]
        elif all(tries):
            yield f"{place or 'content'}: {_short(content)} is not {type_name(kind)}"
    elif origin is Literal:
        if content not in arguments:
            yield f"{place}: {_short(content)} is not one of {arguments}"
    elif origin in (list, tuple):
        if not isinstance(content, list | tuple):
            yield f"{place}: {_short(content)} is not a list"
            return
        kinds = arguments[:1] if arguments[-1] is ... else arguments  # the last one holds for all that follow
        for number, item in enumerate(content):
            yield from _problems(item, kinds[min(number, len(kinds) - 1)], f"{place}[{number}]")
    elif origin is not None and issubclass(origin, Mapping):
        if not isinstance(content, dict):
            yield f"{place}: {_short(content)} is not an object"
            return
        for key, value in content.items():
            yield from _problems(value, arguments[1], f"{place}.{key}" if place else key)
    elif not _is_a(content, kind):
        yield f"{place}: {_short(content)} is not {type_name(kind)}"


def _problems_of_keys(content: Any, kind: Any, place: str) -> Iterator[str]:
    if not isinstance(content, dict):
        yield f"{place or 'content'}: {_short(content)} is not an object"
        return
    hints = get_type_hints(kind, include_extras=True)
    start = f"{place}." if place else ""
    yield from (f"{start}{key} is missing" for key in sorted(_required(kind) - content.keys()))
    yield from (f"{start}{key} is not described" for key in content if key not in hints)
    for key, hint in hints.items():
        if key in content:
            yield from _problems(content[key], hint, f"{start}{key}")


def _required(kind: Any) -> set[str]:
    """Return the keys that must be there.

    Python's own ``__required_keys__`` takes every key for required in a module that postpones annotations.
    """
    hints = get_type_hints(kind, include_extras=True)
    return {key for key in kind.__required_keys__ if get_origin(hints[key]) is not NotRequired}


def _is_a(content: Any, kind: Any) -> bool:
    if kind in (int, float):
        return isinstance(content, int if kind is int else int | float) and not isinstance(content, bool)
    return content is None if kind is None else isinstance(content, kind if isinstance(kind, type) else object)


def _short(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 40 else text[:37] + "..."


# --- describing ------------------------------------------------------------------------------------
def describe_format(kind: Any, described: set[Any] | None = None) -> str:
    """Write a ``TypedDict`` and all those in it as Markdown: a paragraph and a table of keys each.

    Types in ``described`` are left out; those written here are added to it.
    """
    parts: list[str] = []
    todo, done = [kind], set() if described is None else described
    while todo:
        each = todo.pop(0)
        if each in done:
            continue
        done.add(each)
        hints = get_type_hints(each, include_extras=True)
        rows = ["| key | type | meaning |", "|---|---|---|"]
        for key, hint in hints.items():
            optional = "" if key in _required(each) else " (may be absent)"
            rows.append(f"| `{key}` | {type_name(hint)} | {meaning(hint)}{optional} |")
            todo += _inner_formats(hint)
        level = "##" if each is kind else "###"
        text = " ".join((each.__doc__ or "").split())
        parts.append("\n".join([f"{level} {each.__name__}", "", text, "", *rows]))
    return "\n\n".join(parts) + "\n"


def meaning(hint: Any) -> str:
    """Return the words of an ``Annotated`` hint, "" without any."""
    while get_origin(hint) in (NotRequired, Required):
        (hint,) = get_args(hint)
    return "; ".join(map(str, getattr(hint, "__metadata__", ()))).replace("|", "\\|")


def type_name(hint: Any) -> str:
    """Return a type in the words of JSON: "number", "list of integer", "string or null"."""
    hint = _bare(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(each) for each in arguments)
    if origin is Literal:
        return " or ".join(repr(each) for each in arguments)
    if origin is tuple and arguments and arguments[-1] is not ...:
        return "[" + ", ".join(type_name(each) for each in arguments) + "]"
    if origin in (list, tuple):
        return f"list of {type_name(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {type_name(arguments[1])}"
    words = {float: "number", int: "integer", str: "string", bool: "true or false", type(None): "null"}
    return words.get(hint, getattr(hint, "__name__", "anything"))


def _inner_formats(hint: Any) -> list[Any]:
    hint = _bare(hint)
    if typing.is_typeddict(hint):
        return [hint]
    return [inner for each in get_args(hint) if each is not ... for inner in _inner_formats(each)]


def _bare(hint: Any) -> Any:
    """Return a hint without ``Annotated`` and ``NotRequired``."""
    while get_origin(hint) in (Annotated, NotRequired, Required):
        hint = get_args(hint)[0]
    return hint
