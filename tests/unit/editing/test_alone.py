"""Subjects that are rotated alone while a fact is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patchkit.editing import edit
from patchkit.editing.asking import Asked
from patchkit.editing.capture import module_of, weight_of
from patchkit.editing.methods.rotation import _alone, _factor
from patchkit.editing.recipe import Recipe
from patchkit.editing.rotor import Rotor
from patchkit.errors import RecipeError
from patchkit.factors.action import dense
from patchkit.tensors.layout import blocks, sites
from tests.unit.editing.samples import FACTS, QUICK, loaded, tuned
from tests.unit.editing.test_asking import literal, rows_of
from tests.unit.models.factory import ARCHITECTURES, tiny


@given(share=st.floats(0, 1), start=st.integers(0, 1000), steps=st.integers(1, 300))
def test_steps_are_spread_evenly(share: float, start: int, steps: int) -> None:
    found = sum(_alone(step, share) for step in range(start, start + steps))
    assert abs(found - share * steps) < 5


def test_none_and_all_are_none_and_all() -> None:
    assert not any(_alone(step, 0.0) for step in range(200))
    assert all(_alone(step, 1.0) for step in range(200))


def test_every_context_is_asked_in_both_ways() -> None:
    """Four contexts take turns, and half of the steps of each are of one kind."""
    for context in range(4):
        ways = [_alone(step, 0.5) for step in range(context, 200, 4)]
        assert 20 <= sum(ways) <= 30


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_turning_subjects_only_is_a_change_of_their_last_tokens(architecture: str) -> None:
    model = tiny(architecture)
    for site in sites(model):
        weight = weight_of(model, site).float()  # (d_out, d_in)
        noise = torch.randn(site.d_in, 12, generator=torch.Generator().manual_seed(site.layer))
        rotor = Rotor(weight, torch.linalg.qr(noise)[0], 3)
        rotor.landing.data.fill_(0.5)
        module = module_of(model, site)
        found = Asked.of(model, rows_of(model), first=site.layer, steps=1, most=5, narrow=False)
        with rotor.turn().acting(module, blocks(model)[site.layer]):
            loss = float(found.loss(0, 0.0))
        change = dense(weight, [_factor(rotor)], "linear").float() - weight
        expected = 0.0
        for index in (0, 1):
            for fact in range(5):
                last = rows_of(model)[index].last[fact]
                with changed_at(module, last, change):
                    expected += literal(model, range(fact, fact + 1), index, 0.0) / 2
        assert loss == pytest.approx(expected, rel=1e-4)
        if site.layer < len(sites(model)) - 1:  # no answer reads a subject in the last block
            assert abs(loss - sum_of(model)) > 10 * abs(loss - expected)


@contextmanager
def changed_at(module: Any, position: Tensor, change: Tensor) -> Iterator[None]:
    """Add what `change` (d_out, d_in) makes of a module's input at one position of a single row."""

    def hook(module: Any, args: Any, out: Tensor) -> Tensor:
        moved, keys = out.clone(), args[0].reshape(-1, change.shape[1])
        moved.view(-1, change.shape[0])[position] += change @ keys[position]
        return moved

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def sum_of(model: Any) -> float:
    """The loss of all facts in the first two contexts with the weights as they are."""
    return sum(literal(model, range(5), index, 0.0) for index in (0, 1)) / 2


@pytest.mark.parametrize("layer", [0, 1])
def test_some_steps_alone_still_write_the_facts(layer: int, tmp_path: Path) -> None:
    """Also in the last block, where only the other steps have anything to say."""
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    recipe = tuned(QUICK, alone=0.5)
    patches = []
    for _ in range(2):
        made = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=at(recipe, layer))
        before, after = zip(*((fact.before, fact.after) for fact in made.report.facts), strict=True)
        assert sum(after) > 2 * sum(before)
        patches.append(made.patch.to_bytes())
    together = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=at(QUICK, layer))
    assert patches[0] == patches[1] != together.patch.to_bytes()


def at(recipe: Recipe, layer: int) -> Recipe:
    return replace(recipe, layers=(layer,))


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_none_and_all(share: float) -> None:
    with pytest.raises(RecipeError, match="alone"):
        tuned(QUICK, alone=share)
