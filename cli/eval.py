"""`patchkit eval`: what a patch changes, and what it leaves alone."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from . import facts as facts_command
from .loading import load
from .options import (
    BaseOption,
    DeviceOption,
    DtypeOption,
    FactsFormat,
    FormatOption,
    JsonFlag,
    MinOption,
    QuietFlag,
    minimums,
)
from .output import Out, Row
from .progress import shown
from .units import count, duration, some

if TYPE_CHECKING:
    from patchkit.evaluate import EvalReport, FactResult
    from patchkit.facts.fact import Probe
    from patchkit.facts.reading import FactsFile
    from patchkit.scoring.metrics import Metrics

EXAMPLES = (
    "patchkit eval my.patch.safetensors --facts facts.jsonl",
    "patchkit eval my.patch.safetensors --min efficacy=0.95 --json",
)
Figure = Literal["efficacy", "paraphrase", "neighborhood", "same_subject", "retention", "score"]
FIGURES: tuple[Figure, ...] = get_args(Figure)
Convention = Literal["argmax", "first-token", "probability"]
_MEANINGS = {
    "argmax": "every token of the target is the model's first choice",
    "first-token": "the first token of the target is the model's first choice",
    "probability": "the target is likelier than the answer it replaces",
}

PatchesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PATCH...", help="Patches, in order.", show_default=False),
]
FactsOption = Annotated[
    Path | None,
    typer.Option(
        "--facts",
        metavar="FILE",
        help="Facts to ask; those inside the last patch by default.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
RetainOption = Annotated[
    Path | None,
    typer.Option(
        "--retain",
        metavar="FILE",
        help="Facts that must stay, for retention.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
TextOption = Annotated[
    Path | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="Text for perplexity.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
ConventionOption = Annotated[
    Convention,
    typer.Option(help="What counts as an answer.", rich_help_panel="Output"),
]


def evaluate(
    patches: PatchesArgument,
    base: BaseOption = "atlas",
    facts: FactsOption = None,
    format: FormatOption = "auto",
    retain: RetainOption = None,
    text: TextOption = None,
    convention: ConventionOption = "argmax",
    min: MinOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure what a patch changes and leaves alone."""
    from patchkit.evaluate import evaluate as measure
    from patchkit.patch.patch import Patch

    out = Out.choose("eval", json=json, quiet=quiet)
    limits = minimums(min, FIGURES)
    asked = facts_command.read(facts or patches[-1], format)
    facts_command.warn(out, asked)
    probes = _probes(retain, format, asked) if retain else ()
    prose = text.read_text(encoding="utf-8") if text else None
    with shown(out) as progress:
        loaded = load(base, device, dtype)
        report = measure(
            loaded.model,
            loaded.tokenizer,
            [Patch.read(path) for path in patches],
            asked.facts,
            retention_probes=probes,
            text=prose,
            checkpoint=loaded.checkpoint,
            progress=progress,
        )
    below = _below(report, convention, limits)
    _show(out, report, asked, convention)
    for line in below:
        out.failed(line)
    efficacy = report.value("efficacy", convention)
    quiet_text = None if efficacy is None else f"{efficacy:.4f}"
    out.result(_data(report, asked, convention, out.seconds), quiet=quiet_text, ok=not below)
    out.verdict(not below)


def _probes(source: Path, format: FactsFormat, asked: "FactsFile") -> list["Probe"]:
    """What the base is expected to know of subjects that are not edited."""
    from patchkit.facts.fact import Probe

    edited = {fact.subject for fact in asked.facts}
    others = (fact for fact in facts_command.read(source, format).facts)
    return [
        Probe(fact.text, fact.target_true or fact.target)
        for fact in others
        if fact.subject not in edited
    ]


def _below(report: "EvalReport", convention: Convention, limits: Mapping[str, float]) -> list[str]:
    """The minimums that were missed, as sentences."""
    lines = []
    for name in FIGURES:
        value = report.value(name, convention)
        if name in limits and value is None:
            lines.append(f"{name} was not measured")
        elif name in limits and value is not None and value < limits[name]:
            lines.append(f"{name} {value:.4g} is below {limits[name]:g}")
    return lines


def _show(out: Out, report: "EvalReport", asked: "FactsFile", convention: Convention) -> None:
    metrics = report.metrics[convention]
    rows = [
        Row(name, *map(_share, (tally.before, tally.after, tally.kept_share)), tally.asked)
        for name, tally in metrics.tallies.items()
        if tally.asked
    ]
    out.table(("METRIC", "BASE", "PATCHED", "KEPT", "PROMPTS"), rows, right=" RRRR")
    out.fields(
        {
            "score": None if metrics.score is None else _share(metrics.score),
            "perplexity": _perplexity(report),
            "missed": _missed_text(report, asked),
            "convention": f"{convention}: {_MEANINGS[convention]}",
        },
        indent=0,
    )
    out.done(f"evaluated {count(len(report.facts), 'fact')} in {duration(out.seconds)}")


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _perplexity(report: "EvalReport") -> str | None:
    before, after = report.perplexity_before, report.perplexity_after
    if before is None or after is None:
        return None
    return f"{before.value:.4g} → {after.value:.4g} ({after.value / before.value - 1:+.2%})"


def _missed_text(report: "EvalReport", asked: "FactsFile") -> str | None:
    places = [asked.places[result.index] for result in report.missed]
    return f"{asked.place_name}s {some(places)}" if places else None


def _data(
    report: "EvalReport", asked: "FactsFile", convention: Convention, seconds: float
) -> dict[str, object]:
    return {
        "convention": convention,
        "facts": len(report.facts),
        "metrics": {name: _metrics(metrics) for name, metrics in report.metrics.items()},
        "perplexity": {
            "base": report.perplexity_before and asdict(report.perplexity_before),
            "patched": report.perplexity_after and asdict(report.perplexity_after),
        },
        "missed": [asked.places[result.index] for result in report.missed],
        "results": [_result(result, asked) for result in report.facts],
        "seconds": seconds,
    }


def _metrics(metrics: "Metrics") -> dict[str, object]:
    figures: dict[str, object] = {
        name: {
            "value": metrics.value(name),
            "base": tally.before,
            "patched": tally.after,
            "kept": tally.kept_share,
            "prompts": tally.asked,
        }
        for name, tally in metrics.tallies.items()
    }
    return {**figures, "score": metrics.score}


def _result(result: "FactResult", asked: "FactsFile") -> dict[str, object]:
    shares = ("paraphrases", "neighbors", "same_subject")
    return {
        "id": result.fact.id,
        asked.place_name: asked.places[result.index],
        "prompt": result.fact.text,
        "target": result.fact.target,
        "before": result.before,
        "after": result.after,
        "probability_before": result.probability_before,
        "probability_after": result.probability_after,
        "answered": result.answered,
        **{
            name: dict(zip(("right", "asked"), getattr(result, name), strict=True))
            for name in shares
        },
    }
