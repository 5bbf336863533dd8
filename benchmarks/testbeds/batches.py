"""Rows of tokens for training, with what each token is and which of them are labels."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.testbeds.world import Fact, Sentence, World

ROW: Final = 128
PROSE_ROWS: Final = 0.05
# Kinds of tokens, and how often each is a label. Names cannot be foreseen, so learning them is
# noise; wordings are learnt in minutes; only objects are what the model is for.
PADDING, OBJECT, WORDING, NAME, PROSE = 0, 1, 2, 3, 4
LABEL_SHARE: Final = np.array([0.0, 1.0, 0.15, 0.04, 0.5], dtype=np.float32)
NOBODY: Final = -1

Ints = npt.NDArray[np.int32]


class Piece(NamedTuple):
    """Tokens, the kind of each, and at the last token of a name the number of its subject."""

    ids: Ints
    kinds: npt.NDArray[np.int8]
    subjects: Ints


@dataclass(frozen=True, slots=True)
class Rows:
    """What one step of training reads; labels are -100 where nothing is asked."""

    ids: torch.Tensor
    labels: torch.Tensor
    objects: torch.Tensor
    names: torch.Tensor
    subjects: torch.Tensor
    facts_said: int

    def to(self, device: str) -> Rows:
        """Return the same rows on a device."""
        tensors = {
            name: getattr(self, name).to(device)
            for name in ("ids", "labels", "objects", "names", "subjects")
        }
        return replace(self, **tensors)


def _plain(ids: Sequence[int] | Ints, kind: int) -> Piece:
    size = len(ids)
    kinds = np.full(size, kind, np.int8)
    return Piece(np.asarray(ids, np.int32), kinds, np.full(size, NOBODY, np.int32))


def _fact_piece(
    fact: Fact, text: str, ids: list[int], offsets: list[tuple[int, int]], subject: int
) -> Piece:
    """Tell names and objects apart from the wording by their places in the sentence."""
    piece, start = _plain(ids, WORDING), text.index(fact.subject)
    end, stop = start + len(fact.subject), len(text) - 1
    for i, (a, b) in enumerate(offsets):
        if a < end and b > start:
            piece.kinds[i] = NAME
        elif a < stop and b > stop - len(fact.object):
            piece.kinds[i] = OBJECT
    piece.subjects[np.flatnonzero(piece.kinds == NAME).max()] = subject
    return piece


class PieceTable:
    """Every sentence that training may say, and every piece of prose, cut into tokens once."""

    def __init__(
        self, world: World, tokenizer: PreTrainedTokenizerFast, snippets: Sequence[str]
    ) -> None:
        self.world, self.snippets = world, snippets
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        bos, eos, self._pad = (int(getattr(tokenizer, name)) for name in names)
        self.begin = _plain([bos], PADDING)
        # Where one token does both, it ends a document and begins the next.
        self.between = [_plain([eos], WORDING)] + ([self.begin] if bos != eos else [])
        encode = tokenizer.backend_tokenizer.encode_batch
        numbers = {subject: i for i, subject in enumerate(sorted(world.by_subject))}
        keys = [(fact, w) for fact in world.facts for w in world.trained_wordings(fact)]
        texts = [world.sentence(*key) for key in keys]
        coded = encode(texts, add_special_tokens=False)
        self._facts = {
            key: _fact_piece(key[0], text, code.ids, code.offsets, numbers[key[0].subject])
            for key, text, code in zip(keys, texts, coded, strict=True)
        }
        coded = encode(list(snippets), add_special_tokens=False)
        self._prose = {
            text: _plain(code.ids, PROSE) for text, code in zip(snippets, coded, strict=True)
        }

    def piece(self, sentence: Sentence) -> Piece:
        """Return the tokens of one piece of a document."""
        if sentence.fact is None:
            return self._prose[sentence.prose]
        return self._facts[sentence.fact, sentence.wording]

    def row(self, pieces: list[Piece]) -> Piece:
        """Join pieces to a padded row."""
        size = sum(len(piece.ids) for piece in pieces)
        padded = [*pieces, _plain([self._pad] * (ROW - size), PADDING)]
        ids, kinds, subjects = (np.concatenate(arrays) for arrays in zip(*padded, strict=True))
        return Piece(ids, kinds, subjects)


def _fact_rows(table: PieceTable, seed: int) -> Iterator[Piece]:
    """Yield rows of whole sentences: a document that does not fit goes on in a fresh row."""
    row, length = [table.begin], 1
    for document in table.world.documents(seed, table.snippets):
        for i, sentence in enumerate(document):
            piece = table.piece(sentence)
            if length + len(piece.ids) + 1 > ROW:
                yield table.row(row)
                row, length = [table.begin], 1
            row.append(piece)
            length += len(piece.ids)
            if i == len(document) - 1 and length + len(table.between) < ROW:
                row += table.between
                length += len(table.between)


def _prose_row(table: PieceTable, prose: Ints, drawn: random.Random) -> Piece:
    start = drawn.randrange(len(prose) - ROW)
    return table.row([table.begin, _plain(prose[start : start + ROW - 1], PROSE)])


def batches(table: PieceTable, prose: Ints, rows: int, seed: int) -> Iterator[Rows]:
    """Yield rows without end; the seed decides all of them."""
    rng, drawn = np.random.default_rng(seed), random.Random(seed + 1)
    facts = _fact_rows(table, seed)
    while True:
        parts = [
            _prose_row(table, prose, drawn) if drawn.random() < PROSE_ROWS else next(facts)
            for _ in range(rows)
        ]
        ids, kinds, subjects = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        objects = kinds == OBJECT
        asked = rng.random(ids.shape, np.float32) < LABEL_SHARE[kinds]
        yield Rows(
            ids=torch.from_numpy(ids),
            labels=torch.from_numpy(np.where(asked, ids, -100)),
            objects=torch.from_numpy(objects),
            names=torch.from_numpy(kinds == NAME),
            subjects=torch.from_numpy(subjects),
            facts_said=int((objects[:, :-1] & ~objects[:, 1:]).sum()),
        )
