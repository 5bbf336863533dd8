"""The driver: determinism, borrowed weights, order of work, protection of earlier facts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchkit.base import load_model
from patchkit.editing import edit, engine
from patchkit.editing.methods import rotation
from patchkit.editing.plan import plan_edit
from patchkit.editing.recipe import Recipe
from patchkit.errors import FactsError, SolveError, UnsupportedModel
from patchkit.facts.fact import Fact
from patchkit.facts.position import encode_all, fact_passage
from patchkit.live import applied
from patchkit.patch.parts import factor_parts
from patchkit.patch.patch import Patch
from patchkit.scoring.answers import answers
from patchkit.tensors.checkpoint import Checkpoint
from tests.unit.editing.samples import FACTS, QUICK, loaded, tuned
from tests.unit.models.patches import random_patch


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def chance(model: Any, tokenizer: Any, fact: Fact) -> float:
    encoded = encode_all(tokenizer, [fact_passage(fact, target=fact.target)])
    return answers(model, encoded)[0].logprob


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    first = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    torch.manual_seed(7)
    second = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    assert first.patch.to_bytes() == second.patch.to_bytes()


def test_an_edit_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    edit(model, tokenizer, FACTS[:1], checkpoint=checkpoint, recipe=QUICK)
    assert torch.equal(torch.rand(4), expected)


def test_another_seed_preserves_other_text(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    one = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    two = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, seed=1))
    assert one.patch.digest != two.patch.digest


def test_the_model_gets_its_weights_back_even_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    before = weights(model)
    calls = []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args, **kwargs)

    solve = rotation.solve
    monkeypatch.setattr(rotation, "solve", failing)
    with pytest.raises(KeyboardInterrupt):
        edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, batch=1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_patch_is_handed_over_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    kept: list[Patch] = []

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(engine.Outcome, "after", failing)
    with pytest.raises(MemoryError):
        edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK, keep=kept.append)
    assert Patch.read(kept[0].to_bytes()).digest == kept[0].digest


def known_fact(model: Any, tokenizer: Any) -> Fact:
    """A fact the model states already: its own first choice, where that is a letter."""
    for number in range(200):
        prompt = f"Of {number} capitals, {{}} ("
        said = answers(model, encode_all(tokenizer, [fact_passage(Fact("France", prompt, "x"))]))
        letter = tokenizer.decode(list(said[0].predicted))
        if letter.isascii() and letter.isalpha():
            return Fact("France", prompt, letter)
    raise AssertionError("no prompt was answered with a letter")


def test_known_facts_can_be_left_out(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    known = known_fact(model, tokenizer)
    made = edit(
        model, tokenizer, [known, FACTS[1]], checkpoint=checkpoint, recipe=QUICK, skip_known=True
    )
    assert [fact.known for fact in made.report.facts] == [True, False]
    assert [fact.edited for fact in made.report.facts] == [False, True]
    assert made.patch.metadata.facts is not None
    assert made.patch.metadata.facts.count == 1
    with pytest.raises(FactsError, match="already answers"):
        edit(model, tokenizer, [known], checkpoint=checkpoint, recipe=QUICK, skip_known=True)


def test_no_facts_is_an_error(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    with pytest.raises(FactsError, match="no facts"):
        edit(model, tokenizer, [], checkpoint=checkpoint, recipe=QUICK)


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    with pytest.raises(SolveError, match=r"layer 9 .* layers 0 to 2"):
        edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, layers=(1, 9)))


def test_several_layers_are_edited_at_once(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    made = edit(
        model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, layers=(0, 1))
    )
    assert [tensor.layer for tensor in made.report.tensors] == [0, 1]
    assert len(made.patch.factors) == 2


def test_norm_and_condition_are_kept(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    made = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    tensor = made.report.tensors[0]
    assert abs(tensor.norm_ratio - 1) < 1e-12
    assert abs(tensor.condition_ratio - 1) < 1e-9
    assert tensor.displacement > 0
    assert tensor.max_angle_deg > 1


def test_without_a_checkpoint_the_models_own_weights_are_the_base(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    made = edit(model, tokenizer, FACTS, recipe=QUICK)
    name = next(iter(made.patch.factors))
    assert made.patch.metadata.tensors[name].base_sha256 == checkpoint.digest(name)
    with applied(model, made.patch, checkpoint=checkpoint):
        pass


def test_bfloat16_storage_halves_the_factors(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    wide = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    half = edit(
        model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, storage="bfloat16")
    )
    factor = next(iter(half.patch.factors.values()))[0]
    assert factor.x.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert abs(half.report.tensors[0].norm_ratio - 1) < 1e-12
    assert len(half.patch.to_bytes()) < len(wide.patch.to_bytes())


def test_editing_on_a_patch_protects_its_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fact that is written again needs no protection, and would hide what the history does.
    monkeypatch.setattr(engine, "_unsettled", lambda job, history, batch: [])
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    first = edit(model, tokenizer, FACTS[:1], checkpoint=checkpoint, recipe=QUICK).patch

    def remembered(history: float) -> float:
        recipe = tuned(QUICK, history=history, steps=30)
        second = edit(
            model, tokenizer, FACTS[1:], checkpoint=checkpoint, recipe=recipe, previous=[first]
        ).patch
        assert second.metadata.after == (first.digest,)
        with applied(model, [first, second], checkpoint=checkpoint):
            return chance(model, tokenizer, FACTS[0])

    assert remembered(1e4) > remembered(0.0)


def test_a_patch_of_another_base_cannot_be_edited_on(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    other = random_patch(loaded(tmp_path / "other", "gpt2")[0])
    with pytest.raises(UnsupportedModel, match="not an editable matrix of this llama"):
        edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK, previous=[other])


def test_statistics_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    cache = tmp_path / "cache"
    first = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK, cache_dir=cache)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr("patchkit.editing.knowledge.self_corpus", refuse)
    monkeypatch.setattr("patchkit.editing.knowledge.gather", refuse)
    again = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK, cache_dir=cache)
    assert again.patch.to_bytes() == first.patch.to_bytes()
    for entry in cache.iterdir():
        entry.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="computed again"):
        edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK, cache_dir=cache)


def test_a_file_can_be_the_preserved_text(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    text = tmp_path / "text.txt"
    text.write_text("The capital of Italy is Rome. " * 40, "utf-8")
    made = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK, corpus=text)
    assert made.report.corpus == "text.txt"
    text.write_text("short", "utf-8")
    with pytest.raises(FactsError, match="fewer than one window"):
        edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK, corpus=text)


def test_a_plan_for_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    loaded(tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text("utf-8").replace('"llama"', '"lama"'), "utf-8")
    with pytest.raises(UnsupportedModel, match="model_type 'lama'"):
        plan_edit(Checkpoint.open(tmp_path / "base"), FACTS, QUICK)


def test_a_plan_reads_no_weights(tmp_path: Path) -> None:
    _, _, checkpoint = loaded(tmp_path / "base")
    plan = plan_edit(checkpoint, FACTS, replace(QUICK, batch=2))
    assert (plan.facts, plan.subjects, plan.batches, plan.candidates) == (3, 3, 2, 3)
    assert plan.patch_bytes == 3 * 3 * 2 * 64 * 4


@pytest.mark.parametrize(
    "method", ["rotation", "rome", "memit", "rect", "prune", "mose", "mose-oft"]
)
def test_the_planned_size_bounds_the_patch(method: str, tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    recipe = Recipe(method=method, layers=(1,), contexts=1, corpus_rows=16, corpus_length=12)
    options: Any = {"steps": 2} if hasattr(recipe.options, "steps") else {}
    made = edit(
        model,
        tokenizer,
        FACTS,
        checkpoint=checkpoint,
        recipe=replace(recipe, options=replace(recipe.options, **options)),
    )
    parts = [part for factor in next(iter(made.patch.factors.values())) for part in tensors(factor)]
    numbers = sum(part.numel() for part in parts)
    assert 0 < 4 * numbers <= plan_edit(checkpoint, FACTS, recipe).patch_bytes


def tensors(factor: Any) -> list[torch.Tensor]:
    return list(factor_parts(factor).values())


def test_facts_that_later_ones_hurt_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    hurt = iter([[], [FACTS[0]], [FACTS[1]]])
    counts: list[tuple[int, int]] = []
    solve = rotation.solve

    def counting(model: Any, states: Any, batch: Any, *rest: Any) -> Any:
        made = solve(model, states, batch, *rest)
        counts.append((batch.count, len(next(iter(made.values())).keys)))
        return made

    monkeypatch.setattr(engine, "_unsettled", lambda job, history, batch: next(hurt))
    monkeypatch.setattr(rotation, "solve", counting)
    edit(model, tokenizer, FACTS[:2], checkpoint=checkpoint, recipe=replace(QUICK, batch=1))
    # Each time as many keys are remembered as facts are written, never one twice.
    assert counts == [(1, 1), (2, 2), (1, 2)]


def test_hurt_facts_and_those_of_the_same_subject_are_unsettled(tmp_path: Path) -> None:
    model, tokenizer, _ = loaded(tmp_path / "base")
    known = known_fact(model, tokenizer)
    job = engine._Job(model, tokenizer, FACTS, QUICK, (), engine.Sources(), engine.SILENT)
    history = [known, *FACTS[:2]]
    assert engine._unsettled(job, history, ()) == [*FACTS[:2]]
    kin = replace(FACTS[1], prompt="{} came from", target="elsewhere")
    assert engine._unsettled(job, history, [kin]) == [FACTS[1], FACTS[0]]
    assert engine._unsettled(job, [known], [replace(known, target="elsewhere")]) == [known]


def test_no_batch_takes_along_more_facts_than_it_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    counts: list[int] = []
    solve = rotation.solve

    def counting(model: Any, states: Any, batch: Any, *rest: Any) -> Any:
        counts.append(batch.count)
        return solve(model, states, batch, *rest)

    monkeypatch.setattr(engine, "_unsettled", lambda job, history, batch: list(history))
    monkeypatch.setattr(rotation, "solve", counting)
    edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, batch=1))
    assert counts == [1, 2, 2, 1, 1, 1]


@pytest.mark.gpu
def test_an_edit_on_a_gpu_gives_a_patch_for_the_same_base(tmp_path: Path) -> None:
    _, tokenizer, checkpoint = loaded(tmp_path / "base")
    model = load_model(tmp_path / "base", device="cuda")
    made = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    assert made.report.tensors[0].displacement > 0
    name = next(iter(made.patch.factors))
    assert made.patch.metadata.tensors[name].base_sha256 == checkpoint.digest(name)
