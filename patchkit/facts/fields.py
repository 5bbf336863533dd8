"""Typed access to one JSON object, collecting problems instead of stopping at the first."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from patchkit.errors import FactsError
from patchkit.facts.probe import MultiHop, Probe
from patchkit.facts.text import Problem, invalid

T = TypeVar("T")
_GUESSED = 20
_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
}


class Fields:
    """Reads the keys of one object; `problems` holds what was wrong with them so far."""

    def __init__(self, value: object, path: str = "", problems: list[Problem] | None = None):
        self.problems: list[Problem] = [] if problems is None else problems
        self._path = path
        self._object: Mapping[str, object] = value if isinstance(value, Mapping) else {}
        self._is_object = isinstance(value, Mapping)
        if not self._is_object:
            where = f'"{path.rstrip(".")}"' if path else "a fact"
            self._add(None, f"{where} must be a JSON object, found {kind_of(value)}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the object, in its order."""
        return tuple(self._object)

    def refuse_unknown(self, known: Sequence[str]) -> frozenset[str]:
        """Report keys outside `known`; returns the known keys they were probably meant to be."""
        absent = [key for key in known if key not in self._object]
        meant: set[str] = set()
        for key in self._object:
            if key not in known:
                # Beyond some, a file is not misspelt, and looking for what was meant takes long.
                few = len(self.problems) < _GUESSED
                near = difflib.get_close_matches(key, absent, n=3) if few else []
                near.sort(key=absent.index)  # `known` puts what every fact needs first
                hint = f'did you mean "{near[0]}"?' if near else f"known keys: {', '.join(known)}"
                meant.update(near[:1])
                self._add(key, f'unknown key "{key[:60]}"', hint)
        return frozenset(meant)

    def string(self, key: str) -> str:
        """A required string; "" where it is missing or of another type, which is reported."""
        if key in self._object:
            return self._typed(key, str, "")
        if self._is_object:
            self._add(key, f'"{self._path}{key}" is missing')
        return ""

    def optional_string(self, key: str) -> str | None:
        """A string that may be absent or null."""
        return None if self._object.get(key) is None else self._typed(key, str, "")

    def identifier(self, key: str) -> str:
        """A string or a whole number as a string, "" where absent."""
        value = self._object.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return "" if value is None else self._typed(key, str, "")

    def items(self, key: str) -> list[object]:
        """A list of anything, empty where absent or null."""
        empty: list[object] = []
        return empty if self._object.get(key) is None else self._typed(key, list, empty)

    def objects(self, key: str) -> Iterator[Fields]:
        """The objects of a list, reporting to the same list of problems."""
        for place, item in enumerate(self.items(key), 1):
            yield Fields(item, f"{self._path}{key}[{place}].", self.problems)

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty where absent or null."""
        items = self.items(key)
        for place, item in enumerate(items, 1):
            if not isinstance(item, str):
                message = f'item {place} of "{self._path}{key}" must be a string'
                self._add(key, f"{message}, found {kind_of(item)}")
        return tuple(item for item in items if isinstance(item, str))

    def value(self, key: str) -> object:
        """Whatever stands under `key`, None where absent."""
        return self._object.get(key)

    def inside(self, key: str) -> Fields:
        """The object under `key`, reporting to the same list."""
        return Fields(self._object.get(key), f"{self._path}{key}.", self.problems)

    def optional_inside(self, key: str) -> Fields:
        """As `inside`, with an empty object where the key is absent or null."""
        return Fields(self._object.get(key) or {}, f"{self._path}{key}.", self.problems)

    def probes(self, key: str, *, bare: bool = False) -> tuple[Probe, ...]:
        """A list of `{"prompt", "target"}`; with `bare` also strings, probes without a target."""

        def probe(fields: Fields) -> Probe:
            meant = fields.refuse_unknown(("prompt", "target", "aliases", "group"))
            prompt = "" if "prompt" in meant else fields.string("prompt")
            optional = bare or "target" in meant
            target = fields.optional_string("target") if optional else fields.string("target")
            aliases, group = fields.strings("aliases"), fields.optional_string("group")
            fields.check()
            return Probe(prompt, target, aliases, group)

        return tuple(self._each(key, probe, bare=bare))

    def multihops(self, key: str) -> tuple[MultiHop, ...]:
        """A list of `{"prompts", "target", "aliases", "needs"}`."""

        def multihop(fields: Fields) -> MultiHop:
            fields.refuse_unknown(("prompts", "target", "aliases", "needs"))
            lists = {name: fields.strings(name) for name in ("prompts", "aliases", "needs")}
            target = fields.string("target")
            fields.check()
            return MultiHop(target=target, **lists)

        return tuple(self._each(key, multihop))

    def _each(self, key: str, read: Callable[[Fields], T], *, bare: bool = False) -> Iterator[T]:
        """Read the objects of a list, saying of each problem in which item it is."""
        for place, item in enumerate(self.items(key), 1):
            value = {"prompt": item} if bare and isinstance(item, str) else item
            try:
                yield read(Fields(value, f"{key}[{place}]."))
            except FactsError as error:
                where = f'in item {place} of "{key}": '
                self.problems += [Problem(None, key, where + str(p)) for p in error.problems]

    def check(self) -> None:
        """Raise `FactsError` with every problem met so far."""
        if self.problems:
            raise invalid(*self.problems)

    def _typed(self, key: str, kind: type[T], default: T) -> T:
        value = self._object[key]
        if isinstance(value, kind):
            return value
        wanted = _KINDS[kind]
        self._add(key, f'"{self._path}{key}" must be {wanted}, found {kind_of(value)}')
        return default

    def _add(self, key: str | None, message: str, suggestion: str | None = None) -> None:
        self.problems.append(Problem(None, key, message, suggestion))


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    return _KINDS.get(type(value), "an object")
