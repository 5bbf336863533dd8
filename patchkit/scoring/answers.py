"""What a model answers to many prompts, read with the wanted tokens in place (teacher forcing).

The model runs without its head; only hidden states in front of wanted tokens become logits, so
that memory does not grow with vocabulary times text. Batches are padded on the right whatever the
tokenizer's side: causal attention then never sees padding, and positions start at zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.errors import InvariantError
from patchkit.events import SILENT, Progress, phase
from patchkit.facts.fact import Fact
from patchkit.facts.position import Encoded, encode_all, fact_passage, pad
from patchkit.parallel import ALONE, Workers
from patchkit.tensors.layout import readout, trunk

BATCH_TOKENS = 8192
"""Most tokens of one forward pass, padding included."""

_CPU_TOKENS = 1024
"""The same on a CPU, where what goes from one layer to the next should stay in the cache."""

_LOGITS = 1 << 26  # numbers of one block of logits: 256 MB in float32


@dataclass(frozen=True, slots=True)
class Answer:
    """One prompt's answer, token by token: all tuples have one entry for each wanted token.

    `predicted` is what the model thinks most likely where `tokens` is wanted, `logprobs` the
    natural logarithm of the probability of what is wanted. A prompt without a target has one
    prediction, the next token, and nothing wanted.
    """

    predicted: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every wanted token is the most likely one."""
        return self.predicted == self.tokens

    @property
    def first(self) -> bool:
        """Whether the first wanted token is the most likely one."""
        return self.predicted[:1] == self.tokens[:1]

    @property
    def logprob(self) -> float:
        """Log-probability of the whole target in nats."""
        return math.fsum(self.logprobs)

    @property
    def mean_logprob(self) -> float:
        """Log-probability per token, the length-normalised one that CounterFact compares."""
        return self.logprob / len(self.logprobs)


def answers(
    model: PreTrainedModel,
    encodings: Sequence[Encoded],
    *,
    pad_id: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    workers: Workers = ALONE,
    progress: Progress = SILENT,
    name: str = "answers",
) -> tuple[Answer, ...]:
    """Answer every encoding, in order; equal ones run once, each by one of `workers`.

    Longest first, in batches of at most `batch_tokens` tokens, fewer on a CPU. Raises
    InvariantError when the model's logits are not finite, in every process.
    """
    distinct = {_question(encoded): encoded for encoded in encodings}
    ordered = sorted(distinct.values(), key=lambda encoded: -len(encoded.ids))
    mine = workers.share(ordered)
    size = min(batch_tokens, _CPU_TOKENS) if model.device.type == "cpu" else batch_tokens
    given: list[Answer] = []
    failure: InvariantError | None = None
    try:
        with phase(progress, name, len(mine), "prompts") as advance:
            for batch in _batches(mine, size):
                given += _answer(model, batch, pad_id)
                advance(len(batch))
    except InvariantError as error:
        failure = error
    if not workers.agree(failure is None):
        raise failure or InvariantError("another process got logits that are not finite")
    known = _everyones(workers, ordered, given, model.device)
    found = dict(zip(map(_question, ordered), known, strict=True))
    return tuple(found[_question(encoded)] for encoded in encodings)


def answers_to(
    model: PreTrainedModel, tokenizer: Any, facts: Sequence[Fact], *, workers: Workers = ALONE
) -> tuple[Answer, ...]:
    """Answer the prompt of every fact with its target in place; raises as `answers`."""
    passages = [fact_passage(fact, target=fact.target) for fact in facts]
    return answers(model, encode_all(tokenizer, passages), workers=workers)


def _everyones(
    workers: Workers, ordered: Sequence[Encoded], given: Sequence[Answer], device: torch.device
) -> Sequence[Answer]:
    """Return the answers to all of `ordered`, of which this process has `given` its share."""
    if workers.count == 1:
        return given
    sizes = [max(1, len(encoded.labels)) + len(encoded.labels) for encoded in ordered]
    starts = [0, *accumulate(sizes)]
    numbers = torch.zeros(starts[-1], dtype=torch.float64, device=device)
    for start, answer in zip(workers.share(starts[:-1]), given, strict=True):
        said = torch.tensor([*answer.predicted, *answer.logprobs], dtype=torch.float64)
        numbers[start : start + len(said)] = said
    numbers = workers.sum(numbers)
    found = []
    for encoded, start, size in zip(ordered, starts, sizes, strict=False):
        said_here = numbers[start : start + size].tolist()
        tokens = tuple(token for _, token in encoded.labels)
        predicted = tuple(map(int, said_here[: size - len(tokens)]))
        found.append(Answer(predicted, tokens, tuple(said_here[size - len(tokens) :])))
    return found


def _question(encoded: Encoded) -> object:
    return encoded.ids, encoded.labels


def _batches(ordered: list[Encoded], batch_tokens: int) -> Iterator[list[Encoded]]:
    """Group neighbours, longest first, so that little is spent on padding."""
    start = 0
    while start < len(ordered):
        size = max(1, batch_tokens // max(1, len(ordered[start].ids)))
        yield ordered[start : start + size]
        start += size


@torch.no_grad()
def _answer(model: PreTrainedModel, batch: list[Encoded], pad_id: int) -> list[Answer]:
    padded = pad(batch, pad_id, "right")
    ids = torch.tensor(padded.ids, device=model.device)  # (b, t)
    mask = torch.tensor(padded.mask, device=model.device)
    hidden = trunk(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    asked = [encoded.labels or ((len(encoded.ids) - 1, 0),) for encoded in batch]
    rows = [row for row, labels in enumerate(asked) for _ in labels]
    places = [place for labels in asked for place, _ in labels]
    wanted = [token for labels in asked for _, token in labels]
    predicted, logprobs = _read(model, hidden[rows, places], wanted)
    return _split(batch, predicted, logprobs)


def _read(
    model: PreTrainedModel, hidden: Tensor, wanted: list[int]
) -> tuple[list[int], list[float]]:
    """Most likely token and log-probability of the wanted one, for hidden states (p, d)."""
    predicted, logprobs = [], []
    tokens = torch.tensor(wanted, device=hidden.device)
    step = max(1, _LOGITS // int(model.config.get_text_config().vocab_size))
    for start in range(0, len(wanted), step):
        token = tokens[start : start + step]
        logits = readout(model, hidden[start : start + step]).float()  # (p, vocabulary)
        if not bool(torch.isfinite(logits).all()):
            raise InvariantError(
                f"{type(model).__name__} gives logits that are not finite",
                hint="compute in float32",
            )
        predicted += logits.argmax(-1).tolist()
        logprobs += logits.log_softmax(-1).gather(-1, token[:, None])[:, 0].tolist()
    return predicted, logprobs


def _split(batch: list[Encoded], predicted: list[int], logprobs: list[float]) -> list[Answer]:
    found, start = [], 0
    for encoded in batch:
        tokens = tuple(token for _, token in encoded.labels)
        end = start + max(1, len(tokens))
        found.append(
            Answer(
                tuple(predicted[start:end]), tokens, tuple(logprobs[start : start + len(tokens)])
            )
        )
        start = end
    return found
