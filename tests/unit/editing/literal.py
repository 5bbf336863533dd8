"""The published loop and the published solutions, written out densely and one fact at a time."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from patchkit.editing.batch import Batch
from patchkit.editing.rows import Rows
from patchkit.editing.targets import TargetOptions


def value(
    model: Any, module: Any, batch: Batch, fact: int, options: TargetOptions
) -> tuple[Tensor, int]:
    """Optimise one fact's value at the output of `module`; the steps taken beside it."""
    rows = [one(context, fact) for context in batch.contexts]
    anchor = one(batch.anchors, fact)
    start = output(model, module, rows[0])[0, rows[0].last[0]]
    unit = 1.0 if options.published_scales else float(start.norm()) / len(start) ** 0.5
    steps = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([steps], lr=options.rate)
    calm = log_softmax(said(model, module, anchor, torch.zeros_like(start))[0, anchor.last[0]], -1)
    for step in range(options.steps):
        delta = steps * unit
        nll = []
        for context in rows:
            logits = said(model, module, context, delta)[0, context.label_position]
            nll.append(cross_entropy(logits, context.label_id))
        now = log_softmax(said(model, module, anchor, delta)[0, anchor.last[0]], -1)
        apart = kl_div(calm.detach(), now, log_target=True, reduction="sum")
        loss = torch.stack(nll).mean() + options.kl * apart
        loss = loss + options.decay * delta.norm() / start.norm() ** 2
        if loss < options.stop or step == options.steps - 1:
            return (start + delta).detach(), step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            limit = options.clamp * start.norm()
            if (steps * unit).norm() > limit:
                steps *= limit / (steps * unit).norm()
    raise AssertionError("the loop returns from inside")


def one(rows: Rows, index: int) -> Rows:
    """One row without its padding."""
    alone = rows.only([index])
    length = int(alone.mask.sum())
    return Rows(
        ids=alone.ids[:, :length],
        mask=alone.mask[:, :length],
        last=alone.last,
        label_row=alone.label_row,
        label_position=alone.label_position,
        label_id=alone.label_id,
    )


def output(model: Any, module: Any, rows: Rows) -> Tensor:
    """What `module` gives, (1, t, d)."""
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, args, out: kept.append(first(out)))
    with torch.no_grad():
        model(input_ids=rows.ids, attention_mask=rows.mask)
    handle.remove()
    return kept[0].reshape(1, -1, kept[0].shape[-1])


def said(model: Any, module: Any, rows: Rows, delta: Tensor) -> Tensor:
    """Logits (1, t, vocab) of the whole model with `delta` at the subject's last token."""

    def hook(_: Any, args: Any, out: Any) -> Any:
        moved = first(out).clone()
        moved.view(-1, moved.shape[-1])[rows.last[0]] += delta
        return (moved, *out[1:]) if isinstance(out, tuple) else moved

    handle = module.register_forward_hook(hook)
    logits: Tensor = model(input_ids=rows.ids, attention_mask=rows.mask).logits
    handle.remove()
    return logits


def first(out: Any) -> Tensor:
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


def memit(moment: Tensor, keys: Tensor, residual: Tensor, lam: float, earlier: Tensor) -> Tensor:
    """R Kᵀ (λ C + Kₚ Kₚᵀ + K Kᵀ)⁻¹ for keys (d_in, u), residuals (d_out, u)."""
    bracket = lam * moment + earlier @ earlier.T + keys @ keys.T
    return residual @ keys.T @ torch.linalg.inv(bracket)


def emmet(moment: Tensor, keys: Tensor, residual: Tensor, lam: float, mu: float) -> Tensor:
    """R (Kᵀ (λ C)⁻¹ K + μ I)⁻¹ Kᵀ (λ C)⁻¹."""
    inverse = torch.linalg.inv(lam * moment)
    middle = keys.T @ inverse @ keys + mu * torch.eye(keys.shape[1], dtype=keys.dtype)
    return residual @ torch.linalg.inv(middle) @ keys.T @ inverse


def alphaedit(
    moment: Tensor, keys: Tensor, residual: Tensor, threshold: float, l2: float, earlier: Tensor
) -> Tensor:
    """R Kᵀ P (Kₚ Kₚᵀ P + K Kᵀ P + L₂ I)⁻¹, the d_in × d_in form."""
    values, vectors = torch.linalg.eigh(moment)
    null = vectors[:, values < threshold]
    project = null @ null.T
    bracket = (earlier @ earlier.T + keys @ keys.T) @ project
    bracket = bracket + l2 * torch.eye(len(moment), dtype=moment.dtype)
    return residual @ keys.T @ project @ torch.linalg.inv(bracket)


def revive(base: Tensor, change: Tensor, energy: float, exponent: float) -> Tensor:
    """The change without every triplet α u_i v_jᵀ of which i or j is dominant, one by one."""
    left, sizes, right = torch.linalg.svd(base, full_matrices=True)
    shares = torch.cumsum(sizes**exponent, 0) / (sizes**exponent).sum()
    k = next(index for index, share in enumerate(shares.tolist()) if share >= energy) + 1
    inside = left.T @ change @ right.T
    inside[:k] = 0
    inside[:, :k] = 0
    return left @ inside @ right


def prune(base: Tensor, change: Tensor, a: float) -> Tensor:
    """The change with singular values above those of `base` on a logarithmic scale."""
    largest = torch.linalg.svdvals(base)[0]
    left, sizes, right = torch.linalg.svd(change, full_matrices=False)
    for index, size in enumerate(sizes.tolist()):
        if size > largest:
            log = torch.log(torch.tensor(a, dtype=base.dtype))
            sizes[index] = (torch.log(sizes[index]) - torch.log(largest)) / log + largest
    return left @ torch.diag(sizes) @ right


def rect(change: Tensor, weight: Tensor, keep: float) -> Tensor:
    """The `keep` entries of the change that are largest relative to the weight."""
    relative = change.abs() / (weight.abs() + 1e-8)
    count = round(keep * change.numel())
    chosen = relative.flatten().argsort(descending=True)[:count]
    kept = torch.zeros_like(change).flatten()
    kept[chosen] = change.flatten()[chosen]
    return kept.reshape(change.shape)
