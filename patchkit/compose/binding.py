"""Which base a composition belongs to, and what must come before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import NoReturn

from patchkit.compose.parts import Part
from patchkit.errors import BaseMismatch
from patchkit.patch.metadata import BaseMeta, Leaf, TensorMeta
from patchkit.patch.order import Place, check_order


def common_base(parts: Sequence[Part], *, allow_other_base: bool) -> BaseMeta:
    """Return the base of all parts, each of its fields from the first part that knows it.

    BaseMismatch where two parts know different values, unless that is allowed.
    """
    known: dict[str, tuple[str, str]] = {}
    for part in parts:
        for field, value in asdict(part.patch.metadata.base).items():
            if value is None:
                continue
            first, name = known.setdefault(field, (value, part.name))
            if first != value and not allow_other_base:
                what = field.removesuffix("_digest")
                _refuse(f"the bases of {name} and {part.name} differ in their {what}", first, value)
    return BaseMeta(**{field: value for field, (value, _) in known.items()})


def described(parts: Sequence[Part], *, allow_other_base: bool) -> dict[str, TensorMeta]:
    """Return what the first part that edits each tensor says of it.

    BaseMismatch where others describe another shape, type or layout or, unless that is allowed,
    other weights.
    """
    found: dict[str, tuple[TensorMeta, str]] = {}
    for part in parts:
        for name, meta in part.patch.metadata.tensors.items():
            first, by = found.setdefault(name, (meta, part.name))
            where = f"{by} and {part.name} were made for different weights of {name}"
            stored = [(m.shape, m.dtype, m.layout) for m in (first, meta)]
            if stored[0] != stored[1]:
                _refuse(where, *(f"{m.layout} {list(m.shape)} {m.dtype}" for m in (first, meta)))
            if first.base_sha256 != meta.base_sha256 and not allow_other_base:
                _refuse(where, first.base_sha256, meta.base_sha256)
    return {name: meta for name, (meta, _) in found.items()}


def check_predecessors(parts: Sequence[Part], digests: Sequence[str]) -> None:
    """BaseMismatch unless each part finds the patches it was made on before it, in their order."""
    pairs = zip(parts, digests, strict=True)
    check_order([Place(part.name, digest, part.patch.metadata) for part, digest in pairs])


def predecessors(parts: Sequence[Part], leaves: Sequence[Leaf]) -> tuple[str, ...]:
    """Return the patches that must come before the composition: those it does not hold itself."""
    inside = {leaf.digest for leaf in leaves}
    needed = (digest for part in parts for digest in part.patch.metadata.after)
    return tuple(dict.fromkeys(digest for digest in needed if digest not in inside))


def _refuse(message: str, expected: str, found: str) -> NoReturn:
    raise BaseMismatch(
        message,
        hint="compose patches of one base; patchkit inspect PATCH shows it",
        details={"expected": expected, "found": found},
    )
