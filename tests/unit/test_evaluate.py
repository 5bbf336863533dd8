"""Evaluation compares base and patched model, and leaves the model as it was."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.base import load_model, load_tokenizer
from patchkit.errors import BaseMismatch
from patchkit.evaluate import EvalReport, evaluate
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.snippets import Snippets
from patchkit.live import applied
from patchkit.scoring.conventions import CONVENTIONS
from patchkit.scoring.metrics import CRITERIA
from patchkit.scoring.questions import ask, questions
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import sites
from tests.unit.models.factory import ARCHITECTURES, TEXT, save_tiny, tiny, tiny_tokenizer
from tests.unit.models.patches import random_patch

FACTS = [
    Fact(
        subject="France",
        prompt="The capital of {} is",
        target="Rome",
        target_true="Paris",
        paraphrases=("{} has as capital", "The seat of government of {} is"),
        neighbors=(Probe("The capital of Italy is", "Rome"), Probe("The yen is the")),
        same_subject=(Probe("In {} people speak", "French"),),
    ),
    Fact(subject="Isaac Newton", prompt="{} wrote about", target="gravity"),
]
RETENTION = [Probe("The language of Brazil is", "Portuguese"), Probe("The currency of Japan is")]


def report_of(architecture: str = "llama3", scale: float = 0.3) -> EvalReport:
    model = tiny(architecture)
    patch = random_patch(model, scale=scale)
    return evaluate(model, tiny_tokenizer(), patch, FACTS, retention_probes=RETENTION, text=TEXT[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_model_is_left_bit_identical(architecture: str) -> None:
    model = tiny(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, tiny_tokenizer(), random_patch(model), FACTS)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), fail=st.booleans())
def test_no_patch_and_no_failure_leaves_a_trace(seed: int, fail: bool) -> None:
    model = tiny("gpt2")
    patch = random_patch(model, seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    class Interrupted:
        def started(self, phase: str, total: int | None, unit: str) -> None:
            if fail and phase.startswith("patched"):
                raise KeyboardInterrupt

        def advanced(self, phase: str, amount: int = 1) -> None:
            pass

        def finished(self, phase: str) -> None:
            pass

    try:
        evaluate(model, tiny_tokenizer(), patch, FACTS, progress=Interrupted())
    except KeyboardInterrupt:
        assert fail
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_every_fact_says_what_the_two_models_answer() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    patch = random_patch(model)
    asked = questions(tokenizer, FACTS)
    old = ask(model, asked)
    with applied(model, patch):
        new = ask(model, asked)
    report = evaluate(model, tokenizer, patch, FACTS)
    first = report.facts[0]
    assert first.fact is FACTS[0]
    assert (first.before, first.after) == (old[0].wanted.exact, new[0].wanted.exact)
    assert first.probability_before == pytest.approx(math.exp(old[0].wanted.logprob))
    assert first.probability_after == pytest.approx(math.exp(new[0].wanted.logprob))
    assert first.answered == tokenizer.decode(list(new[0].wanted.predicted)).strip()
    assert first.paraphrases[1] == 2
    assert first.neighbors[1] in (1, 2)
    assert report.facts[1].neighbors == (0, 0)


def test_facts_that_are_not_answered_are_missed() -> None:
    report = report_of()
    assert [result.index for result in report.missed] == [
        result.index for result in report.facts if not result.after
    ]
    assert report.value("efficacy") == 1 - len(report.missed) / len(FACTS)


def test_all_criteria_and_conventions_are_there() -> None:
    report = report_of()
    assert tuple(report.metrics) == tuple(name for name in CRITERIA if name != "generated")
    assert tuple(report.figures) == CONVENTIONS
    tallies = report.metrics["argmax"].tallies
    counts = {name: tally.asked for name, tally in tallies.items()}
    assert counts == {
        "efficacy": 2, "paraphrase": 2, "neighborhood": 2, "same_subject": 1, "retention": 2,
        "portability": 0, "multihop": 0,
    }  # fmt: skip
    assert report.metrics["probability"].tallies["efficacy"].asked == 1
    assert report.perplexity_before is not None
    assert report.perplexity_after is not None
    assert report.perplexity_before.value != report.perplexity_after.value


def test_a_patch_that_does_nothing_changes_nothing() -> None:
    report = report_of(scale=0.0)
    for metrics in report.metrics.values():
        for tally in metrics.tallies.values():
            assert tally.right_before == tally.right_after == tally.kept
    assert report.perplexity_before == report.perplexity_after
    assert report.metrics["argmax"].tallies["neighborhood"].kept_share == 1


def own_answer(seed: int) -> tuple[Fact, bool]:
    """A fact whose target is the patched model's own next token, if that reads back as one."""
    model, tokenizer = tiny("llama3", seed), tiny_tokenizer()
    fact = Fact(subject="Brazil", prompt="The language of {} is", target="Portuguese")
    with applied(model, random_patch(model, seed)):
        token = ask(model, questions(tokenizer, [fact]))[0].wanted.predicted[0]
    target = tokenizer.decode([token]).strip()
    if not target.isprintable() or not target:
        return fact, False
    fact = replace(fact, target=target, id="")
    labels = questions(tokenizer, [fact])[0].wanted.labels
    return fact, [label for _, label in labels] == [token]


