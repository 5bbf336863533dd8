"""The default method: an input-side rotation, optimised inside what it can reach.

The generator `A = X Pᵀ − P Xᵀ` is the variable and the language-model loss runs through the
rotation, so no target is asked for that a rotation cannot write. `P` holds the reading directions
`H⁻¹K` of the edited keys; `X` may land anywhere in `H⁻¹Wᵀ`, the cheapest directions that the
matrix turns into each of its outputs. For every batch

    loss = Σ_facts max(NLL, floor) + λ E‖(W₀R_tot − W₀)k‖² / E‖W₀k‖²  + p Σ_earlier ‖drift‖² / ‖v‖²

with the expectation over preserved keys (through C) and the last sum over facts written before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.capture import module_of
from patchkit.editing.confinement import Confinement, directions
from patchkit.editing.recipe import Recipe
from patchkit.editing.replay import Replay, capture_replay
from patchkit.editing.rotor import Rotor, Turn
from patchkit.editing.rows import Rows, keys_in_contexts
from patchkit.editing.state import SiteState
from patchkit.errors import SolveError
from patchkit.factors.rotation import Rotation

_WARM_UP = 5  # steps


@dataclass(frozen=True, slots=True, eq=False)
class _Drift:
    """The price of one rotor: change of preserved outputs and of facts written before.

    The change is that of the whole product against the base, `D₀ + W(R − I)` with `D₀ = W − W₀`, so
    its square splits into a constant, a term linear in W(R − I) through `cross` = D₀CU (d_out, m)
    and one through `moment` = UᵀCU (m, m).
    """

    cross: Tensor
    moment: Tensor
    scale: float
    earlier: Tensor  # (h c, m) Uᵀ of the history's keys, in every context
    error: Tensor  # (h c, d_out) by how far the history has drifted already
    earlier_scale: float

    @classmethod
    def of(cls, rotor: Rotor, state: SiteState) -> _Drift:
        moment = state.statistics.moment
        spread = moment @ rotor.basis  # (d_in, m)
        base_energy = ((state.base @ moment) * state.base).sum()
        keys, values = state.keys.flatten(0, 1), state.values.flatten(0, 1)
        sizes = values.square().sum(1)
        return cls(
            cross=(state.weight - state.base) @ spread,
            moment=rotor.basis.T @ spread,
            scale=float(base_energy),
            earlier=keys @ rotor.basis,
            error=keys @ state.weight.T - values,
            earlier_scale=state.keys.shape[1] * float(sizes.mean()) if len(sizes) else 1.0,
        )

    def preserved(self, turn: Turn) -> Tensor:
        """Return the relative squared change of preserved outputs, up to a constant."""
        seen = turn.read.T @ self.moment @ turn.read  # (2r, 2r)
        change = ((turn.write @ seen) * turn.write).sum()
        return (change + 2 * (turn.write * (self.cross @ turn.read)).sum()) / self.scale

    def forgotten(self, turn: Turn) -> Tensor:
        """Return the relative squared drift of the facts written before, summed over them."""
        change = (self.earlier @ turn.read) @ turn.write.T  # (h c, d_out)
        return (self.error + change).square().sum() / self.earlier_scale


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    contexts: Sequence[Rows],
    recipe: Recipe,
    finished: Callable[[int], None],
) -> dict[int, SiteState]:
    """Write one batch of facts, given as rows in several contexts, and return the new states.

    The model's weights are those of `states` and are not touched. `finished` is called with the
    number of every finished step, from 0. Raises SolveError when the loss is not finite.
    """
    keys = keys_in_contexts(model, [state.site for state in states.values()], contexts)
    rotors = {layer: _rotor(state, _mean(keys[layer]), recipe) for layer, state in states.items()}
    drifts = [_Drift.of(rotor, states[layer]) for layer, rotor in rotors.items()]
    replays = [capture_replay(model, r.ids, r.mask, min(states)) for r in contexts]
    optimizer = torch.optim.Adam([rotor.landing for rotor in rotors.values()])
    for step in range(recipe.steps):
        _set_rate(optimizer, recipe, step)
        with ExitStack() as acting:
            turns = [
                acting.enter_context(rotor.acting(module_of(model, states[layer].site)))
                for layer, rotor in rotors.items()
            ]
            loss = _wanted(replays, contexts, step, recipe.floor)
        for drift, turn in zip(drifts, turns, strict=True):
            loss = loss + recipe.preserve * drift.preserved(turn)
            loss = loss + recipe.history * drift.forgotten(turn)
        _check_finite(loss, step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        finished(step)
    return {
        layer: states[layer].turned(_factor(rotor)).remember(keys[layer])
        for layer, rotor in rotors.items()
    }


def _mean(keys: Tensor) -> Tensor:
    """Return one key (n, d_in) for each fact: half the bare prompt, half the other contexts."""
    bare = keys[:, 0]
    return bare if keys.shape[1] == 1 else (bare + keys[:, 1:].mean(1)) / 2


def _rotor(state: SiteState, keys: Tensor, recipe: Recipe) -> Rotor:
    """Offer reading directions for `keys` (n, d_in) and landing directions for every output."""
    confinement = Confinement.of(state, recipe.softness, recipe.history)
    reading = directions(confinement.free(keys.T))  # (d_in, r)
    landing = confinement.free(state.weight.T)  # (d_in, d_out)
    landing = torch.nn.functional.normalize(landing, dim=0)
    basis, _ = torch.linalg.qr(torch.cat([reading, landing], dim=1))  # (d_in, m)
    return Rotor(state.weight, basis, basis.T @ reading)


def _wanted(replays: Sequence[Replay], contexts: Sequence[Rows], step: int, floor: float) -> Tensor:
    """Return the facts' summed loss in the bare prompt and in one context, taking turns."""
    chosen = [0] if len(contexts) == 1 else [0, 1 + step % (len(contexts) - 1)]
    total = torch.zeros((), device=contexts[0].ids.device)
    for index in chosen:
        rows = contexts[index]
        logits = replays[index].logits(rows.label_row, rows.label_position).float()
        losses = torch.nn.functional.cross_entropy(logits, rows.label_id, reduction="none")
        total = total + rows.per_fact(losses).clamp_min(floor).sum() / len(chosen)
    return total


def _check_finite(loss: Tensor, step: int) -> None:
    if not math.isfinite(loss.item()):
        raise SolveError(
            f"the loss is {loss.item()} at step {step + 1}",
            hint="compute in another precision with --dtype float32, or lower the recipe's rate",
        )


def _set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Warm up over a few steps, then follow a half cosine down to a tenth."""
    warm = min(1.0, (step + 1) / _WARM_UP)
    cosine = (1 + math.cos(math.pi * step / recipe.steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate * warm * (0.1 + 0.9 * cosine)


def _factor(rotor: Rotor) -> Rotation:
    basis = rotor.basis.double()
    x, y = basis @ rotor.landing.detach().double(), basis @ rotor.reading.double()
    return Rotation("input", x, y)
