"""What `patchkit compose` says of the patch it has written."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .output import Out
from .units import count, short, size, some

if TYPE_CHECKING:
    from patchkit.compose import ComposeReport, Composition, Conflict

SHOWN_CONFLICTS = 5


def report(out: Out, made: "Composition", digest: str, target: Path, *, compressed: bool) -> None:
    """Say what the result holds, whether order matters, and which facts contradict each other."""
    found = made.report
    if found.method == "product":
        places = "   ".join(f"{place} {name}" for place, name in enumerate(found.order, 1))
        out.line(f"order  {places}   (first to last)")
    out.done(f"wrote {target} ({size(target.stat().st_size)})")
    out.fields(
        {
            "digest": short(digest),
            "tensors": _tensors(found),
            "interaction": _interaction(found),
            "compressed": _compressed(found) if compressed else None,
            "mean": _mean(found),
            "facts": count(found.facts, "fact"),
            "conflicts": _conflicts(found),
        }
    )
    _warn(out, found)
    out.hint(f"patchkit verify {target}")
    out.result(_data(made, digest, target, out.seconds), quiet=str(target))


def _tensors(found: "ComposeReport") -> str:
    shared = sum(len(tensor.patches) > 1 for tensor in found.tensors)
    several = f" ({shared} edited by several patches)" if len(found.order) > 1 else ""
    return f"{len(found.tensors)}{several}"


def _interaction(found: "ComposeReport") -> str | None:
    worst = found.interaction
    if worst is None or worst.commutator is None:
        return None
    meaning = "order matters" if found.order_matters else "order barely matters"
    return f"commutator {worst.commutator:.2g} at most ({worst.name}): {meaning}"


def _compressed(found: "ComposeReport") -> str:
    factors = sum(tensor.factors for tensor in found.tensors)
    planes = sum(tensor.planes for tensor in found.tensors)
    what = f"{count(planes, 'plane')} in {count(factors, 'factor')}"
    return f"{what}, error at most {found.bound:.2g}"


def _mean(found: "ComposeReport") -> str | None:
    if found.method == "product":
        return None
    if found.method == "mean":
        return "of the generators, at their mean length"
    steps = max((tensor.steps for tensor in found.tensors), default=0)
    residual = max((tensor.residual for tensor in found.tensors), default=0.0)
    return f"Karcher, {count(steps, 'step')}, {residual:.1g} radians remain"


def _conflicts(found: "ComposeReport") -> str | None:
    if not found.conflicts:
        return None
    listed = some([_conflict(each) for each in found.conflicts], SHOWN_CONFLICTS)
    return f"{count(len(found.conflicts), 'fact')}: {listed}; the later one wins"


def _conflict(each: "Conflict") -> str:
    said = (f'"{t}" in {n}' for t, n in zip(each.targets, each.names, strict=True))
    return f'"{each.text}" is {", ".join(said)}'


def _warn(out: Out, found: "ComposeReport") -> None:
    worst = found.interaction
    if found.order_matters and worst is not None and worst.pair is not None:
        one, two = worst.pair
        out.warn(
            f"the order of {one} and {two} matters on {worst.name}: "
            f"it moves some input by {worst.commutator:.2f} of its length"
        )
    if found.silent:
        out.warn(f"the text of some facts is not carried on: {some(found.silent)} has none")


def _data(made: "Composition", digest: str, target: Path, seconds: float) -> dict[str, object]:
    found = made.report
    worst = found.interaction
    commutator = worst and {"max": worst.commutator, "tensor": worst.name, "pair": worst.pair}
    return {
        "path": str(target),
        "bytes": target.stat().st_size,
        "digest": digest,
        "method": found.method,
        "order": found.order,
        "parents": found.parents,
        "leaves": [asdict(leaf) for leaf in made.patch.metadata.leaves],
        "tensors": [asdict(tensor) for tensor in found.tensors],
        "commutator": commutator and {**commutator, "every_pair": found.every_pair},
        "bound": found.bound,
        "facts": found.facts,
        "silent": found.silent,
        "conflicts": [asdict(each) for each in found.conflicts],
        "seconds": seconds,
    }
