"""Sensitivity of predictions to values, against gradients taken token by token."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patchkit.editing import edit, knowledge
from patchkit.editing.capture import module_of
from patchkit.editing.sensitivity import Sensitivity, gather_sensitivity
from patchkit.editing.statistics import Statistics, gather
from patchkit.errors import RecipeError
from patchkit.tensors.layout import Site, sites
from tests.unit.editing.samples import FACTS, QUICK, counted, loaded
from tests.unit.models.factory import ARCHITECTURES, tiny

TEXT = torch.randint(0, 300, (3, 5), generator=torch.Generator().manual_seed(0))


def literal(model: Any, site: Site) -> tuple[Tensor, Tensor]:
    """E[‖g‖² k kᵀ] and E[g gᵀ], with g from moving one value at a time, up to their scales."""
    keys = torch.zeros(site.d_in, site.d_in)
    values = torch.zeros(site.d_out, site.d_out)
    for row in TEXT:
        for place in range(len(row)):
            move = torch.zeros(site.d_out, requires_grad=True)
            seen: list[Tensor] = []

            def shift(module: Any, args: Any, out: Tensor, move=move, place=place, seen=seen):  # type: ignore[no-untyped-def]
                seen.append(args[0].reshape(-1, args[0].shape[-1])[place])
                where = torch.zeros(out.shape[-2]).index_fill(0, torch.tensor(place), 1.0)
                return out + where[:, None] * move

            handle = module_of(model, site).register_forward_hook(shift)
            scores = model(input_ids=row[None], use_cache=False).logits[0].log_softmax(-1)
            handle.remove()
            loss = -scores[:-1].gather(1, row[1:, None]).sum()
            (slope,) = torch.autograd.grad(loss, move)
            keys += slope.square().sum() * torch.outer(seen[0], seen[0])
            values += torch.outer(slope, slope)
    return keys / keys.diagonal().mean(), values / values.diagonal().mean()


@pytest.mark.parametrize("architecture", ["llama3", "gpt2", "opt", "gemma2"])
def test_it_is_what_moving_values_one_by_one_shows(architecture: str) -> None:
    model = tiny(architecture)
    every = sites(model)
    found = gather_sensitivity(model, TEXT, every)
    for site in every:
        keys, values = literal(model, site)
        torch.testing.assert_close(found[site.layer].keys, keys, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[site.layer].values, values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_one(architecture: str) -> None:
    model = tiny(architecture)
    before = torch.get_rng_state()
    for one in gather_sensitivity(model, TEXT, sites(model)).values():
        for part in (one.keys, one.values):
            assert float(part.diagonal().mean()) == pytest.approx(1.0, rel=1e-5)
            assert float(torch.linalg.eigvalsh(part.double())[0]) > -1e-4
    assert torch.equal(torch.get_rng_state(), before)


def test_a_share_mixes_both_moments_and_keeps_the_energy() -> None:
    model = tiny("llama3")
    site = sites(model)[0]
    plain = gather(model, TEXT, [site])[0]
    one: Sensitivity = gather_sensitivity(model, TEXT, [site])[0]
    mixed = one.weigh(plain, 0.75)
    expected = 0.25 * plain.moment + 0.75 * plain.energy * one.keys
    torch.testing.assert_close(mixed.moment, expected)
    assert mixed.energy == pytest.approx(plain.energy, rel=1e-5)
    change = torch.randn(site.d_out, 3, generator=torch.Generator().manual_seed(1))
    metric = 0.25 * torch.eye(site.d_out) + 0.75 * one.values
    cost = float((change * (metric @ change)).sum())
    assert float(mixed.cost(change).square().sum()) == pytest.approx(cost, rel=1e-4)
    assert Statistics(plain.moment, 1).cost(change) is change


def test_an_edit_takes_it_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    recipe = replace(QUICK, sensitivity=0.9)
    made = counted(monkeypatch, knowledge, "gather_sensitivity")
    kept = {"checkpoint": checkpoint, "cache_dir": tmp_path / "cache"}
    first = edit(model, tokenizer, FACTS, recipe=recipe, **kept)
    second = edit(model, tokenizer, FACTS, recipe=recipe, **kept)
    assert made == [1]
    assert first.patch.to_bytes() == second.patch.to_bytes()
    plain = edit(model, tokenizer, FACTS, recipe=QUICK, **kept)
    assert plain.patch.digest != first.patch.digest


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_outside_one_are_refused(share: float) -> None:
    with pytest.raises(RecipeError, match="sensitivity must be at"):
        replace(QUICK, sensitivity=share)
