"""Benchmarks on a tiny model: figures, resuming, failures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchkit.base import load_model, load_tokenizer
from patchkit.bench import Contender, Row, Setting, kept, run_plan, running
from patchkit.bench.bed import Bed
from patchkit.bench.spectra import spectra
from patchkit.editing import edit
from patchkit.editing.methods import rotation
from patchkit.errors import FactsError, SolveError
from patchkit.evaluate import evaluate
from tests.unit.bench.beds import MEMIT, QUICK, ROTATION, plan, written

TIMES = ("seconds", "facts_per_second")


def setting(folder: Path, name: str = "out") -> Setting:
    return Setting(data=folder, folder=folder / name, commit="abc")


def untimed(rows: tuple[Row, ...]) -> list[dict[str, object]]:
    return [{k: v for k, v in row.as_dict().items() if k not in TIMES} for row in rows]


def test_a_row_says_what_editing_and_evaluating_say(tmp_path: Path) -> None:
    folder = written(tmp_path)
    wanted = plan(folder, ROTATION, checkpoints=(3, 100))
    rows = run_plan(wanted, setting(folder))
    assert [(row.edits, row.commit, row.batch) for row in rows] == [(3, "abc", 2), (5, "abc", 2)]
    bed = Bed.load(wanted.testbeds[0], "test", folder, "cpu", "auto")
    facts = bed.draw(0, 3)
    recipe = next(iter(running.runs(wanted))).recipe
    base, tokenizer = load_model(folder / "base"), load_tokenizer(folder / "base")
    made = edit(base, tokenizer, facts, checkpoint=bed.checkpoint, recipe=recipe)
    report = evaluate(base, tokenizer, made.patch, facts, retention_probes=bed.probes)
    for name in ("efficacy", "paraphrase", "neighborhood", "same_subject", "retention", "score"):
        assert getattr(rows[0], name) == report.value(name)  # type: ignore[arg-type]
    assert rows[0].norm_ratio == pytest.approx(1, abs=1e-9)
    assert rows[0].seconds is not None
    assert rows[0].n_eval == 3 * 4 + 1


def test_what_is_there_can_be_gathered_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path)
    done = run_plan(plan(folder, ROTATION, checkpoints=(2, 3)), setting(folder))
    monkeypatch.setattr(running, "edit_sequence", None)
    gathering = replace(setting(folder), measure=False)
    assert run_plan(plan(folder, ROTATION, MEMIT, checkpoints=(2, 3)), gathering) == done


def test_finished_cells_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path)
    first = run_plan(plan(folder, ROTATION), setting(folder))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(running, "edit_sequence", refuse)
    assert run_plan(plan(folder, ROTATION), setting(folder)) == first
    [other] = {
        row.label for row in run_plan(plan(folder, replace(ROTATION, label="x")), setting(folder))
    }
    assert other == "x"
    with pytest.raises(AssertionError, match="measured again"):
        run_plan(plan(folder, MEMIT), setting(folder))


@pytest.mark.parametrize("contender", [
    ROTATION, replace(MEMIT, options={"steps": 3, "history": True}),
    Contender(label="oft", method="mose-oft", options={"steps": 2}, settings=QUICK),
], ids=lambda contender: contender.label)  # fmt: skip
def test_an_interrupted_sequence_goes_on_as_if_it_had_not_been(
    contender: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path)
    wanted = plan(folder, contender, checkpoints=(1, 2, 5))
    whole = run_plan(wanted, setting(folder, "whole"))
    keep, begun = kept.keep, []

    def interrupted(path: Path, state: Any, facts: Any) -> None:
        keep(path, state, facts)
        if state.count == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(kept, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_plan(wanted, setting(folder))
    monkeypatch.setattr(kept, "keep", keep)
    restore = kept.Kept.restore
    monkeypatch.setattr(
        kept.Kept, "restore", lambda self, states: begun.append(self.count) or restore(self, states)
    )
    assert untimed(run_plan(wanted, setting(folder))) == untimed(whole)
    assert begun == [2]
    assert list((folder / "out" / "states").iterdir()) == []


def test_a_damaged_state_starts_the_sequence_again(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    assert kept.find(path, []) is None
    path.write_bytes(b"damaged")
    assert kept.find(path, []) is None


def test_a_sequence_that_fails_says_so_in_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path)
    solve = rotation.solve

    def failing(model: Any, states: Any, batch: Any, *rest: Any) -> Any:
        if len(next(iter(states.values())).keys) >= 2:
            raise SolveError("the loss is nan at step 1")
        return solve(model, states, batch, *rest)

    monkeypatch.setattr(rotation, "solve", failing)
    calm = replace(ROTATION, settings={**QUICK, "rewrite": False})
    rows = run_plan(plan(folder, calm, checkpoints=(2, 4)), setting(folder))
    assert [row.failed for row in rows] == [None, "the loss is nan at step 1"]
    assert rows[1].score is None
    cells = (folder / "out" / "cells").glob("*.json")
    assert sorted(json.loads(cell.read_text())["row"]["edits"] for cell in cells) == [2, 4]


def test_seeds_draw_other_records(tmp_path: Path) -> None:
    folder = written(tmp_path)
    bed = Bed.load(plan(folder, ROTATION).testbeds[0], "test", folder, "cpu", "auto")
    assert bed.draw(0, 3) == bed.draw(0, 5)[:3]
    assert bed.draw(0, 5) != bed.draw(1, 5)
    assert set(bed.draw(0, 5)) == set(bed.draw(1, 5)) == set(bed.facts)


def test_a_testbed_can_bring_the_text_to_preserve(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "prose.txt").write_text("The capital of Brazil is Brasília. " * 20, "utf-8")
    plain = plan(folder, MEMIT, checkpoints=(3,))
    (bed,) = plain.testbeds
    read = replace(plain, testbeds=(replace(bed, corpus="prose.txt"),))
    sampled, told = run_plan(plain, setting(folder)) + run_plan(read, setting(folder))
    assert sampled.testbed_digest != told.testbed_digest
    assert sampled.norm_ratio != told.norm_ratio
    recipe = next(iter(running.runs(read))).recipe
    base, tokenizer = load_model(folder / "base"), load_tokenizer(folder / "base")
    loaded = Bed.load(read.testbeds[0], "test", folder, "cpu", "auto")
    made = edit(
        base, tokenizer, loaded.draw(0, 3),
        checkpoint=loaded.checkpoint, recipe=recipe, corpus=folder / "prose.txt",
    )  # fmt: skip
    assert told.norm_ratio == spectra(base, made.patch).norm_ratio


@pytest.mark.parametrize("name", ["records_test.json", "retention.json", "prose.txt"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "prose.txt").write_text("text", "utf-8")
    wanted = plan(folder, ROTATION)
    wanted = replace(wanted, testbeds=(replace(wanted.testbeds[0], corpus="prose.txt"),))
    (folder / name).unlink()
    with pytest.raises(FactsError, match=name):
        run_plan(wanted, setting(folder))


def test_probes_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "retention.json").write_text('[{"prompt": "x"}]')
    with pytest.raises(FactsError, match="JSON array"):
        run_plan(plan(folder, ROTATION), setting(folder))
