"""What a comparison found, as data. `a` and `b` of a pair are the first and the second argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from patchkit.factors import Side
from patchkit.facts.fact import Fact

Status = Literal["same", "added", "removed", "modified"]
Change = Literal["added", "removed", "unlike", "changed"]
State = Literal["patched", "base", "other patches", "changed"]
Verdict = Literal["applied", "partly applied", "not applied", "unknown"]


@dataclass(frozen=True, slots=True)
class SideDiff:
    """The rotations of one side of one tensor, as two products Rₐ and R_b; angles in radians.

    `planes` counts those that are stored and `max_angle` is the largest angle of each product.
    `geodesic` is ‖log RₐᵀR_b‖_F, `principal` are the angles between the spaces that both move,
    descending, `commutator` is ‖RₐR_b − R_bRₐ‖₂. None where a side is too long to compute them
    (`factors.distance`).
    """

    side: Side
    planes: tuple[int, int]
    max_angle: tuple[float, float] | None
    geodesic: float | None
    principal: tuple[float, ...] | None
    commutator: float | None


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """One tensor of two patches; `same` are factors that are equal in bytes.

    `sums` are the ranks of additive factors in each, `sums_distance` the Frobenius norm of the
    difference of these sums, None where one is dense. `same_base` says whether both patches were
    made for the same weights.
    """

    name: str
    status: Status
    same_base: bool
    sides: tuple[SideDiff, ...]
    sums: tuple[int, int]
    sums_distance: float | None


@dataclass(frozen=True, slots=True)
class FactsDiff:
    """Facts by subject and prompt; `changed` are pairs with another target.

    `other_details` counts facts with the same target and other probes or identifiers. Without the
    text of the facts of both patches `compared` is False, and only digests say whether they are
    the `same`.
    """

    added: tuple[Fact, ...]
    removed: tuple[Fact, ...]
    changed: tuple[tuple[Fact, Fact], ...]
    other_details: int
    same: bool
    compared: bool


@dataclass(frozen=True, slots=True)
class PatchDiff:
    """Two patches: digests, what each says of its base where both say it, facts and tensors.

    `bases` holds what the bases differ in, `same_after` whether both need the same predecessors.
    """

    digests: tuple[str, str]
    bases: tuple[str, ...]
    same_after: bool
    facts: FactsDiff
    tensors: tuple[TensorDiff, ...]

    @property
    def same_base(self) -> bool:
        """Whether nothing says that the patches were made for different bases."""
        return not self.bases and all(tensor.same_base for tensor in self.tensors)

    @property
    def equal(self) -> bool:
        """Whether both do the same to the same base for the same facts, to the byte."""
        alike = all(tensor.status == "same" for tensor in self.tensors)
        return alike and self.same_base and self.same_after and self.facts.same


@dataclass(frozen=True, slots=True)
class AppliedTensor:
    """One tensor of a patch in a checkpoint: its digest there, and what that says.

    `base` is the patch's base, `patched` what the patch (with the others of a lock) makes of it,
    `other patches` what the lock says that others made of it, `changed` anything else. `rounding`
    is True where it was recognised only within one rounding.
    """

    name: str
    state: State
    found: str
    rounding: bool = False


@dataclass(frozen=True, slots=True)
class AppliedDiff:
    """Whether a patch is applied in a checkpoint, and how that is known.

    `lock` are the digests of the patches that the folder carries by its lock, None without one;
    `place` is the place of the patch among them, from 0, or of the composed patch that holds it.
    """

    digest: str
    lock: tuple[str, ...] | None
    place: int | None
    tensors: tuple[AppliedTensor, ...]

    @property
    def verdict(self) -> Verdict:
        """What all tensors say together; unknown where one was changed in an unknown way."""
        states = {tensor.state for tensor in self.tensors}
        if states == {"patched"}:
            return "applied"
        if "patched" in states:
            return "partly applied"
        return "unknown" if "changed" in states else "not applied"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Known patches, in order, that lead from one tensor to the other.

    `names` are those of their files. With `undone` they lead from the second to the first. `exact`
    says that the digest is the one that applying them gives; otherwise every value is within one
    unit in the last place, or 1e-6 of its row's rms, of what they give.
    """

    digests: tuple[str, ...]
    names: tuple[str, ...]
    exact: bool
    undone: bool


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor that is not the same in two checkpoints.

    `unlike` are other shapes or types, which `detail` tells. `entries` is the share of values that
    differ, `relative` ‖Δ‖_F / ‖W‖_F and `largest` max |Δ|, None where there are no such numbers.
    """

    name: str
    change: Change
    detail: str = ""
    entries: float | None = None
    relative: float | None = None
    largest: float | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class CheckpointDiff:
    """Two checkpoints: every tensor of either that is not the same in both.

    `tensors` and `shards` count those of the second checkpoint, `shards_changed` those of them
    that hold a difference. `known` counts the patches that could explain one.
    """

    tensors: int
    shards: int
    shards_changed: int
    same_config: bool
    changes: tuple[TensorChange, ...]
    known: int

    @property
    def equal(self) -> bool:
        """Whether weights and configuration are the same."""
        return not self.changes and self.same_config

    @property
    def unexplained(self) -> tuple[TensorChange, ...]:
        """The changes that no known patch makes."""
        return tuple(change for change in self.changes if change.explanation is None)
