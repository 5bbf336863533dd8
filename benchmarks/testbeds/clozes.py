"""Prompts with their targets as padded batches, and what a causal language model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.testbeds.world import Fact, World

BATCH: Final = 256
Place = Literal["subject_last", "prompt_end"]
PLACES: Final[tuple[Place, ...]] = ("subject_last", "prompt_end")


@dataclass(frozen=True, slots=True)
class Cloze:
    """A prompt, the object asked for, and the subject in the prompt."""

    prompt: str
    target: str
    subject: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded tokens, the positions that predict their targets, and the subjects' tokens."""

    ids: torch.Tensor
    predicts: torch.Tensor
    subject: torch.Tensor
    subject_last: torch.Tensor
    prompt_end: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Answers:
    """For each cloze: is every target token the argmax, the target's probability, its mean NLL."""

    right: torch.Tensor
    probability: torch.Tensor
    nll: torch.Tensor


def place_of(batch: Batch, place: Place) -> torch.Tensor:
    """Return the position of a place in every row."""
    return batch.subject_last if place == "subject_last" else batch.prompt_end


def of_fact(world: World, fact: Fact, wording: int, target: str | None = None) -> Cloze:
    """Return the cloze of a fact in one wording, asking for its object or for another target."""
    return Cloze(world.prompt(fact, wording), target or fact.object, fact.subject)


def encode(tokenizer: PreTrainedTokenizerFast, clozes: Sequence[Cloze]) -> Batch:
    """Tokenise clozes; the subject's tokens are found by their places in the text."""
    rows = []
    for cloze in clozes:
        coded = tokenizer(f"{cloze.prompt} {cloze.target}", return_offsets_mapping=True)
        start = cloze.prompt.rindex(cloze.subject)
        rows.append(
            (
                coded["input_ids"],
                coded["offset_mapping"],
                start,
                start + len(cloze.subject),
                len(cloze.prompt),
            )
        )
    width = max(len(row[0]) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    predicts, subject = (
        torch.zeros(len(rows), width, dtype=torch.bool),
        torch.zeros(len(rows), width, dtype=torch.bool),
    )
    for i, (tokens, offsets, start, end, prompt_end) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        for j, (a, b) in enumerate(offsets):
            subject[i, j] = a < end and b > start and a < b
            if b > prompt_end:
                predicts[i, j - 1] = True
    last = width - 1 - subject.flip(1).int().argmax(1)
    return Batch(ids, predicts, subject, last, predicts.int().argmax(1))


def judge(model: LlamaForCausalLM, batch: Batch) -> Answers:
    """Judge the model's teacher-forced answers to a batch; only what is asked is decoded."""
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    row, place = batch.predicts.nonzero(as_tuple=True)
    log_p = model.lm_head(hidden[row, place]).float().log_softmax(-1)  # (asked tokens, vocabulary)
    wanted = batch.ids[row, place + 1]
    none = torch.zeros(len(batch.ids), device=log_p.device)
    total = none.index_add(0, row, log_p.gather(1, wanted[:, None])[:, 0])
    wrong = none.index_add(0, row, (log_p.argmax(1) != wanted).float())
    return Answers(wrong == 0, total.exp(), -total / batch.predicts.sum(1))


def ask(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, clozes: Sequence[Cloze]
) -> Answers:
    """Judge the model's answers to any number of clozes."""
    parts = []
    with torch.no_grad():
        for i in range(0, len(clozes), BATCH):
            batch = encode(tokenizer, clozes[i : i + BATCH]).to(model.device)
            parts.append(judge(model, batch))
    return Answers(
        *(torch.cat([getattr(p, name) for p in parts]) for name in ("right", "probability", "nll"))
    )


Change = Callable[[torch.Tensor], torch.Tensor]


def _changing(change: Change) -> Callable[..., Any]:
    """Return a forward hook that changes an output, alone or as the first of a tuple."""

    def hook(module: torch.nn.Module, args: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return hook


@contextmanager
def outputs_changed(changes: Mapping[torch.nn.Module, Change]) -> Iterator[None]:
    """Pass the outputs of modules through functions for as long as the context lasts."""
    with ExitStack() as stack:
        for module, change in changes.items():
            stack.callback(module.register_forward_hook(_changing(change)).remove)
        yield


def outputs_of(
    model: LlamaForCausalLM, batch: Batch, modules: Sequence[torch.nn.Module]
) -> list[torch.Tensor]:
    """Return what each module puts out for a batch."""
    kept: dict[torch.nn.Module, torch.Tensor] = {}

    def keep(module: torch.nn.Module) -> Change:
        return lambda output: kept.setdefault(module, output.detach())

    with torch.no_grad(), outputs_changed({module: keep(module) for module in modules}):
        model(input_ids=batch.ids)
    return [kept[module] for module in modules]


def put(place: torch.Tensor, value: torch.Tensor) -> Change:
    """Return a change that sets the output at one position of every row."""
    rows = torch.arange(len(place))
    return lambda output: output.index_put((rows, place), value)
