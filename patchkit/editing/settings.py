"""Plain data into a frozen dataclass of settings, with one sentence for whatever is wrong."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from patchkit.errors import RecipeError

T = TypeVar("T")


def build(kind: type[T], given: Mapping[str, object], where: str) -> T:
    """Return `kind(**given)` once every name is a field and every value of its type.

    `where` begins the sentence. Whole numbers are numbers, lists become tuples, tables become
    nested dataclasses. Raises RecipeError for an unknown name (with the nearest ones) and for a
    value of another type; `kind` itself refuses values that it cannot use.
    """
    hints = get_type_hints(kind)
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise RecipeError(
                f"{where} has the unknown setting {name!r}", hint=nearest(name, known)
            )
    return kind(**{name: _value(hints[name], value, where, name) for name, value in given.items()})


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the names closest to `name`, or all there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    return "did you mean " + " or ".join(close) + "?" if close else "there are: " + ", ".join(names)


def at_least(settings: Any, limit: float, *names: str) -> None:
    """RecipeError unless each of the named settings is `limit` or more."""
    for name in names:
        if not getattr(settings, name) >= limit:
            raise RecipeError(f"{name} must be at least {limit:g}, got {getattr(settings, name)}")


def at_most(settings: Any, limit: float, *names: str) -> None:
    """RecipeError unless each of the named settings is `limit` or less."""
    for name in names:
        if not getattr(settings, name) <= limit:
            raise RecipeError(f"{name} must be at most {limit:g}, got {getattr(settings, name)}")


def above(settings: Any, limit: float, *names: str) -> None:
    """RecipeError unless each of the named settings is more than `limit`."""
    for name in names:
        if not getattr(settings, name) > limit:
            raise RecipeError(f"{name} must be above {limit:g}, got {getattr(settings, name)}")


def one_of(settings: Any, name: str, choices: Iterable[str]) -> None:
    """RecipeError unless the named setting is one of `choices`."""
    allowed = tuple(choices)
    if getattr(settings, name) not in allowed:
        raise RecipeError(
            f"{name} must be one of {', '.join(allowed)}, got {getattr(settings, name)!r}"
        )


def _value(kind: Any, value: object, where: str, name: str) -> object:
    found = _converted(kind, value, where, name)
    if found is _WRONG:
        raise RecipeError(f"{where} gives {name} the value {value!r}, which is of another type")
    return found


_WRONG = object()


def _converted(kind: Any, value: object, where: str, name: str) -> object:
    """Return `value` as `kind`, or _WRONG."""
    if kind is Any:
        return value
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        found = (_converted(choice, value, where, name) for choice in get_args(kind))
        return next((good for good in found if good is not _WRONG), _WRONG)
    if origin is Literal:
        return value if value in get_args(kind) else _WRONG
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _WRONG
        items = [_converted(get_args(kind)[0], item, where, name) for item in value]
        return _WRONG if _WRONG in items else tuple(items)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        return build(kind, value, f"{where}, {name},")
    if kind is float and type(value) is int:
        return float(value)
    return value if type(value) is kind else _WRONG
