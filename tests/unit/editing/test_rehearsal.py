"""Predictions on preserved text: kept exactly, compared by divergence, paid for in an edit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchkit.editing import edit, knowledge, rehearsal
from patchkit.editing.knowledge import Sources, preserved_text
from patchkit.editing.rehearsal import rehearse
from patchkit.errors import RecipeError
from patchkit.live import applied
from patchkit.parallel import Workers
from tests.unit.editing.samples import FACTS, QUICK, counted, loaded, tuned
from tests.unit.models.factory import ARCHITECTURES, tiny

TEXT = torch.randint(0, 300, (5, 7), generator=torch.Generator().manual_seed(0))


def moved(model: Any, by: float = 0.3) -> Any:
    """The same model with other weights."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += by * weight.std().nan_to_num() * torch.randn(weight.shape, generator=draw)
    return model


@torch.no_grad()
def literal(model: Any, after: Any, rows: Sequence[int], k: int = 32) -> float:
    """KL by token over `rows`, the unlikely ones taken for one, weighed by how sure `model` is.

    The least sure tokens, which together hold a tenth of all sureness, do not count.
    """
    old = model(input_ids=TEXT).logits[:, :-1].double().softmax(-1)
    sure = old.topk(min(k, old.shape[-1])).values.square().sum(-1)
    ranked = sorted(sure.flatten().tolist(), reverse=True)
    least = next(p for i, p in enumerate(ranked) if sum(ranked[: i + 1]) >= 0.9 * sum(ranked))
    new = after(input_ids=TEXT).logits[:, :-1].double().softmax(-1)
    total, weights = 0.0, 0.0
    for row, position in torch.nonzero(sure >= least).tolist():
        if row in rows:
            p, q = old[row, position], new[row, position]
            top = p.argsort(descending=True)[:k]
            one = torch.cat([p[top], (1 - p[top].sum())[None]])
            two = torch.cat([q[top], (1 - q[top].sum())[None]])
            weight = float(sure[row, position])
            total += weight * float((one * (one / two).log()).sum())
            weights += weight
    return total / weights


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_the_divergence_of_the_likeliest_and_the_rest(architecture: str) -> None:
    model, other = tiny(architecture), moved(tiny(architecture))
    with torch.no_grad():
        found = float(rehearse(model, TEXT).divergence(other, step=0))
    assert found == pytest.approx(literal(model, other, range(len(TEXT))), rel=1e-3)
    assert found > 1e-3


def test_only_the_surest_tokens_are_kept() -> None:
    kept = rehearse(tiny("llama3"), TEXT)
    every = TEXT.shape[0] * (TEXT.shape[1] - 1)
    assert 0 < len(kept.row) < every
    assert len(kept.likeliest) == len(kept.logprobs) == len(kept.position) == len(kept.row)
    places = list(zip(kept.row.tolist(), kept.position.tolist(), strict=True))
    assert places == sorted(set(places))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_unedited_model_does_not_diverge(architecture: str) -> None:
    model = tiny(architecture)
    with torch.no_grad():
        assert abs(float(rehearse(model, TEXT).divergence(model, step=3))) < 1e-6


def test_every_row_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_TOKENS_AT_ONCE", 2 * TEXT.shape[1] + 1)
    model, other = tiny("llama3"), moved(tiny("llama3"))
    kept = rehearse(model, TEXT)
    for step, turn in enumerate([(0, 1), (2, 3), (4, 0), (1, 2), (3, 4), (0, 1)]):
        with torch.no_grad():
            found = float(kept.divergence(other, step))
        assert found == pytest.approx(literal(model, other, turn), rel=1e-3)


def test_the_shares_of_processes_add_up() -> None:
    model = tiny("llama3")
    kept = rehearse(model, TEXT)
    moved(model)
    with torch.no_grad():
        parts = [float(kept.divergence(model, 0, Workers(rank, 7))) for rank in range(7)]
        assert sum(parts) == pytest.approx(float(kept.divergence(model, 0)), rel=1e-5)
    assert parts[5:] == [0.0, 0.0]


def test_an_edit_that_rehearses_diverges_less(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    text = preserved_text(model, tokenizer, QUICK, Sources(checkpoint))
    kept = rehearse(model, text)
    diverges = []
    for price in (0.0, 300.0):
        recipe = tuned(replace(QUICK, layers=(1,)), preserve=0.0, rehearse=price)
        made = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=recipe)
        with applied(model, made.patch, checkpoint=checkpoint), torch.no_grad():
            diverges.append(float(kept.divergence(model, 0)))
    assert 0 < diverges[1] < diverges[0] / 2


def test_the_base_reads_once_and_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    read = counted(monkeypatch, knowledge, "rehearse")
    kept = {"checkpoint": checkpoint, "cache_dir": tmp_path / "cache"}
    edit(model, tokenizer, FACTS, recipe=tuned(QUICK, rehearse=0.0), **kept)
    assert read == []
    recipe = tuned(QUICK, rehearse=10.0)
    patches = [edit(model, tokenizer, FACTS, recipe=recipe, **kept).patch for _ in range(2)]
    assert read == [1]
    assert patches[0].to_bytes() == patches[1].to_bytes()


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(RecipeError, match="rehearse"):
        tuned(QUICK, rehearse=-1.0)
