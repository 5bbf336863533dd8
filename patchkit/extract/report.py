"""What an extraction found, as data."""

from __future__ import annotations

from dataclasses import dataclass

from patchkit.factors import Side


@dataclass(frozen=True, slots=True)
class ExtractedTensor:
    """One matrix W that became W″, and the rotation R that comes near it.

    `change` is ‖W″ − W‖_F / ‖W‖_F. `explained` is 1 − ‖W″ − W′‖²_F / ‖W″ − W‖²_F for the rotation
    as it is stored, `reachable` the same for all `planes_found`, of which `planes` were kept.
    `directions` is the dimension of the space in which the rotation was looked for: with all of
    the side, it is the nearest of all rotations. `rounding` is the share of the change that
    rounding the edited weights alone would explain, so that 1 − rounding is the most that is
    meant. `same` says that W″ is W′ within one rounding. `max_angle` is in radians.
    """

    name: str
    side: Side
    planes: int
    planes_found: int
    directions: int
    change: float
    explained: float
    reachable: float
    rounding: float
    max_angle: float
    same: bool


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """All matrices of one extraction.

    `unchanged` names chosen tensors that are the same in both checkpoints, `unexplained` those of
    which no rotation explains anything, `left_out` other tensors that differ and were not chosen.
    """

    tensors: tuple[ExtractedTensor, ...]
    unchanged: tuple[str, ...]
    unexplained: tuple[str, ...]
    left_out: tuple[str, ...]
