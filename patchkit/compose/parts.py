"""One input of a composition: a patch, done at some strength or undone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from patchkit.errors import InvariantError
from patchkit.factors.kinds import Factor, Turn, mapped, tensors_of
from patchkit.patch.metadata import Leaf
from patchkit.patch.patch import Patch


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A patch as it enters a composition.

    `name` stands in reports and errors. `strength` α scales the generator of every factor, and
    with `inverted` each tensor's list is undone: reversed, every factor inverted. InvariantError
    for a strength that is not finite.
    """

    patch: Patch
    name: str = ""
    strength: float = 1.0
    inverted: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise InvariantError(f"the strength of {self.name or 'a patch'} is {self.strength}")

    @property
    def plain(self) -> bool:
        """Whether the patch enters as it is."""
        return self.strength == 1.0 and not self.inverted

    def factors(self, tensor: str) -> tuple[Factor, ...]:
        """Return what this part does to a tensor, in order, in the types of the patch.

        Factors of an unchanged part keep their bytes. InvariantError where a strength turns a
        rotation beyond its limit.
        """
        given = self.patch.factors.get(tensor, ())
        scaled = given if self.strength == 1.0 else tuple(self._scaled(each) for each in given)
        return tuple(each.inverse() for each in reversed(scaled)) if self.inverted else scaled

    def leaves(self, digest: str) -> list[Leaf]:
        """Return the edited patches that this part consists of, in order; `digest` its own."""
        own = self.patch.metadata.leaves or (Leaf(digest),)
        done = [replace(leaf, strength=leaf.strength * self.strength) for leaf in own]
        if not self.inverted:
            return done
        return [replace(leaf, inverted=not leaf.inverted) for leaf in reversed(done)]

    def _scaled(self, factor: Factor) -> Factor:
        dtype = next(iter(tensors_of(factor).values())).dtype
        scaled = mapped(factor.power(self.strength), lambda t: t.to(dtype))
        if isinstance(scaled, Turn):
            scaled.check()
        return scaled
