"""Choose the layers to edit by measuring where the base recalls the subjects of the facts.

Every MLP is silenced at the subject's last token: alone, together with all earlier ones, and all
of them but one. What the base loses or regains of the log-probability of its own answer is the
layer's effect. Only prompts are used, never targets or evaluation records. The place to look is
from Meng et al., https://arxiv.org/abs/2202.05262; silencing layers together as well as alone
matters where layers stand in for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from patchkit.editing.capture import module_of
from patchkit.editing.replay import Replay, capture_replay
from patchkit.errors import SolveError
from patchkit.events import SILENT, Progress, phase
from patchkit.facts.fact import Fact
from patchkit.facts.position import encode_all, fact_passage, pad
from patchkit.tensors.layout import Site

MOST_FACTS = 32
_SHARE = 0.5  # of the largest effect that makes a layer worth editing


@dataclass(frozen=True, slots=True)
class LayerEvidence:
    """Effects of one layer's MLP at the subject's last token, in nats of the base's own answer.

    `alone` is lost when it is silenced, `together` when it and all earlier ones are, `restored`
    is regained when it alone speaks among silenced MLPs.
    """

    layer: int
    alone: float
    together: float
    restored: float


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The chosen layers, ascending, and what was measured (empty when the caller chose)."""

    layers: tuple[int, ...]
    evidence: tuple[LayerEvidence, ...] = ()


def given_layers(layers: Sequence[int], sites: Sequence[Site]) -> LayerChoice:
    """Return the caller's own choice; SolveError for a layer that the model does not have."""
    missing = set(layers) - {site.layer for site in sites}
    if missing:
        raise SolveError(
            f"layer {min(missing)} was asked for and the model has layers 0 to {len(sites) - 1}"
        )
    return LayerChoice(tuple(sorted(set(layers))))


def choose_layers(
    model: PreTrainedModel,
    tokenizer: Any,
    facts: Sequence[Fact],
    sites: Sequence[Site],
    *,
    most: int = 1,
    progress: Progress = SILENT,
) -> LayerChoice:
    """Measure every layer on at most 32 facts and choose those that matter, at most `most`."""
    recall = _Recall.of(model, tokenizer, facts[:MOST_FACTS], sites)
    layers = [site.layer for site in sites]
    clean, nothing = recall.without(()), recall.without(layers)
    evidence: list[LayerEvidence] = []
    with phase(progress, "choosing layers", len(sites), "layers") as advance:
        for index, layer in enumerate(layers):
            others = [other for other in layers if other != layer]
            evidence.append(
                LayerEvidence(
                    layer=layer,
                    alone=clean - recall.without([layer]),
                    together=clean - recall.without(layers[: index + 1]),
                    restored=recall.without(others) - nothing,
                )
            )
            advance(1)
    return LayerChoice(_strongest(evidence, most), tuple(evidence))


def _strongest(evidence: Sequence[LayerEvidence], most: int) -> tuple[int, ...]:
    """Take the layers that lose most alone, or add most to the loss of those before them."""
    before = [0.0, *(row.together for row in evidence[:-1])]
    effect = {
        row.layer: max(row.alone, row.together - earlier)
        for row, earlier in zip(evidence, before, strict=True)
    }
    ranked = sorted(effect, key=lambda layer: (-effect[layer], layer))
    strong = [layer for layer in ranked if effect[layer] >= _SHARE * effect[ranked[0]]]
    return tuple(sorted(strong[:most]))


@dataclass(frozen=True, slots=True)
class _Recall:
    """The base's own answers to the prompts of some facts, replayable with MLPs silenced."""

    replay: Replay
    modules: dict[int, nn.Module]
    last: Tensor  # (n,) the subject's last token
    end: Tensor  # (n,) the prompt's last token
    answer: Tensor  # (n,) the base's most likely next token

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: Any,
        facts: Sequence[Fact],
        sites: Sequence[Site],
    ) -> _Recall:
        encoded = encode_all(tokenizer, [fact_passage(fact) for fact in facts])
        batch = pad(encoded, tokenizer.pad_token_id or 0, "right")
        ids, mask = (torch.tensor(part, device=model.device) for part in (batch.ids, batch.mask))
        end = mask.sum(1) - 1
        replay = capture_replay(model, ids, mask, 0)
        rows = torch.arange(len(ids), device=model.device)
        with torch.no_grad():
            answer = replay.logits(rows, end).argmax(-1)
        last = torch.tensor(batch.subject_last, device=model.device)
        return cls(replay, {s.layer: module_of(model, s) for s in sites}, last, end, answer)

    @torch.no_grad()
    def without(self, layers: Collection[int]) -> float:
        """Return the mean log-probability of the answers with the MLPs of `layers` silenced."""
        rows = torch.arange(len(self.last), device=self.last.device)
        with _silenced([self.modules[layer] for layer in layers], rows, self.last):
            scores = torch.log_softmax(self.replay.logits(rows, self.end).float(), dim=-1)
        return float(scores[rows, self.answer].mean())


@contextmanager
def _silenced(modules: Sequence[nn.Module], rows: Tensor, last: Tensor) -> Iterator[None]:
    """Make `modules` write zero at one position of each row inside the block."""

    def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        out = out.clone()
        # A view by rows: OPT hands over rows and positions flattened into one axis.
        out.view(len(rows), -1, out.shape[-1])[rows, last] = 0.0
        return out

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
