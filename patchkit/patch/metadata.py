"""What a patch says about itself: canonical JSON in the header of its file.

`docs/format.md` is the specification. The bytes are canonical (one metadata, one serialisation)
and end with a seal, so that a changed bit is found without a copy of the file's digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from patchkit.errors import FormatError
from patchkit.patch import fields
from patchkit.patch.tensor_meta import MAX_AXIS, FactorMeta, TensorMeta, read_tensor, tensor_json
from patchkit.tensors.digests import canonical_json, json_digest

__all__ = [
    "FORMAT",
    "MAX_TENSORS",
    "BaseMeta",
    "FactorMeta",
    "FactsMeta",
    "Leaf",
    "PatchMetadata",
    "TensorMeta",
    "check_tensor_name",
]

FORMAT = 1
MAX_TENSORS = 4096
"""Most tensors that one patch file may hold."""

_OPTIONAL_PREFIX = "x-"
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,512}")
_RESERVED = "patchkit.facts"
_KEYS = frozenset({
    "format", "base", "after", "tensors", "facts", "recipe", "method", "created_by", "leaves",
    "measured", "seal",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class BaseMeta:
    """The checkpoint a patch was made for; what is not known is None."""

    repo: str | None = None
    revision: str | None = None
    config_digest: str | None = None


@dataclass(frozen=True, slots=True)
class FactsMeta:
    """How many facts a patch writes, and the digest of their JSONL."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """One patch that a composed patch consists of."""

    digest: str
    strength: float = 1.0
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class PatchMetadata:
    """Everything but the numbers.

    `after` names the patches that must be applied before this one, `leaves` those it was composed
    of (empty for a patch that was edited). `recipe` and `measured` are free JSON objects;
    `extra` holds optional keys of later versions, which begin with `x-`.
    """

    base: BaseMeta
    tensors: Mapping[str, TensorMeta]
    method: str
    created_by: str
    facts: FactsMeta | None = None
    recipe: Mapping[str, object] = field(default_factory=dict)
    measured: Mapping[str, object] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def format(self) -> int:
        """Version of the file format."""
        return FORMAT

    def to_json(self) -> bytes:
        """Return the canonical bytes; FormatError for a value that JSON cannot hold."""
        body: dict[str, object] = {
            "format": FORMAT,
            "base": asdict(self.base),
            "after": self.after,
            "tensors": {name: tensor_json(tensor) for name, tensor in self.tensors.items()},
            "facts": None if self.facts is None else asdict(self.facts),
            "recipe": self.recipe,
            "method": self.method,
            "created_by": self.created_by,
            "leaves": [asdict(leaf) for leaf in self.leaves],
            "measured": self.measured,
            **self.extra,
        }
        try:
            return canonical_json(body | {"seal": json_digest(body)})
        except (TypeError, ValueError, RecursionError) as error:
            raise FormatError(f"the metadata cannot be written as JSON: {error}") from error

    @classmethod
    def from_json(cls, data: bytes) -> PatchMetadata:
        """Read metadata strictly; FormatError unless serialising it again gives the same bytes."""
        found = fields.parse_object(data)
        _check_version(found.get("format"))
        metadata = _metadata(found)
        if metadata.to_json() != data:
            _explain_difference(found, data)
        return metadata


def check_tensor_name(name: str) -> str:
    """Return a tensor name that is safe to print and to use; FormatError otherwise."""
    if not _NAME.fullmatch(name) or name == _RESERVED:
        raise FormatError(f"{name!r} cannot be the name of an edited tensor")
    return name


def _check_version(version: object) -> None:
    if type(version) is not int or version < 1:
        raise FormatError(f"the metadata's format should be a number from 1, not {version!r:.80}")
    if version > FORMAT:
        raise FormatError(
            f"the patch is of format {version}, and this patchkit reads up to format {FORMAT}",
            hint="pip install --upgrade patchkit-lm",
            details={"found": version, "supported": FORMAT},
        )


def _explain_difference(found: dict[str, object], data: bytes) -> None:
    if canonical_json(found) != data:
        raise FormatError("the metadata is not in canonical form")
    raise FormatError("the metadata does not match its seal: the file was changed or damaged")


def _metadata(found: dict[str, object]) -> PatchMetadata:
    extra = {key: value for key, value in found.items() if key.startswith(_OPTIONAL_PREFIX)}
    known = {key: value for key, value in found.items() if key not in extra}
    known = fields.record(known, "metadata", _KEYS)
    fields.digest(known["seal"], "seal")
    return PatchMetadata(
        base=_base(known["base"]),
        tensors=_tensors(known["tensors"]),
        method=fields.text(known["method"], "method"),
        created_by=fields.text(known["created_by"], "created_by"),
        facts=_facts(known["facts"]),
        recipe=fields.mapping(known["recipe"], "recipe"),
        measured=fields.mapping(known["measured"], "measured"),
        after=fields.array(known["after"], "after", fields.digest),
        leaves=fields.array(known["leaves"], "leaves", _leaf),
        extra=extra,
    )


def _base(value: object) -> BaseMeta:
    found = fields.record(value, "base", frozenset({"repo", "revision", "config_digest"}))
    return BaseMeta(
        repo=fields.text_or_null(found["repo"], "base.repo"),
        revision=fields.text_or_null(found["revision"], "base.revision"),
        config_digest=fields.digest_or_null(found["config_digest"], "base.config_digest"),
    )


def _facts(value: object) -> FactsMeta | None:
    if value is None:
        return None
    found = fields.record(value, "facts", frozenset({"count", "digest"}))
    count = fields.integer(found["count"], "facts.count", low=1, high=MAX_AXIS)
    return FactsMeta(count, fields.digest(found["digest"], "facts.digest"))


def _leaf(value: object, where: str) -> Leaf:
    found = fields.record(value, where, frozenset({"digest", "strength", "inverted"}))
    return Leaf(
        digest=fields.digest(found["digest"], f"{where}.digest"),
        strength=fields.number(found["strength"], f"{where}.strength"),
        inverted=fields.boolean(found["inverted"], f"{where}.inverted"),
    )


def _tensors(value: object) -> dict[str, TensorMeta]:
    found = fields.mapping(value, "tensors")
    tensors = {check_tensor_name(name): read_tensor(item, name) for name, item in found.items()}
    parts = sum(len(f.parts(1, 1)) for tensor in tensors.values() for f in tensor.factors)
    if parts > MAX_TENSORS - 1:
        raise FormatError(f"the patch holds {parts} tensors; {MAX_TENSORS - 1} are allowed")
    return tensors
