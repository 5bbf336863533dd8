"""GPT-2's tokenizer, whole or restricted to the tokens that occur."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from benchmarks.testbeds.files import read_pinned

VOCAB: Final = (
    "tokenizer_gpt2/encoder.json",
    "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
)
MERGES: Final = (
    "tokenizer_gpt2/vocab.bpe",
    "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
)
END: Final = "<|endoftext|>"
Merge = tuple[str, str]


def read_merges(data: Path) -> list[Merge]:
    """Return GPT-2's merges in their order."""
    lines = read_pinned(data, *MERGES).decode().splitlines()[1:]
    pairs = (line.split(" ") for line in lines if line)
    return [(left, right) for left, right in pairs]


def read_vocab(data: Path) -> dict[str, int]:
    """Return GPT-2's tokens with their numbers."""
    vocab: dict[str, int] = json.loads(read_pinned(data, *VOCAB))
    return vocab


def make_tokenizer(vocab: dict[str, int], merges: list[Merge]) -> PreTrainedTokenizerFast:
    """Return the tokenizer with `<|endoftext|>` in front of every text.

    A space is put before the first word too (GPT-2's `add_prefix_space`), so that a name is cut the
    same way wherever it stands.
    """
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.add_special_tokens([END])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, vocab[END])]
            ),
        ]
    )  # fmt: skip
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=512,
    )


def restrict(
    vocab: dict[str, int], merges: list[Merge], texts: Iterable[str]
) -> tuple[dict[str, int], list[Merge]]:
    """Keep the tokens that these texts are cut into, all tokens of one byte, and their parts.

    A text whose tokens are all kept is cut as GPT-2 cuts it. Every merge on its way to them makes a
    token or a part of one, so it is kept; and a merge that GPT-2 takes because no earlier one
    applies is also the earliest one that applies among fewer merges. Other texts are cut finer.
    """
    whole = make_tokenizer(vocab, merges).backend_tokenizer
    coded = whole.encode_batch(list(texts), add_special_tokens=False)
    wanted = {token for code in coded for token in code.tokens}
    wanted |= {token for token in vocab if len(token) == 1} | {END}
    for left, right in reversed(merges):
        if left + right in wanted:
            wanted |= {left, right}
    kept = sorted(wanted, key=vocab.__getitem__)
    return (
        {token: number for number, token in enumerate(kept)},
        [(left, right) for left, right in merges if left + right in wanted],
    )
