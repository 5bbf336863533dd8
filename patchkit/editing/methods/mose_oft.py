"""MOSE as its released code has it: orthogonal fine-tuning of the matrix's input.

    B = blockdiag((I − Sᵢ)(I + Sᵢ)⁻¹),   Sᵢ = (Gᵢ − Gᵢᵀ) / 2,   W′ = W₀ Bᵀ

with G (b, n, n) trained by Adam on the language-model loss of one fact at a time, and kept from
fact to fact. The rotation acts on activations, y = W₀ (Bᵀx), through a solve with I − S; no
block-diagonal matrix is built and W₀ is not touched. At the end of a batch B becomes the
generator of a rotation in blocks, through the logarithm. `docs/methods/mose.md` has the deviations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from patchkit.editing.batch import Batch
from patchkit.editing.capture import module_of
from patchkit.editing.methods import Finished
from patchkit.editing.replay import capture_replay
from patchkit.editing.rows import keys_in_contexts
from patchkit.editing.settings import above, at_least
from patchkit.editing.state import SiteState, install
from patchkit.errors import SolveError
from patchkit.factors.blocks import blocks_from_matrices
from patchkit.tensors.layout import Site

REWRITES = False
_FIXED = "its blocks are made of coordinates, which align with no other subspace"
PROTECTIONS: Mapping[str, str | None] = {
    "nullspace": _FIXED,
    "spectrum": _FIXED,
    "history": "its loss is that of one batch; mose and rotation protect earlier facts",
}
_UNIT = 256  # length of a block for which `rate` is meant


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the released code, with its defaults where they carry over to other models.

    `blocks` b divides d_in. A fact (or `at_once` of them) gets `steps` steps of a fresh Adam, whose
    `rate` counts for blocks of 256 and falls as 1/n, because a step of Adam turns by an angle that
    grows with n; `published_scales` takes it as it stands. `stop` ends a fact below that loss.
    `coft` keeps each ‖Gᵢ‖_F below coft · n² / √b; 0 is no limit.
    """

    blocks: int = 4
    steps: int = 25
    rate: float = 1e-4
    at_once: int = 1
    stop: float = 0.05
    coft: float = 0.0
    published_scales: bool = False

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        at_least(self, 1, "blocks", "steps", "at_once")
        above(self, 0, "rate")
        at_least(self, 0, "stop", "coft")


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write one batch of facts into all of `states` together.

    The model holds the weights without this edit on return. Raises SolveError for blocks that do
    not divide d_in, and when a loss is not finite.
    """
    plain = {layer: state.with_factors(()) for layer, state in states.items()}
    install(model, plain)
    generators = {layer: start(state, options) for layer, state in states.items()}
    chunks = [
        list(range(first, min(first + options.at_once, batch.count)))
        for first in range(0, batch.count, options.at_once)
    ]
    for index, chunk in enumerate(chunks):
        _train(model, plain, generators, batch.only(chunk), options)
        finished(index + 1, len(chunks))
    new = {layer: exported(states[layer], g.detach()) for layer, g in generators.items()}
    install(model, new)
    keys = keys_in_contexts(model, [state.site for state in new.values()], batch.contexts)
    return {layer: state.remember(keys[layer]) for layer, state in new.items()}


def stored(site: Site, facts: int, options: Options) -> int:
    """Return the numbers of the triangles of all blocks."""
    return site.d_in * (site.d_in // options.blocks - 1) // 2


def start(state: SiteState, options: Options) -> Tensor:
    """Return G (b, n, n) as the batches before left it, zero at first."""
    kept: Tensor | None = state.solver
    size, blocks = state.site.d_in, options.blocks
    if size % blocks or size < 2 * blocks:
        raise SolveError(
            f"{blocks} blocks do not divide the {size} inputs of {state.site.tensor}",
            hint=f"set blocks to a divisor of {size}",
        )
    n = size // blocks
    value = state.base.new_zeros(blocks, n, n) if kept is None else kept.clone()
    return value.requires_grad_()


def cayley(g: Tensor) -> Tensor:
    """Return the rotations (I − S)(I + S)⁻¹ (b, n, n) of S = (G − Gᵀ)/2."""
    skew = (g - g.mT) / 2
    eye = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    rotations: Tensor = torch.linalg.solve(eye + skew, eye - skew)  # the two factors commute
    return rotations


def turned(x: Tensor, g: Tensor) -> Tensor:
    """Return Bᵀx (rows, b n) for rows of inputs x, with G (b, n, n).

    Bᵀ = (I − S)⁻¹(I + S) = 2 (I − S)⁻¹ − I needs no B: a factorisation and a solve for each row,
    where B takes n solves and as many again for its gradient.
    """
    blocks, n, _ = g.shape
    eye = torch.eye(n, dtype=g.dtype, device=g.device)
    columns = x.reshape(-1, blocks, n).permute(1, 2, 0)  # (b, n, rows)
    solved: Tensor = torch.linalg.solve(eye - (g - g.mT) / 2, columns)
    return (2 * solved - columns).permute(2, 0, 1).reshape(x.shape)


@contextmanager
def acting(module: nn.Module, g: Tensor) -> Iterator[None]:
    """Rotate the inputs x of `module` to Bᵀx inside the block; G is (b, n, n)."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        rows = x.reshape(-1, x.shape[-1]).to(g.dtype)
        return (turned(rows, g).reshape(x.shape).to(x.dtype), *args[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _train(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    generators: Mapping[int, Tensor],
    batch: Batch,
    options: Options,
) -> None:
    """Change `generators` until they answer the facts of `batch`, or for all steps."""
    rows = batch.contexts[0]
    replay = capture_replay(model, rows.ids, rows.mask, min(states))
    optimizer = adam(list(generators.values()), options)
    for step in range(options.steps):
        with ExitStack() as stack:
            for layer, g in generators.items():
                stack.enter_context(acting(module_of(model, states[layer].site), g))
            logits = replay.logits(rows.label_row, rows.label_position).float()
        loss = rows.per_fact(cross_entropy(logits, rows.label_id, reduction="none")).mean()
        if not math.isfinite(loss.item()):
            raise SolveError(
                f"the loss is {loss.item()} at step {step + 1}",
                hint="compute in another precision with --dtype float32, or lower the rate",
            )
        if loss.item() < options.stop:
            break
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        for g in generators.values():
            _confine(g, options)


def adam(generators: Sequence[Tensor], options: Options) -> torch.optim.Adam:
    """Return a fresh optimiser, with the rate for each generator's length of blocks."""
    scales = [1.0 if options.published_scales else _UNIT / g.shape[-1] for g in generators]
    groups = [
        {"params": [g], "lr": options.rate * scale}
        for g, scale in zip(generators, scales, strict=True)
    ]
    return torch.optim.Adam(groups)


@torch.no_grad()
def _confine(g: Tensor, options: Options) -> None:
    """Shrink blocks of G to the published limit on their norms."""
    if options.coft:
        blocks, n, _ = g.shape
        limit = options.coft * n**2 / math.sqrt(blocks)
        norms = torch.linalg.matrix_norm(g, keepdim=True)
        g.mul_((limit / norms.clamp_min(limit)).clamp_max(1.0))


def exported(state: SiteState, g: Tensor) -> SiteState:
    """Return the state with W₀ blockdiag(B)ᵀ as its one factor, and G for the next batch."""
    factor = blocks_from_matrices(cayley(g.double()).mT, "input", dtype=torch.float64)
    return replace(state.with_factors((factor,)), solver=g)
