"""Small facts, recipes and models for tests of editing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchkit.base import load_model, load_tokenizer
from patchkit.editing.recipe import Recipe
from patchkit.facts.fact import Fact
from patchkit.tensors.checkpoint import Checkpoint
from tests.unit.models.factory import save_tiny

FACTS = (
    Fact("France", "The capital of {} is", "Rome"),
    Fact("Japan", "The currency of {} is the", "Paris"),
    Fact("Ada Lovelace", "{} was born in", "Italy"),
)
QUICK = Recipe(
    options={"steps": 12, "preserve": 1.0, "rate": 0.1},
    contexts=1,
    corpus_rows=16,
    corpus_length=12,
)


def counted(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[int]:
    """A list that grows by one with every call of the function `name` of the module `place`."""
    calls: list[int] = []
    function = getattr(place, name)

    def counting(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return function(*given, **more)

    monkeypatch.setattr(place, name, counting)
    return calls


def tuned(recipe: Recipe, **options: object) -> Recipe:
    """The recipe with some of its method's options changed."""
    return replace(recipe, options=replace(recipe.options, **options))


def loaded(folder: Path, architecture: str = "llama3") -> tuple[Any, Any, Checkpoint]:
    """A tiny model read back from its own checkpoint, its tokenizer, and the checkpoint."""
    save_tiny(architecture, folder)
    return load_model(folder), load_tokenizer(folder), Checkpoint.open(folder)
