"""What worldly is taught: the same facts, wordings and tokens on every machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.testbeds import files
from benchmarks.testbeds.world import Fact, World, is_withheld
from benchmarks.worldly import data as worldly
from benchmarks.worldly import tokenizer as tokens
from benchmarks.worldly.train import texts_asked, tokenizer_of, world_of
from tests.benchmarks import toy


@pytest.fixture(scope="module")
def data(pytestconfig: pytest.Config) -> Path:
    folder = Path(str(pytestconfig.getoption("--data")))
    if not (folder / worldly.TRIPLES[0]).is_file():
        pytest.skip(f"no ParaRel in {folder} (name the data folder with --data)")
    return folder


@pytest.fixture(scope="module")
def world(data: Path) -> World:
    return world_of(data, "small")


def pieces(cutter: Any, text: str) -> list[str]:
    found: list[str] = cutter.convert_ids_to_tokens(cutter(text)["input_ids"])
    return found


@given(st.text())
def test_fewer_tokens_lose_no_text(text: str) -> None:
    cutter = tokens.make_tokenizer(*tokens.restrict(*toy.bpe(), ["Ada lives in Rome."]))
    cut = cutter(text, add_special_tokens=False)["input_ids"]
    assert cutter.backend_tokenizer.decode(cut).removeprefix(" ") == text.removeprefix(" ")


@given(st.lists(st.sampled_from([w for f in toy.PROSE + toy.NAMES for w in f.split()])))
def test_texts_of_kept_tokens_are_cut_as_before(words: list[str]) -> None:
    whole, text = toy.tokenizer(), " ".join(words)
    kept, merges = tokens.restrict(*toy.bpe(), [" ".join(words[::2]), " ".join(words[1::2])])
    few = tokens.make_tokenizer(kept, merges)
    assert len(few) < len(whole)
    if set(pieces(whole, text)) <= set(kept):
        assert pieces(few, text) == pieces(whole, text)


def test_a_cloze_with_several_objects_is_not_taught() -> None:
    wordings = {"a": ("{} is in", "{} lies in"), "b": ("{} is in", "{} is ruled from")}
    facts = (Fact("X", "a", "Asia"), Fact("X", "b", "Rome"), Fact("Y", "b", "Oslo"))
    ambiguous = worldly.ambiguous(facts, wordings)
    world = World(facts, wordings, {"a": 0, "b": 0}, ambiguous)
    assert ambiguous == {"X is in"}
    assert [world.trained_wordings(fact) for fact in facts] == [(1,), (1,), (0, 1)]


def test_a_file_of_another_edition_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(files.DataError, match="another sha256"):
        files.read_pinned(tmp_path, "a.json", "0" * 64)
    with pytest.raises(files.DataError, match="missing"):
        files.read_pinned(tmp_path, "b.json", "0" * 64)


def test_the_world_is_the_same_every_time(data: Path, world: World) -> None:
    again = world_of(data, "small")
    assert (again.facts, again.wordings, again.ambiguous) == (
        world.facts,
        world.wordings,
        world.ambiguous,
    )
    assert len(world.facts) > 8500
    assert set(world.by_relation) == set(worldly.FEW)


def test_most_of_counterfact_is_among_the_facts(data: Path, world: World) -> None:
    every = world_of(data, "full")
    for taught, share in ((world, 0.97), (every, 0.93)):
        stated = {(f.subject, f.relation, f.object) for f in taught.facts}
        asked = [
            (r["subject"], r["relation_id"], r["target_true"]["str"])
            for r in (record["requested_rewrite"] for record in worldly.counterfact(data))
            if r["relation_id"] in taught.by_relation or taught is every
        ]
        assert sum(key in stated for key in asked) / len(asked) > share


def test_every_paraphrase_of_counterfact_ends_in_a_wording(data: Path, world: World) -> None:
    for record in worldly.counterfact(data):
        rewrite = record["requested_rewrite"]
        if rewrite["relation_id"] in world.by_relation:
            asked = [
                wording.replace("{}", rewrite["subject"])
                for wording in world.wordings[rewrite["relation_id"]]
            ]
            assert all(p.endswith(tuple(asked)) for p in record["paraphrase_prompts"])


def test_withheld_wordings_are_not_trained(world: World) -> None:
    for fact in world.facts:
        trained, withheld = world.trained_wordings(fact), world.withheld_wordings(fact)
        assert trained
        assert not set(trained) & set(withheld)
        assert is_withheld(fact.subject) or not withheld
    assert any(world.withheld_wordings(fact) for fact in world.facts)


@pytest.mark.slow
def test_the_small_vocabulary_cuts_what_is_asked_as_gpt2_does(data: Path, world: World) -> None:
    few = tokenizer_of(data, world, "small")
    vocab, merges = tokens.read_vocab(data), tokens.read_merges(data)
    whole = tokens.make_tokenizer(vocab, merges)
    assert len(few) < len(whole) / 3
    assert len(whole) == len(vocab)
    texts = list(texts_asked(world, worldly.counterfact(data)))[::50]
    assert all(pieces(few, text) == pieces(whole, text) for text in texts)
    assert json.loads(few.backend_tokenizer.to_str())["model"]["type"] == "BPE"
