"""What `patchkit edit` says of the patch it has written."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .output import Out
from .units import duration, size, some

if TYPE_CHECKING:
    from patchkit.editing import Edit, EditReport
    from patchkit.editing.layers import LayerChoice
    from patchkit.facts.reading import FactsFile

SHOWN_LAYERS = 6


def report(
    out: Out, made: "Edit", asked: "FactsFile", target: Path, limits: Mapping[str, float]
) -> None:
    """Say what was reached and at what price; exit code 3 where a minimum was missed."""
    efficacy = made.report.efficacy
    below = [
        f"{name} {efficacy:.4g} is below {limit:g}"
        for name, limit in limits.items()
        if efficacy < limit
    ]
    _show(out, made.report, asked, target)
    for line in below:
        out.failed(line)
    if not below:
        out.hint(f"patchkit verify {target}")
    out.result(_data(made, asked, target, out.seconds), quiet=str(target), ok=not below)
    out.verdict(not below)


def _show(out: Out, report: "EditReport", asked: "FactsFile", target: Path) -> None:
    rounding = max((tensor.rounding for tensor in report.tensors), default=0.0)
    displaced = max((tensor.displacement for tensor in report.tensors), default=0.0)
    out.done(f"wrote {target} ({size(target.stat().st_size)}) in {duration(out.seconds)}")
    kept = {"kept": _kept(report)} if report.held else {}
    out.fields(
        {
            "facts": _reached(report, asked),
            **kept,
            "tensors": f"{len(report.tensors)}, {_shape(report)}",
            "layers": _layer_choice(report.layers),
            "rounding": f"storing in the base's type loses {rounding:.2%} of the edit",
            "elsewhere": f"outputs of preserved text move by {displaced:.2%}",
        }
    )


def _shape(report: "EditReport") -> str:
    """What the edit did to norms and condition numbers."""
    worst = max((abs(tensor.condition_ratio - 1) for tensor in report.tensors), default=0.0)
    largest = max((tensor.max_angle_deg for tensor in report.tensors), default=0.0)
    if report.keeps_spectrum:
        return f"largest rotation {largest:.1f}°, condition number unchanged (≤ {worst:.0e})"
    norm = max((tensor.norm_ratio for tensor in report.tensors), default=1.0)
    condition = max((tensor.condition_ratio for tensor in report.tensors), default=1.0)
    return f"{report.method}, norm × {norm:.4g}, condition number × {condition:.4g}"


def _reached(report: "EditReport", asked: "FactsFile") -> str:
    total = len(report.facts)
    text = f"{report.reached} of {total} reach the target"
    missed = [asked.places[fact.index] for fact in report.facts if not fact.reached]
    if missed:
        text += f" (missed: {asked.place_name}s {some(missed)})"
    known = sum(fact.known for fact in report.facts)
    return f"{text}; {known} were known before" if known else text


def _kept(report: "EditReport") -> str:
    known = [fact for fact in report.held if fact.known]
    text = f"{sum(fact.holds for fact in known)} of {len(known)} still hold"
    lost = [fact.id for fact in known if not fact.holds]
    if lost:
        text += f" (lost: {some(lost)})"
    left = len(report.held) - len(known)
    return f"{text}; {left} are not what the base says" if left else text


def _layer_choice(choice: "LayerChoice") -> str:
    text = some(choice.layers)
    if not choice.evidence:
        return f"{text} (as asked)"
    evidence = ", ".join(
        f"{row.layer}: {row.alone:.2f}/{row.together:.2f}/{row.restored:.2f}"
        for row in choice.evidence[:SHOWN_LAYERS]
    )
    more = ", …" if len(choice.evidence) > SHOWN_LAYERS else ""
    return f"{text} (nats lost alone/together, regained: {evidence}{more})"


def _data(made: "Edit", asked: "FactsFile", target: Path, seconds: float) -> dict[str, object]:
    report = made.report
    missed = [asked.places[fact.index] for fact in report.facts if not fact.reached]
    place = asked.place_name
    return {
        "dry_run": False,
        "path": str(target),
        "bytes": target.stat().st_size,
        "digest": made.patch.digest,
        "base": asdict(made.patch.metadata.base),
        "facts": {"total": len(report.facts), "reached": report.reached, "missed": missed},
        "results": [{place: asked.places[fact.index], **asdict(fact)} for fact in report.facts],
        "kept": [asdict(fact) for fact in report.held],
        "tensors": [asdict(tensor) for tensor in report.tensors],
        "layers": asdict(report.layers),
        "method": report.method,
        "corpus": report.corpus,
        "phases": dict(report.seconds),
        "seconds": seconds,
    }