def test_what_the_patched_model_answers_is_a_hit() -> None:
    seed, fact = next((seed, fact) for seed in range(50) for fact, ok in [own_answer(seed)] if ok)
    model = tiny("llama3", seed)
    report = evaluate(model, tiny_tokenizer(), random_patch(model, seed), [fact])
    assert report.value("efficacy") == 1
    assert report.facts[0].answered == fact.target
    assert report.missed == ()


def test_a_saved_base_is_evaluated_by_its_own_names(tmp_path: Path) -> None:
    saved = save_tiny("gemma3_multimodal", tmp_path, dtype=torch.bfloat16)
    checkpoint = Checkpoint.open(tmp_path)
    patch = random_patch(saved, found=sites(saved, checkpoint))
    model, tokenizer = load_model(tmp_path), load_tokenizer(tmp_path)
    report = evaluate(model, tokenizer, patch, FACTS, checkpoint=checkpoint)
    assert len(report.facts) == 2
    assert report.metrics["argmax"].score is None
    assert report.perplexity_before is None


def test_another_base_is_refused() -> None:
    patch = random_patch(tiny("llama2", seed=1))
    with pytest.raises(BaseMismatch):
        evaluate(tiny("llama2", seed=2), tiny_tokenizer(), patch, FACTS)


def test_letting_the_models_write_adds_figures_and_changes_none() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    patch = random_patch(model)
    writing = replace(FACTS[0], generation=("{} is known for",), reference="P1/Q1")
    facts = [writing, FACTS[1]]
    plain = evaluate(model, tokenizer, patch, facts)
    report = evaluate(model, tokenizer, patch, facts, generate=True, seed=1)
    assert {name: report.metrics[name] for name in plain.metrics} == plain.metrics
    assert plain.value("efficacy", "generated") is None
    assert report.metrics["generated"].tallies["efficacy"].asked == 2
    found = report.figure("alphaedit", "fluency")
    assert found is not None
    assert found.count == 1
    assert found.base is not None
    assert found.base > 0
    assert report.figure("easyedit", "fluency") == found
    assert plain.figure("alphaedit", "fluency") is None
    assert report.figure("patchkit", "efficacy_generated") is not None
    assert report == evaluate(model, tokenizer, patch, facts, generate=True, seed=1)


def test_written_texts_are_compared_with_snippets() -> None:
    pytest.importorskip("sklearn")
    model = tiny("llama3")
    fact = replace(FACTS[1], generation=("{} is known for",), reference="P1/Q1")
    snippets = Snippets({"P1/Q1": ("Isaac Newton is known for gravity",)})
    patch = random_patch(model)
    report = evaluate(model, tiny_tokenizer(), patch, [fact], generate=True, snippets=snippets)
    found = report.figure("alphaedit", "consistency")
    assert found is not None
    assert found.patched is not None
    assert 0 < found.patched <= 1
    assert report.figure("easyedit", "consistency") is None
