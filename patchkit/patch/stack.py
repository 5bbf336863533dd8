"""Several patches as one: what they do together to each tensor, and whether it is theirs to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from patchkit.errors import BaseMismatch
from patchkit.factors.kinds import Factor
from patchkit.patch.metadata import TensorMeta
from patchkit.patch.order import Place, check_order
from patchkit.patch.parts import tensor_bytes
from patchkit.patch.patch import Patch
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.layout import Site
from patchkit.tensors.torch_dtypes import torch_dtype


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """One tensor: what the first patch says of it, and the factors of all patches in order."""

    meta: TensorMeta
    factors: tuple[Factor, ...]


def stacked(patches: Patch | Sequence[Patch]) -> dict[str, Stacked]:
    """Return the factors of all patches by tensor, in order.

    BaseMismatch when their bases differ, or a predecessor is missing or out of order.
    """
    stack = (patches,) if isinstance(patches, Patch) else tuple(patches)
    _check_order(stack)
    joined: dict[str, Stacked] = {}
    for patch in stack:
        for name, meta in patch.metadata.tensors.items():
            first = joined.get(name, Stacked(meta, ()))
            if first.meta.base_sha256 != meta.base_sha256:
                raise _mismatch(
                    f"the patches were made for different weights of {name}",
                    first.meta.base_sha256,
                    meta.base_sha256,
                )
            joined[name] = Stacked(first.meta, first.factors + patch.factors[name])
    return joined


def check_site(site: Site, meta: TensorMeta) -> None:
    """BaseMismatch unless a module's weight has the shape and layout of a patched tensor."""
    if (site.shape, site.layout) != (meta.shape, meta.layout):
        raise _mismatch(
            f"{site.tensor} is {site.layout} {site.shape} in the model and {meta.layout} "
            f"{meta.shape} in the patch",
            f"{meta.layout} {meta.shape}",
            f"{site.layout} {site.shape}",
        )


def weight_digest(weight: Tensor, meta: TensorMeta) -> str:
    """Digest of a weight cast to the type in which the base is stored."""
    return bytes_digest(tensor_bytes(weight.to(torch_dtype(meta.dtype))))


def check_digest(name: str, meta: TensorMeta, found: str) -> None:
    """BaseMismatch unless `found` is the digest of the tensor that a patch was made for."""
    if found != meta.base_sha256:
        raise _mismatch(
            f"the patch was made for other weights: {name} has digest {found[:15]}…, and "
            f"{meta.base_sha256[:15]}… is recorded",
            meta.base_sha256,
            found,
        )


def _check_order(stack: Sequence[Patch]) -> None:
    """Serialising a patch for its digest is not free, and only a predecessor makes it needed."""
    if any(patch.metadata.after for patch in stack):
        names = [f"patch {number} of {len(stack)}" for number in range(1, len(stack) + 1)]
        check_order([Place(n, p.digest, p.metadata) for n, p in zip(names, stack, strict=True)])


def _mismatch(message: str, expected: str, found: str) -> BaseMismatch:
    return BaseMismatch(
        message,
        hint="load the base the patch was made for, in the type it is stored in, unpatched",
        details={"expected": expected, "found": found},
    )
