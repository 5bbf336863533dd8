"""What the metadata of a patch says of one edited tensor and its factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import get_args

from patchkit.errors import FormatError
from patchkit.factors import Kind, Layout, Side
from patchkit.patch import fields
from patchkit.tensors.dtypes import EDITABLE

MAX_AXIS = 2**31 - 1
"""Longest side of a matrix."""

_KEYS_OF: Mapping[Kind, frozenset[str]] = {
    "rotation": frozenset({"side"}),
    "rotation-blocks": frozenset({"side", "blocks"}),
    "additive": frozenset(),
    "additive-dense": frozenset(),
}


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


def read_tensor(value: object, name: str) -> TensorMeta:
    """Read one tensor's entry strictly; FormatError names it."""
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


def tensor_json(tensor: TensorMeta) -> dict[str, object]:
    """Return the entry of one tensor as plain data."""
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


def _axis(value: object, where: str) -> int:
    return fields.integer(value, where, low=1, high=MAX_AXIS)


def _factor(value: object, where: str) -> FactorMeta:
    kind: Kind
    kind = fields.one_of(fields.mapping(value, where).get("kind"), f"{where}.kind", get_args(Kind))
    found = fields.record(value, where, frozenset({"kind", "rank", "sha256"}) | _KEYS_OF[kind])
    side = (
        fields.one_of(found["side"], f"{where}.side", get_args(Side)) if "side" in found else None
    )
    blocks = _axis(found["blocks"], f"{where}.blocks") if "blocks" in found else None
    digest = fields.digest(found["sha256"], f"{where}.sha256")
    return FactorMeta(kind, _axis(found["rank"], f"{where}.rank"), digest, side, blocks)


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
