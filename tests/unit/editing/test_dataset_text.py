"""A data set as preserved text, through a module that stands for the `datasets` package."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patchkit.editing.dataset_text import DatasetText, dataset_corpus
from patchkit.editing.knowledge import Sources, preserved_text
from patchkit.errors import ExtraMissing, FactsError
from tests.unit.editing.samples import QUICK, loaded
from tests.unit.models.factory import tiny_tokenizer

SENTENCE = "The capital of Italy is Rome. "
TEXT = DatasetText("someone/some")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put a data set of 100 texts in place; what is asked of it, and each text that is read."""
    seen: list[Any] = []

    def entries() -> Iterator[dict[str, object]]:
        for number in range(100):
            seen.append(number)
            yield {"text": SENTENCE, "id": number}

    def load_dataset(path: str, config: str | None, *, split: str, streaming: bool) -> Any:
        if path == "someone/nothing":
            raise FileNotFoundError("there is no data set\nand a long story")
        seen.append((path, config, split, streaming))
        return entries()

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return seen


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("hf://datasets/wiki", DatasetText("wiki")),
        ("hf://datasets/a/b", DatasetText("a/b")),
        ("hf://datasets/a/b/c:test", DatasetText("a/b", "c", "test")),
        ("hf://datasets/a/b::body", DatasetText("a/b", None, "train", "body")),
        ("hf://datasets/a/b:test:body", DatasetText("a/b", None, "test", "body")),
    ],
)
def test_a_reference_is_read(reference: str, meant: DatasetText) -> None:
    assert DatasetText.parse(reference) == meant
    assert DatasetText.parse(meant.name) == meant


@pytest.mark.parametrize(
    "reference",
    [
        "wiki",
        "hf://datasets/",
        "hf://datasets/a//b",
        "hf://datasets/a/b/c/d",
        "hf://datasets/a:b:c:d",
    ],
)
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(FactsError, match="does not name the text"):
        DatasetText.parse(reference)


def test_no_more_is_read_than_is_needed(asked: list[Any]) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(SENTENCE)["input_ids"]
    found = dataset_corpus(TEXT, tokenizer, rows=3, length=len(ids))
    assert found.tolist() == [ids] * 3
    assert asked == [("someone/some", None, "train", True), 0, 1, 2]


def test_what_cannot_be_read_is_said(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(FactsError, match=r"someone/nothing:train:text cannot be .* no data set$"):
        dataset_corpus(DatasetText("someone/nothing"), tokenizer, rows=3, length=4)
    with pytest.raises(FactsError, match="no text in its column id, only text, id"):
        dataset_corpus(DatasetText("someone/some", column="id"), tokenizer, rows=3, length=4)
    with pytest.raises(FactsError, match="fewer than one window of 9999"):
        dataset_corpus(TEXT, tokenizer, rows=3, length=9999)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ExtraMissing) as caught:
        dataset_corpus(TEXT, tokenizer, rows=3, length=4)
    assert caught.value.hint == "pip install 'patchkit-lm[datasets]'"


def test_the_text_of_a_data_set_is_kept(asked: list[Any], tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    sources = Sources(checkpoint, TEXT, tmp_path / "cache")
    first = preserved_text(model, tokenizer, QUICK, sources)
    read = len(asked)
    assert read > 1
    assert preserved_text(model, tokenizer, QUICK, sources).tolist() == first.tolist()
    assert len(asked) == read
