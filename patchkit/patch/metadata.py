"""What a patch says about itself: canonical JSON in the header of its file.

`docs/format.md` is the specification. The bytes are canonical (one metadata, one serialisation)
and end with a seal, so that a changed bit is found without a copy of the file's digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import get_args

from patchkit.errors import FormatError
from patchkit.factors import Kind, Layout, Side
from patchkit.patch import fields
from patchkit.tensors.digests import canonical_json, json_digest
from patchkit.tensors.dtypes import EDITABLE

FORMAT = 1
MAX_TENSORS = 4096
"""Most tensors that one patch file may hold."""

_OPTIONAL_PREFIX = "x-"
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,512}")
_RESERVED = "patchkit.facts"
_MAX_AXIS = 2**31 - 1
_KEYS_OF: Mapping[Kind, frozenset[str]] = {
    "rotation": frozenset({"side"}),
    "rotation-blocks": frozenset({"side", "blocks"}),
    "additive": frozenset(),
    "additive-dense": frozenset(),
}
_KEYS = frozenset({
    "format", "base", "after", "tensors", "facts", "recipe", "method", "created_by", "leaves",
    "measured", "seal",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class FactorMeta:
    """One factor: its kind and rank, and `sha256` of its tensors' bytes.

    `side` is that of a rotation, None for a sum; `blocks` the number of blocks of a rotation that
    is stored in blocks.
    """

    kind: Kind
    rank: int
    sha256: str
    side: Side | None = None
    blocks: int | None = None

    def parts(self, d_out: int, d_in: int) -> dict[str, tuple[int, int]]:
        """Return the shapes of its tensors by their last name."""
        if self.kind == "additive":
            return {"f": (self.rank, d_in), "l": (d_out, self.rank)}
        if self.kind == "additive-dense":
            return {"d": (d_out, d_in)}
        size = d_in if self.side == "input" else d_out
        if self.blocks is not None:
            n = size // self.blocks
            return {"s": (self.blocks, n * (n - 1) // 2)}
        return {"x": (size, self.rank), "y": (size, self.rank)}


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """One edited tensor: how the base stores it, digest of its bytes there, ordered factors."""

    shape: tuple[int, int]
    dtype: str
    layout: Layout
    base_sha256: str
    factors: tuple[FactorMeta, ...]

    @property
    def d_out(self) -> int:
        """Length of the outputs."""
        return self.shape[0] if self.layout == "linear" else self.shape[1]

    @property
    def d_in(self) -> int:
        """Length of the inputs."""
        return self.shape[1] if self.layout == "linear" else self.shape[0]


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
            "tensors": {name: _tensor_json(tensor) for name, tensor in self.tensors.items()},
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
    count = fields.integer(found["count"], "facts.count", low=1, high=_MAX_AXIS)
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
    tensors = {check_tensor_name(name): _tensor(item, name) for name, item in found.items()}
    parts = sum(len(f.parts(1, 1)) for tensor in tensors.values() for f in tensor.factors)
    if parts > MAX_TENSORS - 1:
        raise FormatError(f"the patch holds {parts} tensors; {MAX_TENSORS - 1} are allowed")
    return tensors


def _tensor(value: object, name: str) -> TensorMeta:
    keys = frozenset({"shape", "dtype", "layout", "base_sha256", "factors"})
    found = fields.record(value, name, keys)
    shape = fields.array(found["shape"], f"{name}.shape", _axis)
    if len(shape) != 2:
        raise FormatError(f"{name}.shape should have two sizes, not {len(shape)}")
    tensor = TensorMeta(
        shape=(shape[0], shape[1]),
        dtype=fields.one_of(found["dtype"], f"{name}.dtype", EDITABLE),
        layout=fields.one_of(found["layout"], f"{name}.layout", get_args(Layout)),
        base_sha256=fields.digest(found["base_sha256"], f"{name}.base_sha256"),
        factors=fields.array(found["factors"], f"{name}.factors", _factor),
    )
    if not tensor.factors:
        raise FormatError(f"{name} has no factors")
    for index, factor in enumerate(tensor.factors):
        _check_rank(factor, tensor, f"{name}.factors[{index}]")
    return tensor


def _axis(value: object, where: str) -> int:
    return fields.integer(value, where, low=1, high=_MAX_AXIS)


def _factor(value: object, where: str) -> FactorMeta:
    kind: Kind
    kind = fields.one_of(fields.mapping(value, where).get("kind"), f"{where}.kind", get_args(Kind))
    found = fields.record(value, where, frozenset({"kind", "rank", "sha256"}) | _KEYS_OF[kind])
    return FactorMeta(
        kind=kind,
        rank=_axis(found["rank"], f"{where}.rank"),
        sha256=fields.digest(found["sha256"], f"{where}.sha256"),
        side=fields.one_of(found["side"], f"{where}.side", get_args(Side))
        if "side" in found
        else None,
        blocks=_axis(found["blocks"], f"{where}.blocks") if "blocks" in found else None,
    )


def _check_rank(factor: FactorMeta, tensor: TensorMeta, where: str) -> None:
    """FormatError for a rank, or blocks, that a matrix of this shape cannot have."""
    size = tensor.d_in if factor.side == "input" else tensor.d_out
    if factor.blocks is not None and (size % factor.blocks or size < 2 * factor.blocks):
        raise FormatError(
            f"{where} has {factor.blocks} blocks, and a side of {size} is not as many equal blocks "
            "of at least 2"
        )
    if factor.kind in ("rotation", "additive"):
        limit = size // 2 if factor.kind == "rotation" else min(tensor.shape)
        if factor.rank > limit:
            raise FormatError(
                f"{where} has rank {factor.rank}; {limit} is the most its shape allows"
            )
        return
    blocks = factor.blocks
    rank = min(tensor.shape) if blocks is None else blocks * (size // blocks // 2)
    if factor.rank != rank:
        raise FormatError(f"{where} has rank {factor.rank}; {rank} is that of its shape")


def _tensor_json(tensor: TensorMeta) -> dict[str, object]:
    factors = [
        {key: value for key, value in asdict(factor).items() if value is not None}
        for factor in tensor.factors
    ]
    return {
        "shape": tensor.shape,
        "dtype": tensor.dtype,
        "layout": tensor.layout,
        "base_sha256": tensor.base_sha256,
        "factors": factors,
    }
