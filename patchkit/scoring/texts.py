"""What is measured on generated text: answers given freely, fluency, consistency.

Fluency and consistency are ROME's, as MEMIT and AlphaEdit report them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from patchkit.errors import ExtraMissing
from patchkit.facts.snippets import Snippets

_WORD = re.compile(r"\w+|[^\w\s]")


def answered(text: str, answers: Sequence[str]) -> bool:
    """Whether a continuation begins with one of the answers, and the answer's last word ends there.

    Case and the amount of white space do not count. "Parisian" does not answer "Paris".
    """
    said = _plain(text)
    found = (said[len(answer) :] for answer in map(_plain, answers) if said.startswith(answer))
    return any(not rest[:1].isalnum() for rest in found)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def ngram_entropy(text: str) -> float:
    """Fluency of one text in bits: (2/3 H₂ + 4/3 H₃)/2, H the entropy of its 2- and 3-grams.

    0 for a text of fewer than two words that repeats nothing new; near log₂ of the number of words
    for one that never repeats itself.
    """
    words = _WORD.findall(text)
    return (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: Sequence[str], size: int) -> float:
    grams = Counter(tuple(words[at : at + size]) for at in range(len(words) - size + 1))
    total = grams.total()
    return -math.fsum(count / total * math.log2(count / total) for count in grams.values()) + 0.0


class Vectors:
    """TF-IDF vectors of length 1 over the words of reference texts.

    The weights are those given with the snippets, else computed from the snippets. Raises
    ExtraMissing without scikit-learn.
    """

    def __init__(self, snippets: Snippets) -> None:
        """Prepare the weights."""
        self._texts: Mapping[str, str] = {
            name: " ".join(texts) for name, texts in snippets.texts.items() if texts
        }
        self._vectorizer = _vectorizer()
        if snippets.vocabulary is not None:
            self._vectorizer.set_params(vocabulary=dict(snippets.vocabulary))
            self._vectorizer.idf_ = np.array(snippets.idf)
        elif self._texts:
            self._vectorizer.fit(self._texts.values())

    def consistency(self, text: str, reference: str | None) -> float | None:
        """Cosine of the vectors of `text` and of the reference texts; None without any."""
        if reference is None or reference not in self._texts:
            return None
        left, right = self._vectorizer.transform([text, self._texts[reference]])
        return float(left.multiply(right).sum())


def _vectorizer() -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise ExtraMissing(
            "consistency needs scikit-learn, which is not installed",
            hint="pip install 'patchkit-lm[bench]'",
        ) from error
    return TfidfVectorizer()
