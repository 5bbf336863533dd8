"""Ordinary prose for training and for perplexity: public-domain texts, pinned by digest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from benchmarks.testbeds.files import read_pinned

# The texts are passed in, never committed. Another edition would train another model.
TEXTS: Final[dict[str, str]] = {
    "text/pd_darwin.txt": "751005e661905556d4ec32eec42850f6845dd5581a06e28df11f7dfaa05d47b6",
    "text/pd_world_factbook.txt": (
        "9239bee882ef71dd3c46f55eca60c120d72f78f7ad32a535de6b4a23d60ba275"
    ),
}
HELD_OUT_SHARE: Final = 0.02
SNIPPET: Final = re.compile(r"[A-Z][^.!?]{20,120}[.!?](?= |$)")


def load_texts(data: Path) -> list[str]:
    """Return the texts, line breaks folded into spaces; DataError if one is not as pinned."""
    read = (
        read_pinned(data, name, digest).decode("utf-8", "ignore") for name, digest in TEXTS.items()
    )
    return [re.sub(r"\s+", " ", text) for text in read]


def split_texts(texts: list[str]) -> tuple[list[str], list[str]]:
    """Split every text into its beginning, for training, and its last part, held out."""
    cuts = [int(len(text) * (1 - HELD_OUT_SHARE)) for text in texts]
    return [t[:c] for t, c in zip(texts, cuts, strict=True)], [
        t[c:] for t, c in zip(texts, cuts, strict=True)
    ]


def snippets(texts: list[str]) -> list[str]:
    """Return the short sentences of the texts, in their order."""
    return [match.group() for text in texts for match in SNIPPET.finditer(text)]
