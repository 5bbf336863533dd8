"""What `patchkit diff` shows of each of its three comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import degrees
from pathlib import Path
from typing import TYPE_CHECKING

from .diff_data import applied_data, checkpoint_data, patch_data
from .output import Out, Row
from .units import count, some

if TYPE_CHECKING:
    from patchkit.diff import (
        AppliedDiff,
        CheckpointDiff,
        FactsDiff,
        PatchDiff,
        SideDiff,
        TensorChange,
        TensorDiff,
    )
    from patchkit.diff.answers import Answer

SHOWN = 20
_MARKS = {"added": "A", "removed": "D", "modified": "M", "same": " ", "changed": "M", "unlike": "M"}


@dataclass(frozen=True, slots=True)
class Found:
    """One comparison: whether it found nothing, its word for `-q`, and its data."""

    same: bool
    word: str
    data: Mapping[str, object]


def show_patches(out: Out, found: "PatchDiff") -> Found:
    """Show facts and tensors of two patches."""
    out.fields({"base": _base(found), "facts": _facts(found.facts)}, indent=0)
    _show_facts(out, found.facts)
    changed = [tensor for tensor in found.tensors if tensor.status != "same"]
    rows = [row for tensor in changed for row in _tensor_rows(tensor)]
    heads = ("TENSOR", "SIDE", "PLANES", "MAX ANGLE", "GEODESIC", "PRINCIPAL", "COMMUTATOR")
    _shorten(out, heads, rows)
    out.line(_summary([tensor.status for tensor in found.tensors]))
    return Found(found.equal, "same" if found.equal else "different", patch_data(found))


def show_applied(out: Out, found: "AppliedDiff", patch: Path, folder: Path) -> Found:
    """Show what each tensor of a patch is in a folder."""
    rows = [Row(each.name, _state(each.state, each.rounding)) for each in found.tensors]
    _shorten(out, ("TENSOR", "IS"), rows)
    out.line(f"{patch.name} is {_verdict(found)} in {folder}")
    if found.verdict == "unknown":
        out.hint(f"patchkit diff {patch} {folder} --base REF   (the unpatched base)")
    return Found(found.verdict == "applied", found.verdict, applied_data(found))


def show_checkpoints(out: Out, found: "CheckpointDiff") -> Found:
    """Show what changed between two checkpoints, and which patch did it."""
    heads = ("TENSOR", "CHANGED", "RELATIVE", "LARGEST", "EXPLAINED BY")
    _shorten(out, heads, [_change_row(change) for change in found.changes], right=" RRR")
    _sum_up(out, found)
    return Found(found.equal, "same" if found.equal else "different", checkpoint_data(found))


def _shorten(out: Out, heads: Sequence[str], rows: Sequence[Row], right: str = "") -> None:
    out.table(heads, rows[:SHOWN], right=right)
    if len(rows) > SHOWN:
        out.line(f"… {len(rows) - SHOWN} more (--json)")


def finish(
    out: Out,
    sides: tuple[Path, Path],
    found: Found,
    answers: "Sequence[Answer] | None",
    *,
    strict: bool,
) -> None:
    """Show answers and end with the object."""
    data: dict[str, object] = {"a": str(sides[0]), "b": str(sides[1]), **found.data}
    if answers is not None:
        out.line()
        out.table(
            ("PROMPT", "A", "B"),
            [Row(each.prompt, *each.texts, style="dim" if each.same else "") for each in answers],
        )
        out.line(f"{sum(not each.same for each in answers)} of {len(answers)} answers differ")
        data["answers"] = [
            {"prompt": each.prompt, "a": each.texts[0], "b": each.texts[1], "same": each.same}
            for each in answers
        ]
    ok = found.same or not strict
    out.result({**data, "seconds": out.seconds}, quiet=found.word, ok=ok)


def _base(found: "PatchDiff") -> str:
    if found.same_base:
        return "same"
    return f"different ({some(found.bases) or 'weights'})"


def _facts(facts: "FactsDiff") -> str:
    if not facts.compared:
        word = "the same" if facts.same else "different"
        return f"{word} by their digests; their text is not embedded"
    if facts.same:
        return "same"
    parts = f"{len(facts.added)} added, {len(facts.removed)} removed, {len(facts.changed)} changed"
    return parts + (f", {facts.other_details} in details" if facts.other_details else "")


def _show_facts(out: Out, facts: "FactsDiff") -> None:
    lines = [f"~ {one.text} {one.target} → {two.target}" for one, two in facts.changed]
    lines += [f"+ {fact.text} {fact.target}" for fact in facts.added]
    lines += [f"- {fact.text} {fact.target}" for fact in facts.removed]
    for line in lines[:SHOWN]:
        out.line(f"  {line}")
    if len(lines) > SHOWN:
        out.line(f"  … {len(lines) - SHOWN} more (--json)")


def _tensor_rows(tensor: "TensorDiff") -> list[Row]:
    name = f"{_MARKS[tensor.status]} {tensor.name}"
    rows = [Row(name, *_side_cells(side)) for side in tensor.sides]
    if any(tensor.sums):
        far = "—" if tensor.sums_distance is None else f"{tensor.sums_distance:.3g}"
        ranks = _pair(str(tensor.sums[0]), str(tensor.sums[1]))
        rows.append(Row(name, "sum", ranks, "", f"‖Δ‖ {far}", "", ""))
    return rows


def _side_cells(side: "SideDiff") -> tuple[str, ...]:
    angles = ("—", "—") if side.max_angle is None else tuple(map(_angle, side.max_angle))
    return (
        side.side,
        _pair(str(side.planes[0]), str(side.planes[1])),
        _pair(*angles),
        "—" if side.geodesic is None else f"{side.geodesic:.3f}",
        _principal(side.principal),
        "—" if side.commutator is None else f"{side.commutator:.3f}",
    )


def _pair(one: str, two: str) -> str:
    return one if one == two else f"{one} → {two}"


def _angle(radians: float) -> str:
    return f"{degrees(radians):.1f}°"


def _principal(angles: tuple[float, ...] | None) -> str:
    """The smallest and the largest of many angles."""
    if not angles:
        return "—"
    return _angle(angles[0]) if len(angles) == 1 else f"{_angle(angles[-1])}–{_angle(angles[0])}"


def _summary(states: Sequence[str]) -> str:
    words = ("modified", "added", "removed", "same")
    return ", ".join(f"{states.count(word)} {word}" for word in words if word in states)


def _state(state: str, rounding: bool) -> str:
    words = {"patched": "patched", "base": "the base", "changed": "changed, not known by what"}
    return words.get(state, f"changed by {state}") + (" (within one rounding)" if rounding else "")


def _verdict(found: "AppliedDiff") -> str:
    if found.place is None or found.lock is None:
        return found.verdict if found.verdict != "unknown" else "perhaps applied"
    return f"{found.verdict} (patch {found.place + 1} of {len(found.lock)} in its lock)"


def _change_row(change: "TensorChange") -> Row:
    name = f"{_MARKS[change.change]} {change.name}"
    if change.change != "changed":
        return Row(name, "", "", "", change.detail or change.change)
    entries = "—" if change.entries is None else f"{100 * change.entries:.1f} %"
    numbers = ("—" if n is None else f"{n:.3g}" for n in (change.relative, change.largest))
    return Row(name, entries, *numbers, _explained(change))


def _explained(change: "TensorChange") -> str:
    told = change.explanation
    if told is None:
        return "unexplained"
    names = " + ".join(told.names) + (" taken off" if told.undone else "")
    return names if told.exact else f"{names} (within one rounding)"


def _sum_up(out: Out, found: "CheckpointDiff") -> None:
    if found.equal:
        return out.line(f"all {count(found.tensors, 'tensor')} and the configuration are the same")
    shards = f"{found.shards_changed} of {count(found.shards, 'shard')} differ"
    out.line(f"{shards}, {count(len(found.changes), 'tensor')} changed of {found.tensors}")
    if not found.same_config:
        out.line("config.json differs")
    explained = len(found.changes) - len(found.unexplained)
    names = {each.explanation for each in found.changes if each.explanation is not None}
    by = sorted({name for told in names for name in told.names})
    more = f" by {some(by)}" if by else ""
    out.line(f"  {explained} explained{more}, {len(found.unexplained)} unexplained")
