"""An additive MEMIT to compare with: the same facts, layer, contexts and preserved keys.

`ΔW = Δ Kᵀ (λ C + K Kᵀ + Kₚ Kₚᵀ)⁻¹` (Meng et al., https://arxiv.org/abs/2210.07229), with earlier
batches' keys Kₚ as in its sequential variant. Targets are optimised at the edited matrix's output
at the subject's last token, at unchanged norm, which measured better for MEMIT than free ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchkit.editing.capture import capture, module_of, weight_of
from patchkit.editing.contexts import prefixes
from patchkit.editing.knowledge import Sources, preserved_statistics, preserved_text
from patchkit.editing.layers import choose_layers
from patchkit.editing.recipe import Recipe
from patchkit.editing.replay import Replay, capture_replay
from patchkit.editing.rows import Rows, build_rows
from patchkit.editing.state import borrowed
from patchkit.factors.additive import Additive
from patchkit.facts.fact import Fact
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import sites

STEPS, RATE, FLOOR = 25, 0.1, 0.05


def memit_patch(
    model: Any,
    tokenizer: Any,
    checkpoint: Checkpoint,
    facts: Sequence[Fact],
    recipe: Recipe,
    strength: float,
    cache: Path | None,
) -> Patch:
    """Return a patch by MEMIT with λ = `strength`, in the batches of `recipe`."""
    every = sites(model, checkpoint)
    layer = choose_layers(model, tokenizer, facts, every).layers[0]
    site = every[layer]
    sources = Sources(checkpoint, None, cache)
    text = preserved_text(model, tokenizer, recipe, sources)
    moment = preserved_statistics(model, text, [site], sources)[layer].moment.double()
    contexts = ["", *prefixes(tokenizer, text, recipe.contexts, recipe.seed)]
    weight = weight_of(model, site)
    left, right = [], []
    earlier = torch.zeros_like(moment)
    with borrowed(model, [site]):
        for first in range(0, len(facts), recipe.batch):
            batch = facts[first : first + recipe.batch]
            rows = [build_rows(tokenizer, batch, before, model.device) for before in contexts]
            flows = [capture(model, r.ids, r.mask, [site])[layer].at(r.last) for r in rows]
            others = torch.stack([flow.keys for flow in flows[1:]]).mean(0)
            keys = ((flows[0].keys + others) / 2).double()  # (n, d_in)
            values = [flow.values for flow in flows]
            wanted = _targets(model, module_of(model, site), layer, rows, values)
            earlier += keys.T @ keys
            solved = torch.linalg.solve(strength * moment + earlier, keys.T).T  # (n, d_in)
            weight += (wanted.double().T @ solved).to(weight.dtype)
            left.append(wanted.T)
            right.append(solved.float())
    factor = _lowest(torch.cat(left, dim=1), torch.cat(right))
    entry = checkpoint.tensor(site.tensor).info
    digest = checkpoint.digest(site.tensor)
    draft = TensorDraft(site.shape, entry.dtype, site.layout, digest, (factor,))
    base = BaseMeta(checkpoint.repo, checkpoint.revision, checkpoint.config_digest)
    return build_patch(base, {site.tensor: draft}, None, {"lambda": strength}, "memit", {})


def _lowest(left: Tensor, right: Tensor) -> Additive:
    """Return left · right in the fewest columns: more than d_out of them say nothing new."""
    if left.shape[1] <= left.shape[0]:
        return Additive(left, right)
    return Additive(torch.eye(left.shape[0]), left @ right)


def _targets(
    model: Any, module: nn.Module, layer: int, contexts: Sequence[Rows], values: Sequence[Tensor]
) -> Tensor:
    """Return the change (n, d_out) of each fact's value that makes its target likely."""
    shift = torch.zeros_like(values[0], requires_grad=True)
    unit = values[0].norm(dim=1, keepdim=True) / values[0].shape[1] ** 0.5
    replays = [capture_replay(model, rows.ids, rows.mask, layer) for rows in contexts]
    optimizer = torch.optim.Adam([shift], lr=RATE)
    for step in range(STEPS):
        chosen = {0, 1 + step % (len(contexts) - 1)}
        loss = torch.zeros(())
        for index in chosen:
            value = _kept(values[index], values[index] + shift * unit)
            loss = loss + _loss(module, replays[index], contexts[index], value)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return (_kept(values[0], values[0] + shift * unit) - values[0]).detach()


def _kept(value: Tensor, moved: Tensor) -> Tensor:
    """Return `moved` at the length of `value`."""
    scale = value.norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True)
    scaled: Tensor = moved * scale
    return scaled


def _loss(module: nn.Module, replay: Replay, rows: Rows, value: Tensor) -> Tensor:
    with _says(module, rows, value):
        logits = replay.logits(rows.label_row, rows.label_position)
    losses = nn.functional.cross_entropy(logits, rows.label_id, reduction="none")
    return rows.per_fact(losses).clamp_min(FLOOR).sum()


@contextmanager
def _says(module: nn.Module, rows: Rows, value: Tensor) -> Iterator[None]:
    """Make `module` give `value` (n, d_out) at the subject's last token."""
    index = torch.arange(rows.count)
    handle = module.register_forward_hook(
        lambda _, args, out: out.index_put((index, rows.last), value)
    )
    try:
        yield
    finally:
        handle.remove()
