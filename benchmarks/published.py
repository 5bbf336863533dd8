"""Editors as their authors' code runs them: one request at a time, everything dense.

For timing beside the engine with equal settings, and written to give equal edits:

- `memit`, `alphaedit`: values by compute_z, that is for every request and step the whole model on
  all its padded rows (contexts and the anchor of the KL term), the vocabulary at every position,
  and a second time behind the last block for the loss; keys by whole forward passes; then for the
  batch one general solve with a (d_in, d_in) matrix, in fp64 for MEMIT, in fp32 for AlphaEdit.
- `mose-oft`: the released trainer. Every step builds the block-diagonal rotation as a dense
  (d_in, d_in) matrix and multiplies the weight with it, one request at a time.
- `rotation` has no published loop. Its literal form is the same objective for one request at a
  time, with the changed weight formed at every step and the whole model run on whole rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from patchkit.editing.capture import module_of, weight_of
from patchkit.editing.clock import Clock
from patchkit.editing.methods import alphaedit, memit, mose_oft, rotation
from patchkit.editing.recipe import Recipe
from patchkit.editing.rows import Rows, build_rows, mean_key
from patchkit.editing.state import SiteState, borrowed, install
from patchkit.editing.targets import TargetOptions
from patchkit.facts.fact import Fact
from patchkit.facts.position import encode_all, fact_passage, pad
from patchkit.tensors.layout import blocks, final_norm, readout

_ROWS_AT_ONCE = 128


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """One matrix of a model, and the contexts that requests are written in (the first empty)."""

    model: Any
    tokenizer: Any
    state: SiteState
    contexts: Sequence[str]
    clock: Clock = field(default_factory=Clock)

    @property
    def module(self) -> nn.Module:
        """The module that holds the matrix."""
        return module_of(self.model, self.state.site)

    def edit(self, facts: Sequence[Fact], recipe: Recipe) -> Tensor:
        """Write all facts, in one batch where the method has batches; return ΔW (d_out, d_in).

        The model is left as it was.
        """
        with borrowed(self.model, [self.state.site]):
            if recipe.method in ("memit", "alphaedit"):
                return self._closed(facts, recipe.options)
            if recipe.method == "mose-oft":
                return self._dense_blocks(facts, recipe.options)
            return self._rotations(facts, recipe.options)

    def _closed(self, facts: Sequence[Fact], options: Any) -> Tensor:
        with self.clock.phase("values"):
            wanted = torch.stack([self.value(fact, options) for fact in facts])
        with self.clock.phase("keys"):
            keys = mean_key(self.keys(facts)).T  # (d_in, n)
            missing = (wanted - self.values(facts)).T  # (d_out, n)
        if isinstance(options, memit.Options):
            with self.clock.phase("solve"):
                moment = options.lam * self.state.statistics.moment.double()
                wide = keys.double()
                solved = torch.linalg.solve(moment + wide @ wide.T, wide)
                return missing.double() @ solved.T
        with self.clock.phase("projection"):
            basis = _small_eigenvectors(self.state, options)
            project = basis @ basis.T
        with self.clock.phase("solve"):
            scale = options.l2 * float(self.state.statistics.moment.diagonal().sum())
            eye = torch.eye(len(keys), device=keys.device)
            system = project @ (keys @ keys.T) + scale * eye
            return torch.linalg.solve(system, project @ keys @ missing.T).T.double()

    def value(self, fact: Fact, options: TargetOptions) -> Tensor:
        """Optimise the value (d,) behind the layer for one request, as compute_z does."""
        rows, labels = self._padded(fact)
        count, last = len(self.contexts), rows.last
        layer, final = blocks(self.model)[self.state.site.layer], blocks(self.model)[-1]
        kept: dict[str, Tensor] = {}
        steps = torch.zeros(self.state.site.d_out, device=last.device, requires_grad=True)
        optimizer = torch.optim.Adam([steps], lr=options.rate)
        for step in range(options.steps):
            with _changing(layer, last, kept, steps, options, final):
                logits = self.model(input_ids=rows.ids, attention_mask=rows.mask).logits
            again = log_softmax(readout(self.model, final_norm(self.model)(kept["stream"])), -1)
            nll = -again[labels[:, 0], labels[:, 1], labels[:, 2]]
            now = log_softmax(logits[count, last[count]], -1)
            calm = kept.setdefault("calm", now.detach().clone())
            loss = nll.sum() / (len(labels) // count) / count
            loss = loss + options.kl * kl_div(calm, now, log_target=True, reduction="sum")
            size, shift = kept["start"].norm(), _shift(steps, kept, options)
            loss = loss + options.decay * shift.norm() / size**2
            if loss < options.stop or step == options.steps - 1:
                break
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            with torch.no_grad():
                length = _shift(steps, kept, options).norm()
                if length > options.clamp * size:
                    steps *= options.clamp * size / length
        return (kept["start"] + _shift(steps, kept, options)).detach()

    def _padded(self, fact: Fact) -> tuple[Rows, Tensor]:
        """Return all rows of a request, the anchor last, and (row, position, id) of its labels."""
        passages = [fact_passage(fact, context=text, target=fact.target) for text in self.contexts]
        passages.append(fact_passage(fact, prompt="{} is a"))
        batch = pad(encode_all(self.tokenizer, passages), 0, "right")
        device = self.model.device
        labels = [(r, p, t) for r, pairs in enumerate(batch.labels) for p, t in pairs]
        ids, mask, last, found = (
            torch.tensor(part, device=device)
            for part in (batch.ids, batch.mask, batch.subject_last, labels)
        )
        return Rows(ids, mask, last, *found.unbind(1)), found

    def keys(self, facts: Sequence[Fact]) -> Tensor:
        """Return keys (n, c, d_in) by whole forward passes over every context."""
        return torch.stack([self._seen(facts, text, self.module, 0) for text in self.contexts], 1)

    def values(self, facts: Sequence[Fact]) -> Tensor:
        """Return the stream (n, d) behind the layer at the subjects' last tokens."""
        return self._seen(facts, "", blocks(self.model)[self.state.site.layer], 1)

    @torch.no_grad()
    def _seen(self, facts: Sequence[Fact], context: str, module: nn.Module, side: int) -> Tensor:
        """Return what enters (side 0) or leaves a module at the subjects' last tokens, (n, d)."""
        found: list[Tensor] = []
        for first in range(0, len(facts), _ROWS_AT_ONCE):
            some = facts[first : first + _ROWS_AT_ONCE]
            rows = build_rows(self.tokenizer, some, context, self.model.device)
            seen: list[Tensor] = []
            handle = module.register_forward_hook(
                lambda _, args, out, seen=seen: seen.append(_one(args if side == 0 else out))
            )
            self.model(input_ids=rows.ids, attention_mask=rows.mask)
            handle.remove()
            found.append(seen[0][torch.arange(len(some)), rows.last].float())
        return torch.cat(found)

    def _losses(self, weight: Tensor, rows: Rows) -> Tensor:
        """Return each row's mean loss (n,) of the whole model with another matrix (d_out, d_in)."""
        site = self.state.site
        stored = weight.T if site.layout == "conv1d" else weight
        changed = {f"{site.module}.weight": stored}
        given = {"input_ids": rows.ids, "attention_mask": rows.mask}
        logits = functional_call(self.model, changed, (), given).logits
        picked = logits[rows.label_row, rows.label_position]
        return rows.per_fact(cross_entropy(picked.float(), rows.label_id, reduction="none"))

    def _dense_blocks(self, facts: Sequence[Fact], options: mose_oft.Options) -> Tensor:
        g = mose_oft.start(self.state, options)
        weight = weight_of(self.model, self.state.site).float()
        with self.clock.phase("training"):
            for fact in facts:
                rows = build_rows(self.tokenizer, [fact], "", self.model.device)
                optimizer = mose_oft.adam([g], options)
                for _ in range(options.steps):
                    dense = torch.block_diag(*mose_oft.cayley(g))  # (d_in, d_in)
                    loss = self._losses(weight @ dense, rows).mean()
                    if loss.item() < options.stop:
                        break
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    optimizer.step()
        turned = torch.block_diag(*mose_oft.cayley(g.detach().double()))
        return weight.double() @ turned - weight.double()

    def _rotations(self, facts: Sequence[Fact], options: rotation.Options) -> Tensor:
        state = self.state
        for fact in facts:
            with self.clock.phase("keys"):
                keys = self.keys([fact])
            with self.clock.phase("training"):
                state = self._rotation(state, fact, keys, options)
            install(self.model, {state.site.layer: state})
        return state.weight.double() - state.base.double()

    def _rotation(
        self, state: SiteState, fact: Fact, keys: Tensor, options: rotation.Options
    ) -> SiteState:
        rotor = rotation._rotor(state, mean_key(keys), options)
        drift = rotation._Drift.of(rotor, state)
        rows = [build_rows(self.tokenizer, [fact], text, keys.device) for text in self.contexts]
        optimizer = torch.optim.Adam([rotor.landing])
        for step in range(options.steps):
            rotation._set_rate(optimizer, options, step)
            turn = rotor.turn()
            weight = state.weight + turn.write @ turn.reading.T
            chosen = [0, 1 + step % (len(rows) - 1)]
            losses = [
                self._losses(weight, rows[index]).clamp_min(options.floor) for index in chosen
            ]
            loss = torch.stack(losses).mean() + options.preserve * drift.preserved(turn)
            loss = loss + options.history * drift.forgotten(turn)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return state.changed(rotation._factor(rotor)).remember(keys)


