"""What atlas's training relies on: tokens are labelled as what they are, and names are shielded."""

from __future__ import annotations

import itertools
import random
from functools import lru_cache

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.atlas.tokenizer import BOS_ID, train_tokenizer
from benchmarks.atlas.world import WORLD
from benchmarks.testbeds import batches, shield
from benchmarks.testbeds.model import make_model
from benchmarks.testbeds.optimise import Draws, loss_of, make_optimizers, schedule
from benchmarks.testbeds.readout import Readout
from benchmarks.testbeds.world import Sentence

SNIPPETS = ["A short piece of prose.", "Another piece, a little longer than the first."]


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(WORLD.sentence(fact, 0) for fact in WORLD.facts)


@lru_cache(maxsize=1)
def some_rows() -> list[batches.Rows]:
    table = batches.PieceTable(WORLD, tokenizer(), SNIPPETS)
    prose = np.arange(3, 1000, dtype=np.int32)
    return list(itertools.islice(batches.batches(table, prose, 4, 0), 5))


def test_names_and_objects_are_told_apart() -> None:
    fact = next(f for f in WORLD.facts if f.subject == "France" and f.relation == "capital")
    table = batches.PieceTable(WORLD, tokenizer(), SNIPPETS)
    piece = table.piece(Sentence(fact, 0))

    def text(kind: int) -> str:
        return str(tokenizer().decode(piece.ids[piece.kinds == kind])).strip()

    assert text(batches.NAME) == "France"
    assert text(batches.OBJECT) == "Paris"
    assert (piece.subjects >= 0).sum() == 1


def test_every_row_begins_with_bos_and_says_whole_sentences() -> None:
    for rows in some_rows():
        assert (rows.ids[:, 0] == BOS_ID).all()
        assert rows.facts_said > 0
        asked = rows.labels[rows.objects]
        assert (asked == rows.ids[rows.objects]).all()


def test_no_token_outside_a_name_sees_more_of_it_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shield, "SHIELDED_ROWS", 1.0)
    names = torch.tensor([[0, 1, 1, 1, 0, 0, 1, 0]], dtype=torch.bool)
    first, later = (mask[0, 0] for mask in shield.masks(names, torch.Generator().manual_seed(0)))
    assert not first[4:, 1:4].any()
    assert first[3, 1:4].all()
    assert later[4:, 3].all()
    assert not later[4:, 1:3].any()
    assert not first[6, 1:4].any()
    assert not torch.triu(later, 1).any()


def test_a_few_steps_lower_the_loss() -> None:
    model = make_model(tokenizer(), width=64, mlp=128, layers=2, seed=0)
    readout = Readout(WORLD, tokenizer(), 64)
    optimizers = make_optimizers(model, readout, 5e-3, 5e-3)
    draws = Draws(torch.Generator().manual_seed(0), random.Random(0))
    rows, losses = some_rows()[0], []
    for _ in range(8):
        loss = loss_of(model, readout, rows, draws)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_learning_rate_warms_up_and_decays() -> None:
    assert schedule(0.0) == 0
    assert schedule(0.2) == 1
    assert 0 < schedule(1.0) < 0.01
