"""Every supported architecture, from facts to a patched checkpoint that answers the same."""

from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.base import load_model
from patchkit.editing import edit
from patchkit.editing.replay import capture_replay
from patchkit.editing.rows import build_rows
from patchkit.live import applied
from patchkit.tensors.layout import blocks
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
