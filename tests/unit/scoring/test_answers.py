"""Batched, headless scoring gives what the whole model gives for one prompt at a time."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from patchkit.errors import InvariantError
from patchkit.facts.position import Encoded, encode_probe
from patchkit.scoring import answers as module
from patchkit.scoring.answers import Answer, answers
from tests.unit.models.factory import ARCHITECTURES, PAD, tiny, tiny_tokenizer

PAIRS = [
    ("The capital of France is", "Paris"),
    ("Marie Curie discovered", "radium"),
    ("Ada Lovelace was born in a city of some size, namely", "London"),
    ("The yen", None),
    ("The currency of Japan, the language of Brazil and the capital of Italy are", None),
]


def encodings(side: str = "right") -> list[Encoded]:
    tokenizer = tiny_tokenizer(side)
    return [encode_probe(tokenizer, prompt, target) for prompt, target in PAIRS]


def by_hand(model: PreTrainedModel, encoded: Encoded) -> tuple[list[int], list[float]]:
    logits = model(input_ids=torch.tensor([encoded.ids])).logits[0].double()
    if not encoded.labels:
        return [int(logits[-1].argmax())], []
    normal = logits - logits.exp().sum(-1, keepdim=True).log()
    predicted = [int(logits[place].argmax()) for place, _ in encoded.labels]
    return predicted, [float(normal[place, token]) for place, token in encoded.labels]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_the_whole_model(architecture: str) -> None:
    model = tiny(architecture)
    for encoded, answer in zip(encodings(), answers(model, encodings()), strict=True):
        predicted, logprobs = by_hand(model, encoded)
        assert list(answer.predicted) == predicted
        assert answer.tokens == tuple(token for _, token in encoded.labels)
        assert answer.logprobs == pytest.approx(logprobs, abs=2e-5)


@pytest.mark.parametrize("architecture", ["llama3", "gpt2", "opt", "gemma2"])
def test_batching_changes_nothing(architecture: str) -> None:
    model = tiny(architecture)
    alone = answers(model, encodings(), batch_tokens=1)
    for size in (40, 8192):
        together = answers(model, encodings(), batch_tokens=size)
        for one, other in zip(alone, together, strict=True):
            assert one.predicted == other.predicted
            assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


@pytest.mark.parametrize("architecture", ["llama3", "gpt2", "opt"])
def test_the_padding_side_and_token_do_not_matter(architecture: str) -> None:
    model = tiny(architecture)
    right = answers(model, encodings("right"))
    assert right == answers(model, encodings("left"))
    assert right == answers(model, encodings("left"), pad_id=PAD)


@given(order=st.permutations(range(len(PAIRS))))
def test_order_and_repetition_do_not_matter(order: list[int]) -> None:
    model, asked = tiny("llama2"), encodings()
    expected = answers(model, asked)
    shuffled = [asked[index] for index in order]
    assert answers(model, shuffled + shuffled) == tuple(expected[i] for i in order + order)


def test_equal_prompts_run_once() -> None:
    model, seen = tiny("llama2"), []

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].shape[0])

    model.model.register_forward_pre_hook(count, with_kwargs=True)
    answers(model, encodings() * 3)
    assert sum(seen) == len(PAIRS)


def test_the_head_sees_only_wanted_positions() -> None:
    model, seen = tiny("llama2"), []
    model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    asked = encodings()
    answers(model, asked)
    assert seen == [(sum(max(1, len(encoded.labels)) for encoded in asked), 32)]


def test_few_logits_at_a_time_are_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gpt2")
    whole = answers(model, encodings())
    monkeypatch.setattr(module, "_LOGITS", 1)
    for one, other in zip(whole, answers(model, encodings()), strict=True):
        assert one.predicted == other.predicted
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_nothing_asked_is_nothing_answered() -> None:
    assert answers(tiny("llama2"), []) == ()


def test_logits_that_are_not_finite_are_an_error() -> None:
    model = tiny("llama2")
    model.model.norm.weight[0] = math.nan
    with pytest.raises(InvariantError, match="not finite"):
        answers(model, encodings())


def test_an_answer_reads_itself() -> None:
    answer = Answer(predicted=(3, 4, 5), tokens=(3, 9, 5), logprobs=(-1.0, -2.0, -3.0))
    assert (answer.exact, answer.first) == (False, True)
    assert (answer.logprob, answer.mean_logprob) == (-6.0, -2.0)
    assert Answer((3,), (3,), (-0.5,)).exact


def test_progress_counts_distinct_prompts() -> None:
    events: list[tuple[object, ...]] = []

    class Watcher:
        def started(self, phase: str, total: int | None, unit: str) -> None:
            events.append(("started", phase, total, unit))

        def advanced(self, phase: str, amount: int = 1) -> None:
            events.append(("advanced", amount))

        def finished(self, phase: str) -> None:
            events.append(("finished", phase))

    asked = encodings()
    answers(tiny("llama2"), asked + asked[:2], progress=Watcher(), name="base answers")
    assert events[0] == ("started", "base answers", len(PAIRS), "prompts")
    assert sum(int(str(e[1])) for e in events if e[0] == "advanced") == len(PAIRS)
    assert events[-1] == ("finished", "base answers")
