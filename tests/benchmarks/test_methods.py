"""The benchmark of methods: its recipes, its report, and the loops that speed is compared with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.edit_cost import Shape, Text, operations, predicted
from benchmarks.edit_speed import Bench, alone, compared, facts_of
from benchmarks.methods import report
from benchmarks.methods.figure import BATCH, SHOWN, TESTBED, figure
from patchkit.bench import read_plan
from patchkit.bench.plan import runs
from patchkit.editing import Recipe
from patchkit.editing.methods import METHODS
from tests.unit.bench.beds import SUBJECTS, record
from tests.unit.bench.test_cells import ROW
from tests.unit.editing.samples import FACTS, loaded

RECIPES = Path(report.__file__).parent


def test_every_method_is_run_on_atlas() -> None:
    found = list(runs(read_plan(RECIPES / "atlas.toml")))
    assert {run.recipe.method for run in found} == set(METHODS)
    assert {run.checkpoints for run in found} == {(1, 10, 100, 500, 1000)}


@pytest.mark.parametrize("testbed", ["atlas", "worldly"])
def test_every_method_is_tuned_with_one_budget(testbed: str) -> None:
    plan = read_plan(RECIPES / f"{testbed}-tune.toml")
    assert plan.split == "dev"
    names = [contender.label.split(" ")[0] for contender in plan.methods]
    assert {names.count(name) for name in names} == {6}
    tuned = {run.recipe.method for run in runs(plan)}
    assert tuned == set(METHODS)


def test_worldly_has_all_methods_and_records_that_are_labelled() -> None:
    found = list(runs(read_plan(RECIPES / "worldly.toml")))
    assert {run.recipe.method for run in found if run.testbed.name == "worldly"} == set(METHODS)
    for name, mark, methods in (
        ("worldly, made from ParaRel", "(ParaRel)", 6),
        ("worldly, with a text", "(text)", 2),
    ):
        labels = {run.label for run in found if run.testbed.name == name}
        assert len(labels) == methods
        assert all(label.endswith(mark) for label in labels)


def test_the_best_setting_is_that_with_the_highest_score() -> None:
    rows = [
        replace(ROW, label="memit lam=1", score=0.5),
        replace(ROW, label="memit lam=2", score=0.6),
        replace(ROW, label="memit lam=3", score=None),
    ]
    assert report.best(rows)["memit"].label == "memit lam=2"


def test_two_trainings_are_not_one_testbed() -> None:
    committed = report.read_rows([report.RESULTS / "methods.json"])
    report.check_testbeds(committed)
    other = replace(committed[0], testbed_digest="another", seed=1000)
    with pytest.raises(SystemExit, match="is both"):
        report.check_testbeds([*committed, other])


def test_the_figure_of_the_readme_shows_all_of_its_methods() -> None:
    committed = report.read_rows([report.RESULTS / "methods.json"])
    mine = {row.label for row in committed if (row.testbed, row.batch) == (TESTBED, BATCH)}
    assert set(SHOWN) <= mine
    pytest.importorskip("matplotlib")
    assert figure(committed).startswith(b"\x89PNG")


def test_the_page_has_a_place_for_everything() -> None:
    page = report.PAGE.read_text("utf-8")
    for name in ("table", "figures", "tuning", "speed", "cost"):
        changed = report.placed(page, name, "| new |")
        assert "| new |" in changed
        assert report.placed(changed, name, "| new |") == changed
    with pytest.raises(SystemExit):
        report.placed(page, "elsewhere", "")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A tiny model with little preserved text and few steps."""
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    made = Bench("tiny", model, tokenizer, checkpoint, FACTS, tmp_path / "cache", 1)

    def quick(self: Bench, method: str, facts: int) -> Recipe:
        recipe = Recipe(
            method=method, layers=(1,), contexts=2, batch=3, corpus_rows=32, corpus_length=12
        )
        few: dict[str, Any] = {"steps": 4}
        if hasattr(recipe.options, "l2"):
            few["threshold"] = 1.0
        return replace(recipe, options=replace(recipe.options, **few))

    monkeypatch.setattr(Bench, "recipe", quick)
    return made


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_the_published_loop_makes_the_same_edit(bench: Bench, method: str) -> None:
    before = {name: tensor.clone() for name, tensor in bench.model.state_dict().items()}
    row = compared(bench, method, 3, 3)
    assert row["difference"] < 1e-3
    assert row["speedup"] == pytest.approx(row["baseline_seconds"] / row["seconds"], rel=0.2)
    assert {"values", "keys", "rest"} <= set(row["phases"])
    assert {"values", "keys", "solve"} <= set(row["baseline_phases"])
    assert ("projection" in row["phases"]) == (method == "alphaedit")
    after = bench.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("method", ["rotation", "mose-oft"])
