"""A tiny test bed is trained, taken up again, measured and asked, all as the real one is."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.testbeds import batches
from benchmarks.testbeds.clozes import Answers, Cloze, ask, of_fact
from benchmarks.testbeds.measure import identity, load, located, perplexity, recall, surroundings
from benchmarks.testbeds.model import save
from benchmarks.testbeds.optimise import only_at
from benchmarks.testbeds.records import Recorder, split_of
from benchmarks.testbeds.report_plot import write_plot
from benchmarks.testbeds.training import Run, Settings
from benchmarks.worldly import records as made
from benchmarks.worldly.report import comparable, counterfact_figures
from benchmarks.worldly.report_page import write_page
from tests.benchmarks import toy

SETTINGS = Settings(
    minutes=0,
    steps=20,
    rows=4,
    adam_lr=3e-3,
    muon_lr=5e-3,
    width=64,
    mlp=128,
    layers=2,
    seed=0,
    snapshot_minutes=60,
    stop_recall=2.0,
    device="cpu",
)
TRAINING = {"steps": 20, "seed": 0, "minutes": 1.0, "passes_over_the_facts": 2.0, "note": ""}


def run(settings: Settings, folder: Path) -> Run:
    return Run(settings, toy.world(), toy.tokenizer(), toy.PROSE, folder)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "snap" / "model.safetensors").read_bytes()).hexdigest()


def read_log(folder: Path) -> list[list[str]]:
    return list(csv.reader((folder / "log.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(SETTINGS, folder).train()
    return folder


def test_twenty_steps_lower_the_loss(trained: Path) -> None:
    rows = read_log(trained)
    model, tokenizer = load(trained / "snap")
    fresh = toy.model()
    clozes = [of_fact(toy.world(), fact, 0) for fact in toy.world().facts]
    assert int(rows[-1][0]) == 20
    assert ask(model, tokenizer, clozes).nll.mean() < 0.8 * ask(fresh, tokenizer, clozes).nll.mean()


def test_the_seed_decides_the_weights_also_of_an_interrupted_run(
    trained: Path, tmp_path: Path
) -> None:
    begun = run(SETTINGS, tmp_path)
    for _, rows in zip(range(7), begun._stream(), strict=False):
        begun._learn(rows)
        begun.step += 1
    begun._keep()
    (tmp_path / "log.csv").write_text("7,1.0,5.0,1.0,\n9,1.0,5.0,1.0,\n")
    assert digest(tmp_path) != digest(trained)
    run(SETTINGS, tmp_path).train()
    assert [row[0] for row in read_log(tmp_path)] == ["7", "20"]
    assert digest(tmp_path) == digest(trained)


def test_training_ends_at_the_recall_wanted(tmp_path: Path) -> None:
    run(replace(SETTINGS, snapshot_minutes=0.0, stop_recall=0.0), tmp_path).train()
    (row,) = read_log(tmp_path)
    assert int(row[0]) == 1
    assert 0 <= float(row[4]) <= 1


def test_the_last_mlp_is_run_where_it_is_asked_only() -> None:
    torch.manual_seed(0)
    mlp, x = torch.nn.Linear(4, 4), torch.randn(2, 3, 4)
    places = torch.tensor([[True, False, True], [False, False, True]])
    whole = mlp(x)
    with only_at(mlp, places):
        some = mlp(x)
    assert torch.allclose(some, whole * places[..., None])
    assert torch.equal(mlp(x), whole)


def test_one_token_that_begins_and_ends_is_put_once_between_documents() -> None:
    table = batches.PieceTable(toy.world(), toy.tokenizer(), ())
    rows = next(batches.batches(table, torch.arange(300).numpy(), 4, 0))
    end = toy.tokenizer().eos_token_id
    said = rows.ids[:, :-1] == end
    assert (rows.ids[:, 0] == end).all()
    # Two in a row are padding behind the last sentence, which nothing asks for.
    assert not ((rows.labels[:, 1:] >= 0) & said & (rows.ids[:, 1:] == end)).any()


def counterfact() -> list[dict[str, Any]]:
    recorder = Recorder(toy.world())
    return [recorder.record(i, fact) for i, fact in enumerate(toy.world().facts)]


def test_records_follow_the_schema_and_name_their_source(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchkit.facts.counterfact import fact as read

    world, real = toy.world(), counterfact()[::5]
    monkeypatch.setattr(made, "counterfact", lambda data: real)
    monkeypatch.setattr(made, "RETENTION", 2)
    everything = Answers(*(torch.ones(99, dtype=torch.bool) for _ in range(3)))
    monkeypatch.setattr(made, "ask", lambda model, tokenizer, clozes: part(everything, clozes))
    files = made.make_records(*load(trained / "snap"), world, trained)
    edited = {made.fact_of(r).subject for r in real}
    for split in made.SPLITS:
        for source in ("counterfact", "pararel"):
            for record in files[f"{source}_{split}"]:
                assert record["source"] == source
                assert split_of(read(record).subject) == split
                assert (read(record).subject in edited) == (source == "counterfact")
                assert len(read(record).same_subject) == 1
                assert len(read(record).neighbors) >= 5
    every = [r for name, rows in files.items() if name != "retention" for r in rows]
    assert len([r for r in every if r["source"] == "counterfact"]) == len(real)
    subjects = {read(r).subject for r in every}
    assert files["retention"]
    assert not any(s in row["prompt"] for row in files["retention"] for s in subjects)


def test_the_text_to_preserve_is_about_nobody_who_is_asked_for() -> None:
    world = toy.world()
    asked = [{"prompt": world.prompt(world.facts[i], 0), "target": "x"} for i in (0, -1)]
    text, mentioned = made.preserved(world, asked), str(asked)
    told = {fact.subject for fact in world.facts if fact.subject in text}
    assert told == {fact.subject for fact in world.facts if fact.subject not in mentioned}
    assert 0 < len(told) < len(world.by_subject)
    assert text == made.preserved(world, asked)


def test_unknown_neighbors_are_replaced_by_taught_ones() -> None:
    recorder, fact = Recorder(toy.world()), toy.world().facts[0]
    record = recorder.record(0, fact) | {"neighborhood_prompts": ["a", "b", "c", "d"]}
    filled = made._with_neighbors(record, [False, True, False, False], recorder)
    assert filled["neighborhood_prompts"][0] == "b"
    assert filled["neighborhood_sources"] == ["counterfact", *["pararel"] * 3]
    said = {
        (toy.world().prompt(f, w), f.object)
        for f in toy.world().facts
        for w in toy.world().trained_wordings(f)
    }
    pairs = zip(filled["neighborhood_prompts"], filled["neighborhood_targets"], strict=True)
    assert set(list(pairs)[1:]) <= said


def part(answers: Answers, clozes: list[Cloze]) -> Answers:
    return Answers(
        answers.right[: len(clozes)],
        answers.probability[: len(clozes)],
        answers.nll[: len(clozes)],
    )


def test_only_what_is_known_is_written(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load(trained / "snap")
    real = counterfact()
    monkeypatch.setattr(made, "counterfact", lambda data: real)
    says = made.known(model, tokenizer, real)
    written = made.counterfact_records(model, tokenizer, toy.world(), trained)
    assert [r["case_id"] for r in written] == [i for i, right in enumerate(says.argmax) if right]
    assert all(p for p, right in zip(says.preferred, says.argmax, strict=True) if right)


def test_the_report_measures_and_writes_its_page(trained: Path, tmp_path: Path) -> None:
    model, tokenizer = load(trained / "snap")
    world, recorder = toy.world(), Recorder(toy.world())
    shares = counterfact_figures(model, tokenizer, world, counterfact()[:9])
    known = made.known(model, tokenizer, counterfact()[:9])
    result = {
        **identity(model, trained / "snap", len(tokenizer), world),
        "preset": "small",
        "relation_ids": sorted(world.by_relation),
        "counterfact": shares,
        "records": dict.fromkeys(
            [f"{s}_{p}" for s in ("counterfact", "pararel") for p in made.SPLITS] + ["retention"], 3
        ),
        "recall": recall(model, tokenizer, world, most=5),
        **located(model, tokenizer, recorder, 2, 0),
        "prose_perplexity": perplexity(model, tokenizer, [" ".join(toy.PROSE)]),
        **surroundings(),
    }
    assert result["recall"]["trained_wordings"]["asked"] == 5
    assert shares["all"]["argmax"] == pytest.approx(sum(known.argmax) / 9)
    assert shares["all"]["preferred"] == pytest.approx(sum(known.preferred) / 9)
    assert 0 <= shares["all"]["neighborhood"] <= 1
    assert shares["relations_taught"] == shares["all"]
    assert len(result["tracing"]["mlp_restored"]) == 2
    write_page(json.loads(json.dumps(result)), tmp_path / "worldly.md")
    page = (tmp_path / "worldly.md").read_text()
    assert f"| 9 | 1.000 | {shares['all']['argmax']:.3f} |" in page
    assert "Other trainings" not in page
    (tmp_path / "a.json").write_text(json.dumps({**result, "training": TRAINING | {"seed": 7}}))
    again = {**result, "training": TRAINING, "others": [comparable(tmp_path / "a.json")]}
    write_page(again, tmp_path / "worldly.md")
    assert "| 20 | 7 | " in (tmp_path / "worldly.md").read_text()
    assert "{" not in page.replace("{split}", "")


def test_the_plot_is_drawn(tmp_path: Path, trained: Path) -> None:
    pytest.importorskip("matplotlib")
    result = {
        "layers": 1,
        "ablation": {"places": {"everywhere": {"first_k": [0.1]}}},
        "tracing": {"mlp_restored": [0.5], "residual_restored": [0.6], "clean": 1, "corrupted": 0},
        "rewrites": {"places": {"subject_last": [{"withheld_wordings": 0.9}]}},
    }
    write_plot(result, trained / "log.csv", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_saved_folder_is_float16_and_loads_plainly(tmp_path: Path) -> None:
    save(toy.model(), toy.tokenizer(), tmp_path / "snap")
    assert json.loads((tmp_path / "snap" / "config.json").read_text())["dtype"] == "float16"
    model, tokenizer = load(tmp_path / "snap")
    assert len(tokenizer) == model.config.vocab_size
