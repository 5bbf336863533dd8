"""Every supported architecture, from facts to a patched checkpoint that answers the same."""

from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.base import load_model
from patchkit.editing import edit
from patchkit.editing.place import Place
from patchkit.editing.replay import capture_replay, replay_subjects
from patchkit.editing.rows import build_rows
from patchkit.live import applied
from patchkit.tensors.layout import blocks, sites
from tests.unit.editing.samples import FACTS, QUICK, loaded
from tests.unit.models.factory import ARCHITECTURES, tiny, tiny_tokenizer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_edit_reaches_the_saved_checkpoint(architecture: str, tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base", architecture)
    made = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    before, after = zip(*((fact.before, fact.after) for fact in made.report.facts), strict=True)
    assert sum(after) > 2 * sum(before)

    made.patch.write(tmp_path / "p.patch.safetensors")
    apply_patches(tmp_path / "base", [tmp_path / "p.patch.safetensors"], tmp_path / "patched")
    patched = load_model(tmp_path / "patched")
    ids = torch.tensor([tokenizer(FACTS[0].text)["input_ids"]])
    plain = model(input_ids=ids).logits
    with applied(model, made.patch, checkpoint=checkpoint):
        expected = model(input_ids=ids).logits
    assert torch.equal(patched(input_ids=ids).logits, expected)
    assert not torch.allclose(plain, expected)
    assert torch.equal(model(input_ids=ids).logits, plain)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replay_gives_the_models_own_logits(architecture: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    rows = build_rows(tokenizer, FACTS, "", model.device)
    expected = model(input_ids=rows.ids, attention_mask=rows.mask).logits
    for first in range(len(blocks(model))):
        replay = capture_replay(model, rows.ids, rows.mask, first)
        found = replay.logits(rows.label_row, rows.label_position)
        wanted = expected[rows.label_row, rows.label_position]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("context", ["", "Nobody knew it. "])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_stands_before_a_subject_needs_to_run_once(architecture: str, context: str) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    rows = build_rows(tokenizer, FACTS, context, model.device)
    expected = model(input_ids=rows.ids, attention_mask=rows.mask).logits
    wanted = expected[rows.label_row, rows.label_position]
    for first in range(len(blocks(model)) + 1):
        replay = replay_subjects(model, rows, first)
        for _ in range(2):  # nothing of one pass is left in the cache for the next
            for narrow in (False, True):
                found = replay.logits(rows.label_row, rows.label_position, narrow=narrow)
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert replay.hidden.shape[1] < rows.ids.shape[1]
        kept = torch.tensor([2, 0])
        fewer = rows.only(kept.tolist())
        if replay.beginning is not None:
            again = replay_subjects(model, fewer, first, replay.beginning.only(kept))
            found = again.logits(fewer.label_row, fewer.label_position)
            whole = model(input_ids=fewer.ids, attention_mask=fewer.mask).logits
            wanted_again = whole[fewer.label_row, fewer.label_position]
            torch.testing.assert_close(found, wanted_again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_moving_a_value_does_the_same_with_and_without_what_stands_before(
    architecture: str,
) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    rows = build_rows(tokenizer, FACTS, "Nobody knew it. ", model.device)
    place = Place.behind(model, sites(model)[:1])
    first = place.site.layer + (1 if place.stream else 0)
    whole = capture_replay(model, rows.ids, rows.mask, first)
    short = place.replay(rows)
    shift = torch.randn(rows.count, place.site.d_out, generator=torch.manual_seed(0))
    grads = []
    for replay in (whole, short):
        moved = shift.clone().requires_grad_()
        logits = place.logits(replay, rows, moved, rows.label_row, rows.label_position)
        torch.autograd.backward(logits.square().mean())
        assert moved.grad is not None
        grads.append((logits.detach(), moved.grad))
    assert float(grads[0][1].norm()) > 0
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
