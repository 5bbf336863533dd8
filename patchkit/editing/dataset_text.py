"""Text from a Hugging Face data set, read as a stream through the `datasets` package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchkit.errors import ExtraMissing, FactsError
from patchkit.events import SILENT, Progress, phase

PREFIX = "hf://datasets/"


@dataclass(frozen=True, slots=True)
class DatasetText:
    """The texts in one `column` of one `split`; `config` names one of several in the data set."""

    path: str
    config: str | None = None
    split: str = "train"
    column: str = "text"

    @classmethod
    def parse(cls, reference: str) -> DatasetText:
        """Read `hf://datasets/OWNER/NAME[/CONFIG][:SPLIT][:COLUMN]`; FactsError for anything else.

        The parts that are left out are `train` and `text`.
        """
        where, *rest = reference.removeprefix(PREFIX).split(":")
        names = where.split("/")
        if not (reference.startswith(PREFIX) and len(names) <= 3 and len(rest) <= 2 and all(names)):
            raise FactsError(
                f"{reference!r} does not name the text of a data set",
                hint=f"write {PREFIX}OWNER/NAME[/CONFIG][:SPLIT][:COLUMN]",
            )
        split, column = [*rest, "", ""][:2]
        config = names[2] if len(names) == 3 else None
        return cls("/".join(names[:2]), config, split or "train", column or "text")

    @property
    def name(self) -> str:
        """The reference that stands for it."""
        where = self.path if self.config is None else f"{self.path}/{self.config}"
        return f"{PREFIX}{where}:{self.split}:{self.column}"


def dataset_corpus(
    text: DatasetText, tokenizer: Any, *, rows: int, length: int, progress: Progress = SILENT
) -> Tensor:
    """Cut the first texts of a data set into at most `rows` windows of `length` tokens.

    Returns (rows, length). Reads no further than it needs to. Raises ExtraMissing without the
    `datasets` package and FactsError when there is no such text, or less than one window of it.
    """
    ids: list[int] = []
    with phase(progress, "reading the data set", rows, "texts") as advance:
        for entry in _texts(text):
            before = min(rows, len(ids) // length)
            ids += tokenizer(entry, return_attention_mask=False)["input_ids"]
            advance(min(rows, len(ids) // length) - before)
            if len(ids) >= rows * length:
                break
    count = min(rows, len(ids) // length)
    if count == 0:
        raise FactsError(f"{text.name} has {len(ids)} tokens, fewer than one window of {length}")
    return torch.tensor(ids[: count * length]).reshape(count, length)


def _texts(text: DatasetText) -> Iterator[str]:
    try:
        import datasets
    except ImportError as error:
        raise ExtraMissing(
            f"a data set as preserved text needs the package datasets: {error}",
            hint="pip install 'patchkit-lm[datasets]'",
        ) from error
    try:
        stream = datasets.load_dataset(text.path, text.config, split=text.split, streaming=True)
        for entry in stream:
            yield _text_of(entry, text)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FactsError(f"{text.name} cannot be read: {first}") from error


def _text_of(entry: dict[str, Any], text: DatasetText) -> str:
    found = entry.get(text.column)
    if not isinstance(found, str):
        raise FactsError(
            f"{text.name} has no text in its column {text.column}, only {', '.join(entry)}",
            hint=f"name the column of the text at the end: {PREFIX}OWNER/NAME:SPLIT:COLUMN",
        )
    return found
