"""Ordinary prose for training and for perplexity: public-domain texts, pinned by digest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

# The texts are passed in, never committed. Another edition would train another model.
TEXTS: Final[dict[str, str]] = {
    "text/pd_darwin.txt": "751005e661905556d4ec32eec42850f6845dd5581a06e28df11f7dfaa05d47b6",
    "text/pd_world_factbook.txt": (
        "9239bee882ef71dd3c46f55eca60c120d72f78f7ad32a535de6b4a23d60ba275"
    ),
}
HELD_OUT_SHARE: Final = 0.02
SNIPPET: Final = re.compile(r"[A-Z][^.!?]{20,120}[.!?](?= |$)")


class ProseError(ValueError):
    """A text is missing or is not the edition that the model was trained on."""


def load_texts(data: Path) -> list[str]:
    """Return the texts, line breaks folded into spaces; ProseError if one is not as pinned."""
    texts = []
    for name, digest in TEXTS.items():
        path = data / name
        if not path.is_file():
            raise ProseError(f"{path} is missing; pass the folder that holds {name} with --data")
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ProseError(f"{path} has another sha256 than the pinned {digest}")
        texts.append(re.sub(r"\s+", " ", raw.decode("utf-8", "ignore")))
    return texts


def split_texts(texts: list[str]) -> tuple[list[str], list[str]]:
    """Split every text into its beginning, for training, and its last part, held out."""
    cuts = [int(len(text) * (1 - HELD_OUT_SHARE)) for text in texts]
    return [t[:c] for t, c in zip(texts, cuts, strict=True)], [
        t[c:] for t, c in zip(texts, cuts, strict=True)
    ]


def snippets(texts: list[str]) -> list[str]:
    """Return the short sentences of the texts, in their order."""
    return [match.group() for text in texts for match in SNIPPET.finditer(text)]
