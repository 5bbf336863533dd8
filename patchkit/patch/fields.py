"""Reading JSON that others wrote: every value has the type it should have, or one sentence says so.

Each function takes the value and `where`, the dotted path to it, and raises FormatError.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import NoReturn, TypeVar

from patchkit.errors import FormatError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_DEPTH = 16
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
T = TypeVar("T")


def parse_object(data: bytes) -> dict[str, object]:
    """Parse a JSON object without repeated keys, non-finite numbers or unprintable characters."""
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except RecursionError:
        raise FormatError("the metadata is nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"the metadata is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError("the metadata is not a JSON object")
    check_plain(value, "metadata")
    return value


def check_plain(value: object, where: str, depth: int = 0) -> None:
    """FormatError if a JSON value is nested too deeply or holds text that cannot be printed."""
    if depth > _MAX_DEPTH:
        raise FormatError(f"{where} is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_printable(value, where)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_printable(key, where)
            check_plain(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, where, depth + 1)


def text(value: object, where: str) -> str:
    """Return a text."""
    return value if isinstance(value, str) else _wrong(value, where, "a text")


def text_or_null(value: object, where: str) -> str | None:
    """Return a text or None."""
    return None if value is None else text(value, where)


def digest(value: object, where: str) -> str:
    """Return `sha256:` and 64 lower-case hexadecimal digits."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        _wrong(value, where, "sha256: and 64 hexadecimal digits")
    return value


def digest_or_null(value: object, where: str) -> str | None:
    """Return a digest or None."""
    return None if value is None else digest(value, where)


def integer(value: object, where: str, *, low: int, high: int) -> int:
    """Return an integer within [low, high]."""
    if type(value) is not int or not low <= value <= high:
        _wrong(value, where, f"an integer from {low} to {high}")
    return value


def number(value: object, where: str) -> float:
    """Return a number written with a decimal point or exponent."""
    return value if type(value) is float else _wrong(value, where, "a decimal number")


def boolean(value: object, where: str) -> bool:
    """Return true or false."""
    return value if isinstance(value, bool) else _wrong(value, where, "true or false")


def one_of(value: object, where: str, choices: Sequence[T]) -> T:
    """Return the one of `choices` that the value is."""
    for choice in choices:
        if value == choice:
            return choice
    return _wrong(value, where, " or ".join(repr(choice) for choice in choices))


def array(value: object, where: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    """Return a list whose items `read` accepts."""
    if not isinstance(value, list):
        _wrong(value, where, "a list")
    return tuple(read(item, f"{where}[{index}]") for index, item in enumerate(value))


def mapping(value: object, where: str) -> dict[str, object]:
    """Return a JSON object with any keys."""
    return value if isinstance(value, dict) else _wrong(value, where, "an object")


def record(value: object, where: str, keys: frozenset[str]) -> dict[str, object]:
    """Return a JSON object with exactly these keys."""
    fields = mapping(value, where)
    for key in sorted(keys - fields.keys()):
        raise FormatError(f"{where} lacks the key {key!r}")
    for key in sorted(fields.keys() - keys):
        raise FormatError(f"{where} has the key {key!r}, which this version does not understand")
    return fields


def _wrong(value: object, where: str, wanted: str) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    raise FormatError(f"{where} should be {wanted}, not {shown}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields


def _refuse(literal: str) -> object:
    raise ValueError(f"{literal} is not a number")


def _finite(literal: str) -> float:
    value = float(literal)
    if not isfinite(value):
        raise ValueError(f"{literal} is too large for a number")
    return value


def _check_printable(value: str, where: str) -> None:
    for character in value:
        if unicodedata.category(character) in _UNPRINTABLE:
            raise FormatError(f"{where!r} holds the control character U+{ord(character):04X}")
