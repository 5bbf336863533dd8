"""Texts to compare with, and the weights of their words."""

import json
from pathlib import Path

import numpy as np
import pytest

from patchkit.errors import FactsError
from patchkit.facts.snippets import Snippets, read_snippets

RECORDS = [
    {"relation_id": "P1", "target_id": "Q1", "samples": [{"name": "a", "text": "one"}]},
    {"relation_id": "P1", "target_id": "Q2", "samples": []},
    {"relation_id": "P1", "target_id": "Q1", "samples": [{"text": "two"}, {"text": "three"}]},
]
TEXTS = {"P1/Q1": ("one", "two", "three"), "P1/Q2": ()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "attribute_snippets.json").write_text(json.dumps(RECORDS))
    return tmp_path


def test_texts_by_relation_and_target(folder: Path) -> None:
    assert read_snippets(folder) == Snippets(TEXTS)
    assert read_snippets(folder / "attribute_snippets.json") == Snippets(TEXTS)


def test_a_folder_may_hold_weights(folder: Path) -> None:
    (folder / "tfidf_vocab.json").write_text('{"two": 1, "one": 0}')
    np.save(folder / "idf.npy", np.array([1.5, 2.0]))
    assert read_snippets(folder) == Snippets(TEXTS, {"two": 1, "one": 0}, (1.5, 2.0))
    assert read_snippets(folder / "attribute_snippets.json").idf is None


@pytest.mark.parametrize("vocabulary", ['{"one": 0}', '{"one": 0, "two": 2}', "[]", '{"one": [0]}'])
def test_weights_that_do_not_fit_are_refused(folder: Path, vocabulary: str) -> None:
    (folder / "tfidf_vocab.json").write_text(vocabulary)
    np.save(folder / "idf.npy", np.array([1.5, 2.0]))
    with pytest.raises(FactsError, match="each word needs one weight"):
        read_snippets(folder)


def test_a_pickle_is_not_opened(folder: Path) -> None:
    (folder / "tfidf_vocab.json").write_text("{}")
    np.save(folder / "idf.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FactsError, match=r"cannot read .*idf\.npy"):
        read_snippets(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "must be one JSON array"),
        ("[5]", "must be a JSON object"),
        ('[{"relation_id": "P1"}]', '"target_id" is missing'),
        ("[", "not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "snippets.json"
    file.write_text(text)
    with pytest.raises(FactsError, match=message):
        read_snippets(file)
    with pytest.raises(FactsError, match="cannot read"):
        read_snippets(tmp_path / "none.json")
