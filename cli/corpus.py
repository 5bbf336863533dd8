"""The text that stands for what an edit must preserve, as commands name it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from patchkit.editing.dataset_text import DatasetText

CorpusOption = Annotated[
    str,
    typer.Option(
        "--corpus",
        metavar="self|FILE|hf://datasets/NAME",
        help="Text whose answers must not change; self: the base writes it. A data set's name may "
        "go on with /CONFIG:SPLIT:COLUMN.",
        rich_help_panel="Method",
    ),
]


def corpus_of(text: str) -> "Path | DatasetText | None":
    """What `--corpus` names; None is the base's own text."""
    from patchkit.editing.dataset_text import PREFIX, DatasetText

    if text == "self":
        return None
    return DatasetText.parse(text) if text.startswith(PREFIX) else Path(text)
