"""Patches on a model in memory, and exactly off again.

    handle = apply(model, patch)      # or: with applied(model, patch): ...
    handle.revert()                   # the very bits that were there before

The edited weights are those that `patchkit apply` would have written: fp64 arithmetic, one cast to
the type in which the base is stored, then the type of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from patchkit.errors import InvariantError, UnsupportedModel
from patchkit.factors.action import dense
from patchkit.patch.metadata import TensorMeta
from patchkit.patch.parts import tensor_bytes
from patchkit.patch.patch import Patch
from patchkit.patch.stack import check_digest, check_site, stacked, weight_digest
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.layout import Site, locate
from patchkit.tensors.torch_dtypes import torch_dtype


@dataclass(frozen=True, slots=True, eq=False)
class _Swap:
    """One weight: the parameter, what it held before, and the digest of what it holds patched."""

    name: str
    parameter: nn.Parameter
    before: Tensor
    after: str

    def stands(self) -> bool:
        """Whether the parameter still holds what was put there, perhaps on another device."""
        return bytes_digest(tensor_bytes(self.parameter)) == self.after


class Handle:
    """Patches that are applied to a model; `revert` takes them off.

    Handles of one model are a stack: the last applied is reverted first. A weight that anything
    else has changed in between, in place or not, is noticed.
    """

    def __init__(self, swaps: Sequence[_Swap]) -> None:
        """Take what `apply` has swapped in."""
        self._swaps: tuple[_Swap, ...] | None = tuple(swaps)

    @property
    def active(self) -> bool:
        """Whether the patches are still on the model."""
        return self._swaps is not None

    @property
    def tensors(self) -> tuple[str, ...]:
        """Checkpoint names of the edited tensors; none once reverted."""
        return tuple(swap.name for swap in self._swaps or ())

    def revert(self) -> None:
        """Put the original weights back, bit for bit; a second call does nothing.

        Raises InvariantError, and changes nothing, when a weight no longer is what this handle
        put there.
        """
        for swap in self._swaps or ():
            if not swap.stands():
                raise InvariantError(
                    f"{swap.name} was changed after this patch was applied, so taking the patch "
                    "off would lose that change",
                    hint="revert the patches that were applied later first",
                    details={"tensor": swap.name},
                )
        swaps = self._swaps or ()
        _put([(swap.parameter, swap.before.to(swap.parameter.device)) for swap in swaps])
        self._swaps = None


def apply(
    model: PreTrainedModel,
    patches: Patch | Sequence[Patch],
    *,
    checkpoint: Checkpoint | None = None,
    allow_other_base: bool = False,
) -> Handle:
    """Change the weights of `model` as the patches say, first to last, rounding once.

    Patches made on top of others are given together with those. The base is recognised by the
    digests of `checkpoint`'s tensors, or without it by the model's own weights cast to the type in
    which the base is stored. Raises BaseMismatch (other weights, shapes, or a patch that is
    missing before another), UnsupportedModel, and InvariantError (a value would not be finite);
    the model is then as it was.
    """
    joined = stacked(patches)
    found = locate(model, joined)
    places: list[tuple[nn.Parameter, Tensor]] = []
    for name, stack in joined.items():
        meta = stack.meta
        parameter = _parameter(model, found[name], meta)
        if not allow_other_base:
            _check_base(name, meta, parameter, checkpoint)
        stored = dense(parameter.detach(), stack.factors, meta.layout).to(torch_dtype(meta.dtype))
        _check_finite(name, new := stored.to(parameter.dtype))
        places.append((parameter, new))
    swaps = [
        _Swap(name, parameter, parameter.data, bytes_digest(tensor_bytes(new)))
        for name, (parameter, new) in zip(joined, places, strict=True)
    ]
    _put(places)
    return Handle(swaps)


def _put(places: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    """Give parameters other data: all of them, or none if anything comes between."""
    before = [parameter.data for parameter, _ in places]
    try:
        for parameter, data in places:
            parameter.data = data
    except BaseException:
        for (parameter, _), data in zip(places, before, strict=True):
            parameter.data = data
        raise


@contextmanager
def applied(
    model: PreTrainedModel,
    patches: Patch | Sequence[Patch],
    *,
    checkpoint: Checkpoint | None = None,
    allow_other_base: bool = False,
) -> Iterator[Handle]:
    """Apply patches for the length of a `with` block; arguments and errors as in `apply`."""
    handle = apply(model, patches, checkpoint=checkpoint, allow_other_base=allow_other_base)
    try:
        yield handle
    finally:
        handle.revert()


def _parameter(model: PreTrainedModel, site: Site, meta: TensorMeta) -> nn.Parameter:
    check_site(site, meta)
    weight = model.get_submodule(site.module).weight
    if not isinstance(weight, nn.Parameter) or weight.is_meta:
        raise UnsupportedModel(
            f"the weights of {site.module} are not in memory",
            hint="load the model without offloading",
        )
    return weight


def _check_finite(name: str, weight: Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise InvariantError(
            f"{name} would hold values that are not finite as {weight.dtype}",
            hint="load the model in the type in which the base is stored, or in float32",
            details={"tensor": name},
        )


def _check_base(
    name: str, meta: TensorMeta, parameter: nn.Parameter, checkpoint: Checkpoint | None
) -> None:
    found = checkpoint.digest(name) if checkpoint else weight_digest(parameter, meta)
    check_digest(name, meta, found)
