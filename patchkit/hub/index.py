"""`patchkit.index.json`: which patches a repository holds, in order, and for which base.

What a repository says of its patches is compared with the files themselves: an index is written
from them and never trusted before them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from patchkit.errors import FormatError
from patchkit.hub.refs import check_path
from patchkit.patch import fields
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.reader import PatchInfo

INDEX = "patchkit.index.json"
SCHEMA = "patchkit.index/1"
MAX_BYTES = 4_000_000
_ENTRY = frozenset({"path", "digest", "bytes", "base", "after", "facts"})
_MAX = 1 << 53
_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Listed:
    """One patch of a repository: `after` names those to apply before, `facts` counts its facts.

    `withdrawn` is the reason why nobody should apply it any more, None for a good one.
    """

    path: str
    digest: str
    bytes: int
    base: BaseMeta
    after: tuple[str, ...]
    facts: int
    withdrawn: str | None = None

    @classmethod
    def of(cls, path: str, info: PatchInfo) -> Listed:
        """What the index says of a patch file."""
        meta = info.metadata
        count = meta.facts.count if meta.facts else 0
        return cls(path, info.digest, info.bytes, meta.base, meta.after, count)


def read_index(data: bytes, where: str = INDEX) -> tuple[Listed, ...]:
    """Read an index strictly; FormatError with the place of what is wrong."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{where} has {len(data)} bytes; {MAX_BYTES} are allowed")
    try:
        found = fields.record(fields.parse_object(data), "index", frozenset({"schema", "patches"}))
        if found["schema"] != SCHEMA:
            raise FormatError(f"schema is {found['schema']!r:.80}, and {SCHEMA} is understood")
        listed = fields.array(found["patches"], "patches", _listed)
    except FormatError as error:
        raise FormatError(f"{where} cannot be used: {error.message}") from error
    if len({each.path for each in listed}) != len(listed):
        raise FormatError(f"{where} lists a path twice")
    return listed


def write_index(listed: Sequence[Listed]) -> bytes:
    """The bytes of an index; the same patches in the same order give the same bytes."""
    body = {"schema": SCHEMA, "patches": [_entry(each) for each in listed]}
    return (json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def merged(known: Sequence[Listed], new: Sequence[Listed]) -> tuple[Listed, ...]:
    """Known patches with new ones: the same path keeps its place, others follow.

    A withdrawn patch stays so until its content changes.
    """
    table = {each.path: each for each in known}
    for each in new:
        old = table.get(each.path)
        withdrawn = old.withdrawn if old and old.digest == each.digest else None
        table[each.path] = replace(each, withdrawn=withdrawn)
    return tuple(table.values())


def check_reason(text: str, where: str = "withdrawn") -> str:
    """Return a reason that fits on a line; FormatError for an empty or a long one."""
    fields.check_plain(text, where)
    if not text.strip() or len(text) > _MAX_REASON:
        raise FormatError(f"{where} should be a sentence of up to {_MAX_REASON} characters")
    return text


def _entry(listed: Listed) -> dict[str, object]:
    entry = asdict(listed)
    if listed.withdrawn is None:
        del entry["withdrawn"]
    return entry


def _listed(value: object, where: str) -> Listed:
    found = dict(fields.mapping(value, where))
    withdrawn = fields.text_or_null(found.pop("withdrawn", None), f"{where}.withdrawn")
    found = fields.record(found, where, _ENTRY)
    base = fields.record(
        found["base"], f"{where}.base", frozenset({"repo", "revision", "config_digest"})
    )
    return Listed(
        path=check_path(fields.text(found["path"], f"{where}.path")),
        digest=fields.digest(found["digest"], f"{where}.digest"),
        bytes=fields.integer(found["bytes"], f"{where}.bytes", low=1, high=_MAX),
        base=BaseMeta(
            fields.text_or_null(base["repo"], f"{where}.base.repo"),
            fields.text_or_null(base["revision"], f"{where}.base.revision"),
            fields.digest_or_null(base["config_digest"], f"{where}.base.config_digest"),
        ),
        after=fields.array(found["after"], f"{where}.after", fields.digest),
        facts=fields.integer(found["facts"], f"{where}.facts", low=0, high=_MAX),
        withdrawn=withdrawn if withdrawn is None else check_reason(withdrawn, f"{where}.withdrawn"),
    )
