"""`patchkit facts`: check a facts file, or read the facts inside a patch."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import problem_data, problem_lines
from .options import FactsFormat, FormatOption, JsonFlag, QuietFlag
from .output import Out, Row
from .units import count

if TYPE_CHECKING:
    from patchkit.facts.fact import Fact
    from patchkit.facts.reading import FactsFile

EXAMPLES = (
    "patchkit facts facts.jsonl",
    "patchkit facts capitals.patch.safetensors -q > facts.jsonl",
)
SHOWN_FACTS = 10

SourceArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE|PATCH", help="A facts file, or a patch.", show_default=False),
]
AllFlag = Annotated[
    bool, typer.Option("--all", help="Every fact, not the first few.", rich_help_panel="Output")
]


def facts(
    source: SourceArgument,
    format: FormatOption = "auto",
    every: AllFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check a facts file, or show the facts of a patch."""
    out = Out.choose("facts", json=json, quiet=quiet)
    found = read(source, format)
    warn(out, found)
    _show(out, source, found, every)
    records = _records(found)
    warnings = [problem_data(problem) for problem in found.warnings]
    data = {"path": str(source), "format": found.format, "count": len(records)}
    ids = [fact.id for fact in found.facts]
    out.result({**data, "warnings": warnings, "ids": ids, "facts": records}, quiet=None)
    out.records(records)


def read(source: Path, format: FactsFormat) -> "FactsFile":
    """The facts of a facts file, or those that a patch carries."""
    from patchkit.errors import FactsError
    from patchkit.facts.reading import parse_jsonl, read_facts
    from patchkit.patch.reader import read_info

    if source.suffix != ".safetensors":
        return read_facts(source, format)
    text = read_info(source).facts_jsonl
    if text is None:
        raise FactsError(
            f"{source} does not carry the text of its facts",
            hint="patches made with --no-embed-facts hold only their digest",
        )
    return parse_jsonl(text, name=str(source))


def warn(out: Out, found: "FactsFile") -> None:
    """Say what is odd about a facts file, on stderr."""
    for line in problem_lines(found.warnings):
        out.warn(line)


def _show(out: Out, source: Path, found: "FactsFile", every: bool) -> None:
    shown = len(found.facts) if every else SHOWN_FACTS
    pairs = list(zip(found.places, found.facts, strict=True))
    rows = [_row(place, fact) for place, fact in pairs[:shown]]
    heads = (found.place_name.upper(), "FACT", "TARGET", "INSTEAD OF", "ID")
    out.table(heads, rows, right="R")
    if len(pairs) > shown:
        out.line(f"… {len(pairs) - shown} more (--all)")
    odd = f", {count(len(found.warnings), 'warning')}" if found.warnings else ""
    out.done(f"{count(len(pairs), 'fact')} in {source} ({found.format}){odd}")


def _row(place: int, fact: "Fact") -> Row:
    return Row(place, fact.text, fact.target, fact.target_true or "—", fact.id)


def _records(found: "FactsFile") -> list[dict[str, object]]:
    from patchkit.facts.reading import to_jsonl

    return [json_module.loads(line) for line in to_jsonl(found.facts).split(b"\n") if line]
