"""What an edit did and how it was decided, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from patchkit.editing.layers import LayerChoice
from patchkit.patch.patch import Patch


@dataclass(frozen=True, slots=True)
class FactResult:
    """One fact before and after: `before` and `after` are probabilities of its whole target.

    `reached` says that every token of the target is the model's first choice, `known` that this
    was so before the edit, `edited` that the fact took part. `reach` is the size of the change
    that was written, relative to the most a rotation confined to the free part of the key can
    write: a rotation stays below 1, a sum need not; None for facts that were not edited.
    """

    index: int
    id: str
    subject: str
    prompt: str
    target: str
    before: float
    after: float
    reached: bool
    known: bool
    edited: bool
    reach: float | None


@dataclass(frozen=True, slots=True)
class HeldResult:
    """One fact that must not change; `before` and `after` as in `FactResult`.

    `known` says that the base answers as the fact says: others cannot be held. `holds` says the
    same of the edited model.
    """

    id: str
    subject: str
    prompt: str
    target: str
    before: float
    after: float
    known: bool
    holds: bool


@dataclass(frozen=True, slots=True)
class TensorResult:
    """One edited matrix.

    `max_angle_deg` is the largest plane angle in degrees. `displacement` is the root mean square
    change of the outputs of preserved keys, relative to their size. `rounding` is the part of the
    change on the edited keys that storing in the base's dtype loses. `norm_ratio` and
    `condition_ratio` compare the product W₀R in fp64 with W₀; `free_share` is the mean share of
    the edited keys' energy that preserved knowledge leaves free. `turned` says that all its
    factors are rotations.
    """

    name: str
    layer: int
    rank: int
    max_angle_deg: float
    displacement: float
    rounding: float
    norm_ratio: float
    condition_ratio: float
    free_share: float
    turned: bool


@dataclass(frozen=True, slots=True)
class EditReport:
    """Everything that is worth knowing of one edit; `seconds` by phase, `held` as asked."""

    method: str
    facts: tuple[FactResult, ...]
    tensors: tuple[TensorResult, ...]
    layers: LayerChoice
    corpus: str
    seconds: Mapping[str, float]
    held: tuple[HeldResult, ...] = ()

    @property
    def reached(self) -> int:
        """How many facts the edited model answers as asked."""
        return sum(fact.reached for fact in self.facts)

    @property
    def keeps_spectrum(self) -> bool:
        """Whether nothing was added to a matrix, so that its singular values are the base's."""
        return all(tensor.turned for tensor in self.tensors)

    @property
    def efficacy(self) -> float:
        """The share of all facts that the edited model answers as asked."""
        return self.reached / len(self.facts)

    @property
    def summary(self) -> dict[str, object]:
        """What of it goes into the patch: figures without timings, rounded to reproduce."""
        return {
            "convention": "argmax",
            "efficacy": round(self.efficacy, 4),
            "displacement": round(max(tensor.displacement for tensor in self.tensors), 4),
            "rounding": round(max(tensor.rounding for tensor in self.tensors), 4),
        }


@dataclass(frozen=True, slots=True)
class Edit:
    """A patch and the report of how it was made."""

    patch: Patch
    report: EditReport


@dataclass(frozen=True, slots=True)
class EditPlan:
    """What an edit would do, known before any weight is loaded.

    `patch_bytes` is an upper bound of the patch's size, `memory_bytes` of what the edit keeps at
    once besides the model: weights and second moments of the edited matrices.
    """

    facts: int
    subjects: int
    batches: int
    layers: tuple[int, ...] | None
    candidates: int
    patch_bytes: int
    memory_bytes: int
