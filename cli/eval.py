"""`patchkit eval`: what a patch changes, and what it leaves alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import facts as facts_command
from .bases import local_base
from .eval_report import FIGURES, Convention, conclude
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
from .output import Out
from .progress import shown

if TYPE_CHECKING:
    from patchkit.facts.fact import Probe
    from patchkit.facts.reading import FactsFile

EXAMPLES = (
    "patchkit eval my.patch.safetensors --facts facts.jsonl",
    "patchkit eval my.patch.safetensors --min efficacy=0.95 --json",
)

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
GenerateFlag = Annotated[
    bool,
    typer.Option(
        "--generate",
        help="Also let both models write: free answers, and texts for fluency.",
        rich_help_panel="Input",
    ),
]
SnippetsOption = Annotated[
    Path | None,
    typer.Option(
        "--snippets",
        metavar="PATH",
        help="Texts to compare written ones with, for consistency; implies --generate.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
TasksOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--tasks",
        metavar="FILE",
        help="A task file of lm-evaluation-harness; repeatable.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
SeedOption = Annotated[
    int,
    typer.Option("--seed", min=0, help="Draws what --generate writes.", rich_help_panel="Compute"),
]
ConventionOption = Annotated[
    Convention,
    typer.Option(help="Whose figures to show.", rich_help_panel="Output"),
]


def evaluate(
    patches: PatchesArgument,
    base: BaseOption = "atlas",
    facts: FactsOption = None,
    format: FormatOption = "auto",
    retain: RetainOption = None,
    text: TextOption = None,
    generate: GenerateFlag = False,
    snippets: SnippetsOption = None,
    tasks: TasksOption = None,
    convention: ConventionOption = "patchkit",
    min: MinOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure what a patch changes and leaves alone."""
    from patchkit.evaluate import evaluate as measure
    from patchkit.facts.snippets import read_snippets
    from patchkit.patch.patch import Patch

    out = Out.choose("eval", json=json, quiet=quiet)
    limits = minimums(min, FIGURES[convention])
    asked = facts_command.read(facts or patches[-1], format)
    facts_command.warn(out, asked)
    probes = _probes(retain, format, asked) if retain else ()
    prose = text.read_text(encoding="utf-8") if text else None
    references = read_snippets(snippets) if snippets else None
    folder = local_base(base, out)
    with shown(out) as progress:
        loaded = load(folder, device, dtype)
        report = measure(
            loaded.model,
            loaded.tokenizer,
            [Patch.read(path) for path in patches],
            asked.facts,
            retention_probes=probes,
            text=prose,
            generate=generate or references is not None,
            snippets=references,
            tasks=tasks or (),
            seed=seed,
            checkpoint=loaded.checkpoint,
            progress=progress,
        )
    conclude(out, report, asked, convention, limits)


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
