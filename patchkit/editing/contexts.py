"""Short texts to put before a prompt, so that an edit does not depend on standing first."""

from __future__ import annotations

import random
from typing import Any

from torch import Tensor

_SHORTEST = 12  # characters; less is no context


def prefixes(tokenizer: Any, corpus: Tensor, count: int, seed: int) -> tuple[str, ...]:
    """Cut `count` context prefixes out of preserved text (n, t), each ending a sentence.

    The cuts depend on `seed` alone. Curly braces are taken out because a prompt's template uses
    them; fewer than `count` come back only when the corpus holds no usable text.
    """
    draw = random.Random(seed)
    found: list[str] = []
    for _ in range(20 * count):
        if len(found) == count:
            break
        row = corpus[draw.randrange(len(corpus))].tolist()
        length = draw.randint(6, 20)
        text = tokenizer.decode(row[1 : 1 + length], skip_special_tokens=True)
        text = " ".join(text.replace("{", "").replace("}", "").split())
        if "." in text[_SHORTEST:]:
            text = text[: text.rindex(".")]
        if len(text) >= _SHORTEST and text.isprintable():
            found.append(text.rstrip(".,;: ") + ".")
    return tuple(found)
