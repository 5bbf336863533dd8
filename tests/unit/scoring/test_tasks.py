"""lm-evaluation-harness runs tasks of local files on a model in memory."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from patchkit.errors import ExtraMissing, TaskError
from patchkit.evaluate import evaluate
from patchkit.facts.fact import Fact, Probe
from patchkit.scoring.metrics import measure
from patchkit.scoring.questions import ask, questions
from tests.unit.models.factory import tiny, tiny_tokenizer
from tests.unit.models.patches import random_patch

CHOICES = ["Paris", "Rome", "yen", "light"]
QUESTIONS = [("The capital of France is", 0), ("The capital of Italy is", 1), ("Japan has the", 2)]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
{rest}
"""
CHOICE = """
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
EXACT = """
doc_to_target: " {{answer}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A task of choices and one of generation, over the same three questions."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "questions.jsonl"
    lines = [
        {"question": question, "choices": CHOICES, "label": label, "answer": CHOICES[label]}
        for question, label in QUESTIONS
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = []
    for name, kind, rest in (
        ("choices", "multiple_choice", CHOICE),
        ("words", "generate_until", EXACT),
    ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(TASK.format(name=name, file=data, kind=kind, rest=rest))
        found.append(path)
    return found


@pytest.mark.slow
def test_base_and_patched_model_run_a_task_end_to_end(
    files: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    fact = Fact("France", "The capital of {} is", "Rome")
    state = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    patch = random_patch(model, scale=0.5)
    report = evaluate(model, tokenizer, patch, [fact], tasks=files)
    assert set(report.tasks_before) == set(report.tasks_after) == {"choices", "words"}
    assert set(report.tasks_after["words"]) == {"exact_match"}
    again = evaluate(model, tokenizer, patch, [fact], tasks=files)
    assert again.tasks_after == report.tasks_after
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    assert np.random.get_state()[1].tolist() == state[2]
    assert tokenizer.padding_side == tiny_tokenizer().padding_side
    assert capfd.readouterr() == ("", "")
    assert report.tasks_before["choices"]["acc"] == share_preferred(model)


def share_preferred(model: torch.nn.Module) -> float:
    """The share of questions whose right choice is the likeliest as a whole, asked our way."""
    right = 0
    for question, label in QUESTIONS:
        asked = questions(tiny_tokenizer(), [], [Probe(question, choice) for choice in CHOICES])
        replies = ask(model, asked)  # type: ignore[arg-type]
        assert measure(asked, replies, replies).retention is None or replies
        likely = [reply.wanted.logprob for reply in replies]
        right += likely.index(max(likely)) == label
    return right / len(QUESTIONS)


@pytest.mark.slow
def test_a_task_file_that_cannot_be_run_is_named(files: list[Path], tmp_path: Path) -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    from patchkit.scoring.tasks import run_tasks

    with pytest.raises(TaskError, match="there is no task file"):
        run_tasks(model, tokenizer, [tmp_path / "none.yaml"])
    files[0].write_text("task: broken\noutput_type: multiple_choice\ndataset_path: json\n")
    with pytest.raises(TaskError, match=r"choices\.yaml could not be run"):
        run_tasks(model, tokenizer, files)


def test_without_the_harness_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from patchkit.scoring.tasks import run_tasks

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ExtraMissing) as caught:
        run_tasks(tiny("llama3"), tiny_tokenizer(), ["task.yaml"])
    assert "patchkit-lm[tasks]" in (caught.value.hint or "")
