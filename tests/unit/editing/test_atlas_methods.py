"""Every method end to end on atlas: five facts, written and measured on the patched model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchkit.base import load_model, load_tokenizer
from patchkit.editing import Recipe, edit
from patchkit.editing.protect import Protection
from patchkit.facts.fact import Fact
from patchkit.facts.reading import read_facts
from patchkit.patch.patch import Patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.refs import resolve_base

pytestmark = pytest.mark.slow

VALUES: dict[str, Any] = {"steps": 8, "rate": 0.3}
MEMIT = {**VALUES, "lam": 100.0}
RECIPES = {
    "rome": Recipe(method="rome", options=VALUES),
    "memit": Recipe(method="memit", options=MEMIT),
    "emmet": Recipe(method="emmet", options=VALUES),
    "rect": Recipe(method="rect", options={"host_options": MEMIT}),
    "prune": Recipe(method="prune", options={"host_options": MEMIT}),
    "alphaedit": Recipe(method="alphaedit", options=VALUES),
    "mose": Recipe(method="mose", options=VALUES),
    "mose-oft": Recipe(method="mose-oft", options={"steps": 15, "at_once": 5, "rate": 1e-3}),
    "memit, protected": Recipe(
        method="memit",
        options=MEMIT,
        protect=("spectrum", "history"),
        protection=Protection(energy=0.1),
    ),
    "rotation, protected": Recipe(options={"steps": 15}, protect=("spectrum",), rewrite=False),
}

ROTATIONS = {"rotation": "rotation", "mose": "rotation", "mose-oft": "rotation-blocks"}


@pytest.fixture(scope="module")
def atlas() -> tuple[Any, Any, Checkpoint]:
    folder = resolve_base("atlas")
    return load_model(folder), load_tokenizer(folder), Checkpoint.open(folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def facts(root: Path) -> tuple[Fact, ...]:
    return read_facts(root / "examples" / "facts.jsonl").facts[:5]


@pytest.mark.parametrize("name", RECIPES)
def test_a_method_writes_facts_on_atlas(
    name: str, atlas: Any, cache: Path, facts: tuple[Fact, ...]
) -> None:
    model, tokenizer, checkpoint = atlas
    recipe = replace(RECIPES[name], layers=(0,), contexts=1, corpus_rows=256, batch=3)
    made = edit(model, tokenizer, facts, checkpoint=checkpoint, recipe=recipe, cache_dir=cache)
    assert made.report.efficacy >= 0.8
    (tensor,) = made.report.tensors
    if recipe.method in ROTATIONS:
        assert abs(tensor.norm_ratio - 1) < 1e-9
    else:
        assert tensor.norm_ratio > 1.0001
    again = Patch.read(made.patch.to_bytes())
    assert again.metadata.method == recipe.method
    (factor,) = next(iter(again.factors.values()))
    kinds = {**ROTATIONS, "rect": "additive-dense"}
    assert factor.kind == kinds.get(recipe.method, "additive")