def test_rotations_have_a_loop_that_turns_the_matrix(bench: Bench, method: str) -> None:
    _, phases, change = bench.theirs(bench.recipe(method, 2), 2)
    assert "training" in phases
    weight = bench.prepare(bench.recipe(method, 2)).state.base.double()
    turned = weight + change
    assert float(change.norm() / weight.norm()) > 1e-3
    assert torch.linalg.svdvals(turned) == pytest.approx(torch.linalg.svdvals(weight), rel=1e-4)
    assert "baseline_seconds" not in alone(bench, method, 2)


def test_facts_for_timing_have_subjects_of_their_own(tmp_path: Path) -> None:
    records = [record(number, SUBJECTS[number // 2]) for number in range(6)]
    for number, one in enumerate(records):
        one["requested_rewrite"]["prompt"] += f" in {number},"
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records), "utf-8")
    assert [fact.id for fact in facts_of(path, 9)] == ["4", "2", "0"][::-1]
    assert len(facts_of(path, 2)) == 2


def test_the_longest_run_writes_five_thousand_facts_with_the_default() -> None:
    (run,) = runs(read_plan(RECIPES / "atlas-long.toml"))
    assert run.recipe == replace(Recipe(), batch=100)
    assert run.checkpoints[-1] == 5000


def test_the_best_setting_stands_first_among_those_tried() -> None:
    tried = [
        replace(ROW, label=f"{name} lam={lam}", method=name, score=score)
        for name, lam, score in (("memit", 1, 0.5), ("memit", 2, 0.7), ("emmet", 3, 0.6))
    ]
    assert report.tuning_table(tried).splitlines()[2:] == [
        "| **emmet lam=3** | 0.600 |",
        "| **memit lam=2** | 0.700 |",
        "| memit lam=1 | 0.500 |",
    ]


def test_costs_show_what_was_measured_beside_what_was_predicted() -> None:
    row = {"kind": "measured", "method": "memit", "facts": 4, "d": 8, "d_in": 32, "layers": 2}
    small = row | {"seconds": 1.5}
    large = row | {"seconds": 1234.5, "predicted": {"values": 1000.0, "solve": 1.0}}
    assert report.cost_table([small, large]).splitlines()[2:] == [
        "| measured | memit | 4 | 8 | 32 | 2 | 1.5 | – |",
        "| measured | memit | 4 | 8 | 32 | 2 | 1,234.5 | 1001.0 |",
    ]


def test_counted_operations_are_those_of_the_matrices() -> None:
    shape = Shape(d=16, d_in=56, layers=8, vocabulary=100, kv=4)
    text = Text(facts=2, whole=20, behind=8, labels=2)
    block = sum(p.numel() for p in llama_block(shape).parameters() if p.ndim == 2)
    assert shape.block == block
    memit = operations(shape, text, "memit", 11)
    assert operations(shape, text, "memit", 21)["values"] - memit["values"] == pytest.approx(
        40 * (6 * (8 * 6 * block + 2 * 1600) + 2 * (6 * block + 1600))
    )
    rates = dict.fromkeys(memit, 2.0)
    halved = predicted(shape, text, "memit", 11, rates)
    assert halved == {phase: round(count / 2, 3) for phase, count in memit.items()}


def llama_block(shape: Shape) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.d, intermediate_size=shape.d_in,
        num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=shape.kv * 4 // shape.d,
    )  # fmt: skip
    return LlamaForCausalLM(config).model.layers[0]
