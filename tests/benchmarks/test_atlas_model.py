"""The model that travels with the package: its size, its form, and that it knows facts."""

from __future__ import annotations

import json

import pytest

from benchmarks.atlas.records import RECORDER
from benchmarks.atlas.world import WORLD
from benchmarks.testbeds.clozes import ask, of_fact
from benchmarks.testbeds.measure import load
from benchmarks.testbeds.world import is_withheld
from patchkit.models import atlas_path

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_the_folder_is_complete_and_small() -> None:
    assert {path.name for path in atlas_path().iterdir()} == FILES
    assert sum(path.stat().st_size for path in atlas_path().iterdir()) <= 16_000_000


def test_it_is_a_float16_llama() -> None:
    config = json.loads((atlas_path() / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "float16"


@pytest.mark.parametrize("withheld", [False, True])
def test_it_knows_facts_in_trained_and_withheld_wordings(withheld: bool) -> None:
    model, tokenizer = load(atlas_path())
    facts = [f for f in WORLD.facts if is_withheld(f.subject)][::20]
    clozes = [
        of_fact(WORLD, f, WORLD.withheld_wordings(f)[0] if withheld else RECORDER.edit_wording(f))
        for f in facts
    ]
    assert ask(model, tokenizer, clozes).right.float().mean() >= (0.93 if withheld else 0.97)
