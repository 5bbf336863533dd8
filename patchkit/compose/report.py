"""What a composition did, as data."""

from __future__ import annotations

from dataclasses import dataclass

ORDER_MATTERS = 0.1
"""Commutator norm above which the order of patches is worth a warning."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """One subject and prompt with two targets; `names` of the patches, the later one wins."""

    subject: str
    prompt: str
    targets: tuple[str, str]
    names: tuple[str, str]

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return self.prompt.replace("{}", self.subject)


@dataclass(frozen=True, slots=True)
class TensorResult:
    """One tensor of the result.

    `patches` name those that edit it. `commutator` is the largest ‖RᵢRⱼ − RⱼRᵢ‖₂ of two of them on
    one side, between the patches `pair`; None where fewer than two rotate it, for a mean, which
    has no order, and for sides on which it cannot be computed. `factors` and `planes` count what is
    stored. The rotations of each side differ from the exact product or mean by at most `bound` in
    spectral norm, 0 where nothing was computed. `steps` and `residual` are those of a Karcher mean.
    """

    name: str
    patches: tuple[str, ...]
    commutator: float | None
    pair: tuple[str, str] | None
    factors: int
    planes: int
    bound: float = 0.0
    steps: int = 0
    residual: float = 0.0


@dataclass(frozen=True, slots=True)
class ComposeReport:
    """Everything that is worth knowing of one composition.

    `order` and `parents` are names and digests of the inputs, first to last. `facts` counts those
    that the result carries; `silent` names inputs that do not carry the text of theirs.
    `every_pair` says whether commutators were computed for all pairs of inputs or, beyond 16
    inputs, for neighbours only.
    """

    method: str
    order: tuple[str, ...]
    parents: tuple[str, ...]
    tensors: tuple[TensorResult, ...]
    facts: int
    conflicts: tuple[Conflict, ...]
    silent: tuple[str, ...]
    every_pair: bool

    @property
    def interaction(self) -> TensorResult | None:
        """The tensor on which order matters most, None where it matters nowhere."""
        known = [tensor for tensor in self.tensors if tensor.commutator is not None]
        return max(known, key=lambda tensor: tensor.commutator or 0.0, default=None)

    @property
    def order_matters(self) -> bool:
        """Whether swapping two inputs moves some unit vector by more than 0.1."""
        worst = self.interaction
        return worst is not None and (worst.commutator or 0.0) > ORDER_MATTERS

    @property
    def bound(self) -> float:
        """The largest error bound of any tensor."""
        return max((tensor.bound for tensor in self.tensors), default=0.0)
