"""Attaching patches to a model, and what can be done while they are attached."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from transformers import PreTrainedModel

from patchkit.errors import BaseMismatch, InvariantError
from patchkit.factors.lowrank import Change, LowRank, Seen
from patchkit.patch.metadata import TensorMeta
from patchkit.patch.patch import Patch
from patchkit.patch.stack import Stacked, check_digest, check_site, stacked, weight_digest
from patchkit.runtime.carrier import Carrier
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import Site, locate

P = ParamSpec("P")
T = TypeVar("T")


def _without_gradients(function: Callable[P, T]) -> Callable[P, T]:
    """Compute buffers that are no inference tensors: those could not be overwritten later."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    return run


@dataclass(slots=True, eq=False)
class _Slot:
    """One attached tensor: where, for which base, and what any strength is computed from."""

    meta: TensorMeta
    carrier: Carrier
    change: Change
    seen: Seen

    def at(self, strength: float) -> LowRank:
        return self.change.at(self.seen, strength)


class Attachment:
    """Patches that run beside the weights of a model, until `detach`."""

    def __init__(self, slots: dict[str, _Slot], strength: float, any_base: bool) -> None:
        """Take what `attach` has put on the modules."""
        self._slots: dict[str, _Slot] | None = slots
        self._strength = strength
        self._any_base = any_base

    @property
    def active(self) -> bool:
        """Whether the patches are still attached."""
        return self._slots is not None

    @property
    def tensors(self) -> tuple[str, ...]:
        """Checkpoint names of the tensors that are attached to; none once detached."""
        return tuple(self._slots or ())

    @property
    def strength(self) -> float:
        """Factor on the generators of rotations and on additive factors; 1 as written."""
        return self._strength

    @_without_gradients
    def set_strength(self, strength: float) -> None:
        """Give every factor another strength: 0 is the base to the last bit, −1 each inverse.

        Small matrices only, overwritten in place, so that nothing recompiles. Raises
        InvariantError, and changes nothing, for a strength that no rotation may have.
        """
        slots = self._standing()
        _check_strength(strength)
        lows = [slot.at(strength) for slot in slots.values()]
        self._load(slots, lows, strength)

    @_without_gradients
    def swap(self, patches: Patch | Sequence[Patch], *, strength: float = 1.0) -> None:
        """Run other patches of the same base instead, overwriting U and V in place.

        Tensors that they leave alone get the base's answers. Raises BaseMismatch for patches of
        another base, or of tensors that are not attached, and InvariantError where they need a
        higher rank than the first ones; what was attached then goes on running.
        """
        slots = self._standing()
        _check_strength(strength)
        joined = stacked(patches)
        self._check_swap(slots, joined)
        factors = {name: stack.factors for name, stack in joined.items()}
        new = {
            name: _Slot(slot.meta, slot.carrier, *slot.carrier.change(factors.get(name, ())))
            for name, slot in slots.items()
        }
        self._load(new, [slot.at(strength) for slot in new.values()], strength)
        self._slots = new

    def detach(self) -> None:
        """Leave every module as it was; a second call does nothing.

        Raises InvariantError, and changes nothing, when something else replaced a module's forward
        after this patch was attached.
        """
        if self._slots is not None:
            for slot in self._standing().values():
                slot.carrier.remove()
            self._slots = None

    def _standing(self) -> dict[str, _Slot]:
        if self._slots is None:
            raise InvariantError("the patch is no longer attached", hint="attach it again")
        for name, slot in self._slots.items():
            if not slot.carrier.stands:
                raise InvariantError(
                    f"the forward of {slot.carrier.site.module} was replaced after a patch was "
                    "attached to it",
                    hint="take off first what was put on later",
                    details={"tensor": name},
                )
        return self._slots

    def _check_swap(self, slots: dict[str, _Slot], joined: dict[str, Stacked]) -> None:
        for name, stack in joined.items():
            if name not in slots:
                raise BaseMismatch(
                    f"the patch edits {name}, and only {', '.join(slots)} can be swapped",
                    hint="detach, and attach the new patch instead",
                    details={"expected": list(slots), "found": name},
                )
            check_site(slots[name].carrier.site, stack.meta)
            if not self._any_base:
                check_digest(name, stack.meta, slots[name].meta.base_sha256)

    def _load(self, slots: dict[str, _Slot], lows: Sequence[LowRank], strength: float) -> None:
        carriers = [slot.carrier for slot in slots.values()]
        padded = [low.padded(c.rank) for c, low in zip(carriers, lows, strict=True)]
        for carrier, low in zip(carriers, padded, strict=True):
            carrier.load(low)
        self._strength = strength


@_without_gradients
def attach(
    model: PreTrainedModel,
    patches: Patch | Sequence[Patch],
    *,
    strength: float = 1.0,
    checkpoint: Checkpoint | None = None,
    allow_other_base: bool = False,
) -> Attachment:
    """Rotate activations of `model` as the patches would rotate its weights, first to last.

    Works on weights that are quantised or offloaded too, by pushing the directions that a patch
    needs through the module itself; `checkpoint` is then needed to recognise the base. Raises
    BaseMismatch (other weights, shapes, or a patch that is missing before another),
    UnsupportedModel (no such module), and InvariantError (a patch is attached already, or a factor
    is not of low rank); the model is then as it was.
    """
    _check_strength(strength)
    joined = stacked(patches)
    found = locate(model, joined, quantised=True)
    slots = {}
    for name, stack in joined.items():
        carrier = _carrier(model, found[name], stack.meta)
        if not allow_other_base:
            _check_base(name, stack.meta, carrier, checkpoint)
        slots[name] = _Slot(stack.meta, carrier, *carrier.change(stack.factors))
    lows = [slot.at(strength) for slot in slots.values()]
    installed: list[Carrier] = []
    try:
        for slot, low in zip(slots.values(), lows, strict=True):
            slot.carrier.install(low)
            installed.append(slot.carrier)
    except BaseException:
        for carrier in installed:
            carrier.remove()
        raise
    return Attachment(slots, strength, allow_other_base)


@contextmanager
def attached(
    model: PreTrainedModel,
    patches: Patch | Sequence[Patch],
    *,
    strength: float = 1.0,
    checkpoint: Checkpoint | None = None,
    allow_other_base: bool = False,
) -> Iterator[Attachment]:
    """Attach patches for the length of a `with` block; arguments and errors as in `attach`."""
    attachment = attach(
        model,
        patches,
        strength=strength,
        checkpoint=checkpoint,
        allow_other_base=allow_other_base,
    )
    try:
        yield attachment
    finally:
        attachment.detach()


def _carrier(model: PreTrainedModel, site: Site, meta: TensorMeta) -> Carrier:
    check_site(site, meta)
    return Carrier(model.get_submodule(site.module), site, model.dtype)


def _check_base(
    name: str, meta: TensorMeta, carrier: Carrier, checkpoint: Checkpoint | None
) -> None:
    weight = carrier.weight
    if checkpoint is not None:
        found = checkpoint.digest(name)
    elif weight is not None:
        found = weight_digest(weight, meta)
    else:
        raise BaseMismatch(
            f"the weights of {carrier.site.module} are quantised or not in memory, so that they "
            f"cannot be compared with {meta.base_sha256[:15]}…, which the patch was made for",
            hint="pass checkpoint=patchkit.Checkpoint.open(BASE), or allow_other_base=True",
            details={"expected": meta.base_sha256, "found": None},
        )
    check_digest(name, meta, found)


def _check_strength(strength: float) -> None:
    if not math.isfinite(strength):
        raise InvariantError(f"a strength is a finite number, not {strength}")