def _shift(steps: Tensor, kept: Mapping[str, Tensor], options: TargetOptions) -> Tensor:
    """Return the shift (d,) that Adam's variable stands for."""
    start = kept["start"]
    unit = 1.0 if options.published_scales else float(start.norm()) / len(start) ** 0.5
    return steps * unit


@contextmanager
def _changing(
    layer: nn.Module,
    last: Tensor,
    kept: dict[str, Tensor],
    steps: Tensor,
    options: TargetOptions,
    final: nn.Module,
) -> Iterator[None]:
    """Move what leaves `layer` at the subjects, and keep what leaves the last block."""
    index = torch.arange(len(last), device=last.device)

    def move(module: nn.Module, args: Any, out: Any) -> Any:
        hidden = _one(out)
        kept.setdefault("start", hidden[0, last[0]].detach().clone())
        shift = _shift(steps, kept, options).expand(len(last), -1)
        hidden = hidden.index_put((index, last), shift, accumulate=True)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    def keep(module: nn.Module, args: Any, out: Any) -> None:
        kept["stream"] = _one(out)

    handles = [layer.register_forward_hook(move), final.register_forward_hook(keep)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _one(out: Any) -> Tensor:
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


def _small_eigenvectors(state: SiteState, options: alphaedit.Options) -> Tensor:
    """Return the null space (d_in, m) of C in fp32 by a full decomposition, as published."""
    unit = 1.0 if options.published_scales else state.statistics.energy
    left, values, _ = torch.linalg.svd(state.statistics.moment, full_matrices=False)
    return left[:, values < options.threshold * unit]
