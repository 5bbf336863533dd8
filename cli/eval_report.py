"""What `patchkit eval` shows: tables for people, one object for programs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from .output import Out, Row
from .units import count, duration, some

if TYPE_CHECKING:
    from patchkit.evaluate import EvalReport, FactResult
    from patchkit.facts.reading import FactsFile
    from patchkit.scoring.figures import Figure
    from patchkit.scoring.metrics import Metrics

Convention = Literal["patchkit", "alphaedit", "easyedit"]
_OWN = (
    "efficacy",
    "paraphrase",
    "neighborhood",
    "same_subject",
    "retention",
    "portability",
    "multihop",
    "score",
)
_PUBLISHED = ("efficacy", "paraphrase", "neighborhood")
_WRITTEN = ("fluency", "consistency")
# The figures that --min can name, by convention.
FIGURES: Mapping[Convention, tuple[str, ...]] = {
    "patchkit": (*_OWN, *(f"{name}_generated" for name in _OWN), *_WRITTEN),
    "alphaedit": (
        *(f"{name}_success" for name in _PUBLISHED),
        "score",
        *(f"{name}_{kind}" for kind in ("accuracy", "tokens") for name in _PUBLISHED),
        *_WRITTEN,
    ),
    "easyedit": ("rewrite_acc", "rephrase_acc", "locality", "portability", "fluency"),
}
_MEANINGS: Mapping[Convention, str] = {
    "patchkit": "every token right; of what should stay, the share kept",
    "alphaedit": "success by probability, accuracy by argmax, per record",
    "easyedit": "the share of tokens right; locality: of tokens unchanged",
}


def conclude(
    out: Out,
    report: "EvalReport",
    asked: "FactsFile",
    convention: Convention,
    limits: Mapping[str, float],
) -> None:
    """Show the figures of one convention, and the minimums that they miss as the verdict."""
    missed = list(_below(report, convention, limits))
    _show(out, report, asked, convention)
    for line in missed:
        out.failed(line)
    first = report.figures[convention][0].patched
    quiet = None if first is None else f"{first:.4f}"
    out.result(_data(report, asked, convention, out.seconds), quiet=quiet, ok=not missed)
    out.verdict(not missed)


def _show(out: Out, report: "EvalReport", asked: "FactsFile", convention: Convention) -> None:
    """The figures of one convention, then what holds in all of them."""
    if convention == "patchkit":
        _show_own(out, report)
    else:
        header = ("METRIC", "BASE", "PATCHED", "FACTS")
        figures = [figure for figure in report.figures[convention] if figure.count]
        out.table(header, list(map(_row, figures)), right=" RRR")
    _show_tasks(out, report)
    score = report.figure(convention, "score")
    out.fields(
        {
            "score": None if score is None or score.patched is None else _number(score.patched),
            "perplexity": _perplexity(report),
            "missed": _missed(report, asked),
            "convention": f"{convention}: {_MEANINGS[convention]}",
        },
        indent=0,
    )
    out.done(f"evaluated {count(len(report.facts), 'fact')} in {duration(out.seconds)}")


def _show_own(out: Out, report: "EvalReport") -> None:
    """Shares and kept shares by the argmax criterion, and below them those of generated text."""
    rows = list(_tally_rows(report.metrics["argmax"], ""))
    if "generated" in report.metrics:
        rows += _tally_rows(report.metrics["generated"], "_generated")
    out.table(("METRIC", "BASE", "PATCHED", "KEPT", "PROMPTS"), rows, right=" RRRR")
    written = [figure for figure in report.figures["patchkit"] if figure.name in _WRITTEN]
    if written:
        out.table(("TEXTS", "BASE", "PATCHED", "FACTS"), list(map(_row, written)), right=" RRR")


def _tally_rows(metrics: "Metrics", suffix: str) -> Iterator[Row]:
    for name, tally in metrics.tallies.items():
        if tally.asked:
            shares = map(_number, (tally.before, tally.after, tally.kept_share))
            yield Row(name + suffix, *shares, tally.asked)


def _show_tasks(out: Out, report: "EvalReport") -> None:
    rows = [
        Row(task, metric, _number(report.tasks_before[task].get(metric)), _number(value))
        for task, values in report.tasks_after.items()
        for metric, value in values.items()
    ]
    if rows:
        out.table(("TASK", "METRIC", "BASE", "PATCHED"), rows, right="  RR")


def _row(figure: "Figure") -> Row:
    return Row(figure.name, _number(figure.base), _number(figure.patched), figure.count)


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _perplexity(report: "EvalReport") -> str | None:
    before, after = report.perplexity_before, report.perplexity_after
    if before is None or after is None:
        return None
    return f"{before.value:.4g} → {after.value:.4g} ({after.value / before.value - 1:+.2%})"


def _missed(report: "EvalReport", asked: "FactsFile") -> str | None:
    places = [asked.places[result.index] for result in report.missed]
    return f"{asked.place_name}s {some(places)}" if places else None


def _below(
    report: "EvalReport", convention: Convention, limits: Mapping[str, float]
) -> Iterator[str]:
    """The minimums that were missed, as sentences."""
    for name in FIGURES[convention]:
        figure = report.figure(convention, name)
        value = None if figure is None else figure.patched
        if name in limits and value is None:
            yield f"{name} was not measured"
        elif name in limits and value is not None and value < limits[name]:
            yield f"{name} {value:.4g} is below {limits[name]:g}"


def _data(
    report: "EvalReport", asked: "FactsFile", convention: Convention, seconds: float
) -> dict[str, object]:
    """Everything, whatever convention is shown."""
    return {
        "convention": convention,
        "facts": len(report.facts),
        "conventions": {
            name: {figure.name: _figure(figure) for figure in figures}
            for name, figures in report.figures.items()
        },
        "metrics": {name: _metrics(metrics) for name, metrics in report.metrics.items()},
        "perplexity": {
            "base": report.perplexity_before and asdict(report.perplexity_before),
            "patched": report.perplexity_after and asdict(report.perplexity_after),
        },
        "tasks": {
            "base": {task: dict(values) for task, values in report.tasks_before.items()},
            "patched": {task: dict(values) for task, values in report.tasks_after.items()},
        },
        "missed": [asked.places[result.index] for result in report.missed],
        "results": [_result(result, asked) for result in report.facts],
        "seconds": seconds,
    }


def _figure(figure: "Figure") -> dict[str, object]:
    return {"base": figure.base, "patched": figure.patched, "count": figure.count}


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
