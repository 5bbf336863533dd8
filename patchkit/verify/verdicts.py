"""From numbers to verdicts: one function for each named check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, isnan

from patchkit.patch.reader import Damage, PatchLayout
from patchkit.report import Check
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify.certificate import condition_bound, norm_bound
from patchkit.verify.measure import Measured

ORTHOGONALITY_LIMIT = 1e-6
NORM_LIMIT = 1e-6
CONDITION_LIMIT = 1e-6
ROUNDING_LIMIT = 0.25
_EPSILON = 2.0**-52
_NOTHING_PROMISED = "an additive factor promises nothing about singular values"

Outcome = Mapping[str, float | str]
"""A number for each tensor, or the sentence that says why there is none."""


def digest_check(digest: str, damages: Sequence[Damage]) -> Check:
    """All data has the digests that the metadata records; the value is the file's own digest."""
    if not damages:
        return Check("digest", digest, None, True, "all recorded digests match")
    first = damages[0]
    return Check("digest", digest, None, False, str(first), first.tensor)


def finite_check(values: Mapping[str, tuple[int, int]]) -> Check:
    """Every stored value is a number; `values` has how many are, of how many, by tensor."""
    total = sum(count for _, count in values.values())
    bad = {name: count - finite for name, (finite, count) in values.items() if finite < count}
    tensor = next(iter(bad), None)
    detail = f"{tensor} holds values that are not finite ({bad[tensor]})" if tensor else ""
    return Check("finite", total - sum(bad.values()), total, not bad, detail, tensor)


def orthogonality_check(defects: Outcome) -> Check:
    """The bound on the relative change of any squared singular value, from the factors alone."""
    return _worst("orthogonality", _bounds(defects, float), ORTHOGONALITY_LIMIT)


def base_match_check(checkpoint: Checkpoint, layout: PatchLayout) -> Check:
    """Every tensor to be edited has the bytes that the patch was made for."""
    mismatch: dict[str, str] = {}
    for name, meta in layout.metadata.tensors.items():
        entry = checkpoint.tensors.get(name)
        if entry is None:
            mismatch[name] = "the base has no such tensor"
        elif (entry.info.shape, entry.info.dtype) != (meta.shape, meta.dtype):
            found = f"{entry.info.shape} {entry.info.dtype}"
            mismatch[name] = f"expected {meta.shape} {meta.dtype}, found {found}"
        elif (found := checkpoint.digest(name)) != meta.base_sha256:
            mismatch[name] = f"expected {meta.base_sha256[:15]}…, found {found[:15]}…"
    total = len(layout.metadata.tensors)
    tensor = next(iter(mismatch), None)
    detail = f"{tensor}: {mismatch[tensor]}" if tensor else ""
    return Check("base-match", total - len(mismatch), total, not mismatch, detail, tensor)


def norm_check(defects: Outcome, measured: Mapping[str, Measured | str]) -> Check:
    """Relative change of the Frobenius norm of the worst tensor."""
    if measured or not defects:
        return _worst("norm", _each(measured, "norm_change"), NORM_LIMIT, "of the edited weights")
    return _worst("norm", _bounds(defects, norm_bound), NORM_LIMIT, "bound for any weight")


def condition_check(defects: Outcome, measured: Mapping[str, Measured | str]) -> Check:
    """Relative change of the condition number of the worst tensor."""
    bounds = _bounds(defects, condition_bound)
    changes, limits, exact = dict(bounds), dict.fromkeys(bounds, CONDITION_LIMIT), 0
    for name, found in measured.items():
        if isinstance(found, str):
            changes[name] = found
        elif found.condition is not None and found.condition_change is not None:
            changes[name] = found.condition_change
            limits[name] = max(CONDITION_LIMIT, 8 * _EPSILON * found.condition)
            exact += 1
    detail = "singular values computed" if exact and exact == len(bounds) else "bound"
    if measured and detail == "bound":
        detail = f"bound for {len(bounds) - exact} of {len(bounds)} tensors; deep computes all"
    tensor = max(changes, key=lambda name: _size(changes[name]) / limits[name], default=None)
    return _verdict("condition", changes, tensor, limits.get(tensor or "", CONDITION_LIMIT), detail)


def rounding_check(measured: Mapping[str, Measured | str]) -> Check:
    """Noise of storing the edited weights in the base's type, relative to the edit."""
    changes = _each(measured, "rounding")
    return _worst("rounding", changes, ROUNDING_LIMIT, "storage noise along the edit")


def needs_base(name: str, limit: object) -> Check:
    """A check that was not made because no base was given."""
    return Check(name, None, limit, True, "needs --base", skipped=True)


def _each(measured: Mapping[str, Measured | str], field: str) -> dict[str, float | str]:
    return {
        name: found if isinstance(found, str) else float(getattr(found, field))
        for name, found in measured.items()
    }


def _bounds(defects: Outcome, bound: Callable[[float], float]) -> dict[str, float | str]:
    return {
        name: e if isinstance(e, str) else _NOTHING_PROMISED if e == inf else bound(e)
        for name, e in defects.items()
    }


def _size(value: float | str) -> float:
    return inf if isinstance(value, str) or isnan(value) else value


def _worst(name: str, values: Outcome, limit: float, detail: str = "") -> Check:
    tensor = max(values, key=lambda key: _size(values[key]), default=None)
    return _verdict(name, values, tensor, limit, detail)


def _verdict(name: str, values: Outcome, tensor: str | None, limit: float, detail: str) -> Check:
    if tensor is None:
        return Check(name, 0.0, limit, True, detail)
    value = values[tensor]
    if isinstance(value, str):
        return Check(name, None, limit, False, value, tensor)
    if not isfinite(value):
        return Check(name, None, limit, False, f"{tensor} gives no finite value", tensor)
    return Check(name, value, limit, value <= limit, detail, tensor)
