"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

FactsFormat = Literal[
    "auto",
    "jsonl",
    "counterfact",
    "zsre",
    "zsre-alphaedit",
    "knowedit",
    "conceptedit",
    "mquake",
    "leme",
    "rippleedits",
]
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Storage = Literal["float32", "bfloat16"]

PatchArgument = Annotated[
    Path, typer.Argument(metavar="PATCH", help="The patch file.", show_default=False)
]
BaseOption = Annotated[
    str,
    typer.Option(
        "--base",
        metavar="REF",
        help="Base model: a folder, org/name on the Hub, or atlas.",
        rich_help_panel="Input",
    ),
]
FormatOption = Annotated[
    FactsFormat,
    typer.Option("--format", help="How the facts are written.", rich_help_panel="Input"),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where to compute.", rich_help_panel="Compute")
]
DtypeOption = Annotated[
    Dtype, typer.Option("--dtype", help="Type the model is loaded in.", rich_help_panel="Compute")
]
MinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--min",
        metavar="METRIC=X",
        help="Exit 3 where METRIC is below X; repeatable.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
YesFlag = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Replace an existing output.", rich_help_panel="Output"),
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel="Format")
]
PullRequestFlag = Annotated[
    bool, typer.Option("--create-pr", help="Open a pull request.", rich_help_panel="Output")
]
RepoArgument = Annotated[
    str, typer.Argument(metavar="REPO", help="org/name on the Hub.", show_default=False)
]
QuietFlag = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Only the value that matters.", rich_help_panel="Format"),
]


def minimums(texts: list[str] | None, known: tuple[str, ...]) -> dict[str, float]:
    """`METRIC=X` texts as numbers; a usage error for an unknown metric or a bad number."""
    limits = {}
    for text in texts or []:
        name, _, number = text.partition("=")
        if name not in known:
            raise typer.BadParameter(f"--min {text}: the metrics are {', '.join(known)}")
        try:
            limits[name] = float(number)
        except ValueError:
            raise typer.BadParameter(f"--min {text}: {number!r} is not a number") from None
    return limits
