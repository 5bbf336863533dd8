"""The texts that generated text is compared with: CounterFact's `attribute_snippets.json`.

An array of {relation_id, target_id, samples: [{text, …}]}: encyclopedia articles about subjects
that have the relation to the target. A folder may hold beside it `tfidf_vocab.json` (word → column)
and `idf.npy` (one weight per column), which the published figures weigh words with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchkit.errors import FactsError
from patchkit.facts.decoding import decode_json, without_bom
from patchkit.facts.fields import Fields

FILE = "attribute_snippets.json"
MAX_FILE_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class Snippets:
    """Texts by the name that facts call their `reference`; the weights of words where given.

    `vocabulary` gives each word its column and `idf` each column its weight, as scikit-learn has
    them; both are None where they are to be computed from the texts.
    """

    texts: Mapping[str, tuple[str, ...]]
    vocabulary: Mapping[str, int] | None = None
    idf: tuple[float, ...] | None = None


def reference(relation: str, target: str) -> str:
    """The name of the texts about subjects that have a relation to a target."""
    return f"{relation}/{target}"


def read_snippets(path: str | Path) -> Snippets:
    """Read `attribute_snippets.json`, or a folder with it and perhaps its weights.

    Raises FactsError for a file that cannot be read or has another shape.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    texts: dict[str, tuple[str, ...]] = {}
    for record in _array(file):
        fields = Fields(record)
        name = reference(fields.string("relation_id"), fields.string("target_id"))
        found = tuple(sample.string("text") for sample in fields.objects("samples"))
        fields.check()
        texts[name] = texts.get(name, ()) + found
    vocabulary, idf = file.with_name("tfidf_vocab.json"), file.with_name("idf.npy")
    if not (path.is_dir() and vocabulary.is_file() and idf.is_file()):
        return Snippets(texts)
    return Snippets(texts, *_weights(vocabulary, idf))


def _weights(vocabulary: Path, idf: Path) -> tuple[dict[str, int], tuple[float, ...]]:
    import numpy as np

    value = _json(vocabulary)
    columns = {word: at for word, at in _items(value) if isinstance(at, int)}
    try:
        weights = np.load(idf, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError) as error:
        raise FactsError(f"cannot read {idf}: {error}") from error
    if weights.ndim != 1 or {*columns.values()} != {*range(len(weights))}:
        raise FactsError(
            f"{vocabulary} has {len(columns)} words and {idf} weights of shape {weights.shape}: "
            "each word needs one weight"
        )
    return columns, tuple(weights.tolist())


def _items(value: object) -> Iterable[tuple[str, object]]:
    return value.items() if isinstance(value, dict) else ()


def _array(file: Path) -> list[object]:
    value = _json(file)
    if not isinstance(value, list):
        raise FactsError(f"{file} must be one JSON array of snippets")
    return value


def _json(file: Path) -> object:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise FactsError(f"{file} is larger than the limit of {MAX_FILE_BYTES} bytes")
        return decode_json(without_bom(file.read_bytes(), str(file)))
    except OSError as error:
        raise FactsError(f"cannot read {file}: {error.strerror or error}") from error
