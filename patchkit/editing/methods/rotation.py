"""The default method: an input-side rotation, optimised inside what it can reach.

The generator `A = X Pᵀ − P Xᵀ` is the variable and the language-model loss runs through the
rotation, so no target is asked for that a rotation cannot write. `P` holds the reading directions
`H⁻¹K` of the edited keys; `X` may land anywhere in `H⁻¹Wᵀ`, the cheapest directions that the matrix
turns into each of its outputs, and with `strong` also in `Wᵀ`, the strongest. For every batch

    loss = Σ_facts max(NLL, floor) + λ E‖(W₀R_tot − W₀)k‖² / E‖W₀k‖²  + p Σ_earlier ‖drift‖² / ‖v‖²
           + ρ E KL(base ‖ edited)

with the first expectation over preserved keys (through C), the last sum over facts written before,
and the divergence over the next tokens of preserved text. With `recall` the first sum goes over
facts written before as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.asking import Asked
from patchkit.editing.batch import Batch
from patchkit.editing.capture import module_of
from patchkit.editing.confinement import Confinement, directions
from patchkit.editing.methods import Finished
from patchkit.editing.rotor import Rotor, Turn
from patchkit.editing.rows import keys_in_contexts, mean_key
from patchkit.editing.settings import above, at_least, at_most
from patchkit.editing.state import SiteState
from patchkit.editing.statistics import Statistics
from patchkit.errors import SolveError
from patchkit.factors.minimal import planes_needed
from patchkit.factors.rotation import Rotation
from patchkit.tensors.layout import Site, blocks

REWRITES = True
PROTECTIONS: Mapping[str, str | None] = {
    "nullspace": None,
    "spectrum": None,
    "history": "it protects earlier facts already, by its option history",
}
_WARM_UP = 5  # steps
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the default method; tuned on atlas's dev records (`docs/editing.md`).

    `steps` and `rate` are Adam's. `softness` ε is how much key energy, in mean eigenvalues of the
    preserved moment, a direction may carry before it counts as taken: larger means freer and less
    careful. `preserve` λ and `history` p are prices in nats, `rehearse` ρ of one nat per token by
    which predictions on preserved text diverge from the base's; `floor` is the loss below which a
    fact stops asking. `recall` is how many of the facts written before are asked at every step.
    `strong` offers landing directions of the highest gain as well, whatever they cost: for a model
    with values much longer than its keys. `alone` is the share of steps that ask the new facts with
    their subjects rotated alone, and not the words behind, which other wordings do not have.
    """

    steps: int = 50
    rate: float = 0.05
    softness: float = 0.3
    preserve: float = 10000.0
    history: float = 10.0
    floor: float = 0.1
    rehearse: float = 0.0
    strong: bool = False
    recall: int = 0
    alone: float = 0.0

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        at_least(self, 1, "steps")
        above(self, 0, "rate", "softness")
        at_least(self, 0, "preserve", "history", "floor", "rehearse", "recall", "alone")
        at_most(self, 1, "alone")


@dataclass(frozen=True, slots=True, eq=False)
class _Drift:
    """The price of one rotor: change of preserved outputs and of facts written before.

    The change is that of the whole product against the base, `D₀ + W(R − I)` with `D₀ = W − W₀`, so
    its square splits into a constant, a term linear in W(R − I) through `cross` = D₀CU (d_out, m)
    and one through `moment` = UᵀCU (m, m). Both are counted in the statistics' own metric.
    """

    statistics: Statistics
    cross: Tensor
    moment: Tensor
    scale: float
    earlier: Tensor  # (h c, m) Uᵀ of the history's keys, in every context
    error: Tensor  # (h c, d_out) by how far the history has drifted already
    earlier_scale: float

    @classmethod
    def of(cls, rotor: Rotor, state: SiteState) -> _Drift:
        statistics = state.statistics
        spread = statistics.moment @ rotor.basis  # (d_in, m)
        base = statistics.cost(state.base)
        base_energy = ((base @ statistics.moment) * base).sum()
        keys, values = state.keys.flatten(0, 1), state.values.flatten(0, 1)
        sizes = values.square().sum(1)
        return cls(
            statistics=statistics,
            cross=statistics.cost((state.weight - state.base) @ spread),
            moment=rotor.basis.T @ spread,
            scale=float(base_energy),
            earlier=keys @ rotor.basis,
            error=keys @ state.weight.T - values,
            earlier_scale=state.keys.shape[1] * float(sizes.mean()) if len(sizes) else 1.0,
        )

    def preserved(self, turn: Turn) -> Tensor:
        """Return the relative squared change of preserved outputs, up to a constant."""
        seen = turn.read.T @ self.moment @ turn.read  # (2r, 2r)
        write = self.statistics.cost(turn.write)  # (d_out, 2r)
        change = ((write @ seen) * write).sum()
        return (change + 2 * (write * (self.cross @ turn.read)).sum()) / self.scale

    def forgotten(self, turn: Turn) -> Tensor:
        """Return the relative squared drift of the facts written before, summed over them."""
        change = (self.earlier @ turn.read) @ turn.write.T  # (h c, d_out)
        return (self.error + change).square().sum() / self.earlier_scale


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write one batch of facts and return the new states.

    The model's weights are those of `states` and are not touched. Raises SolveError when the loss
    is not finite.
    """
    sites = [state.site for state in states.values()]
    keys = keys_in_contexts(model, sites, batch.contexts)
    rotors = {
        layer: _rotor(state, mean_key(keys[layer]), options) for layer, state in states.items()
    }
    _descend(model, states, rotors, batch, options, finished)
    if len(states) > 1:  # deeper matrices see what the first one now says
        with torch.no_grad(), _acting(model, states, _turns(rotors)):
            keys = keys_in_contexts(model, sites, batch.contexts)
    return {
        layer: states[layer].changed(_factor(rotor)).remember(keys[layer])
        for layer, rotor in rotors.items()
    }


def _turns(rotors: Mapping[int, Rotor]) -> dict[int, Turn]:
    return {layer: rotor.turn() for layer, rotor in rotors.items()}


@contextmanager
def _acting(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    turns: Mapping[int, Turn],
    only_first: bool = False,
) -> Iterator[None]:
    """Rotate the inputs of all matrices inside the block, of each row's first token only if so."""
    with ExitStack() as acting:
        for layer, turn in turns.items():
            rows = blocks(model)[layer] if only_first else None
            acting.enter_context(turn.acting(module_of(model, states[layer].site), rows))
        yield


def _descend(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    rotors: Mapping[int, Rotor],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> None:
    """Optimise what `rotors` land on; each process answers for its share of the facts.

    Tokens before a subject's last one are seen as they were at the start: the price on preserved
    outputs keeps them there.
    """
    workers = batch.workers
    new, earlier = _asked(model, states, batch, options)
    drifts = {layer: _Drift.of(rotor, states[layer]) for layer, rotor in rotors.items()}
    landing = [rotor.landing for rotor in rotors.values()]
    optimizer = torch.optim.Adam(landing)
    for step in range(options.steps):
        _set_rate(optimizer, options, step)
        turns = _turns(rotors)
        with _acting(model, states, turns, only_first=_alone(step, options.alone)):
            loss = new.loss(step, options.floor)
        with _acting(model, states, turns):
            if earlier is not None:
                loss = loss + earlier.loss(step, options.floor)
            if batch.rehearsal is not None:
                loss = loss + options.rehearse * batch.rehearsal.divergence(model, step, workers)
        for layer, turn in turns.items():
            loss = loss + options.preserve * drifts[layer].preserved(turn) / workers.count
            loss = loss + options.history * drifts[layer].forgotten(turn) / workers.count
        _check_finite(workers.sum(loss.detach().clone()), step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for variable in landing:
            if variable.grad is not None:
                workers.sum(variable.grad)
        optimizer.step()
        finished(step + 1, options.steps)


def _alone(step: int, share: float) -> bool:
    """Whether a step rotates subjects only; evenly spread, in time with no turn of contexts."""
    return step * _GOLDEN % 1 < share


def _asked(
    model: PreTrainedModel, states: Mapping[int, SiteState], batch: Batch, options: Options
) -> tuple[Asked, Asked | None]:
    """Return the facts of `batch`, all asked at every step, and earlier ones, asked in turns."""
    ask = partial(Asked.of, model, first=min(states), steps=options.steps, workers=batch.workers)
    whole = options.alone > 0 and max(states) == len(blocks(model)) - 1  # `_acting` needs rows
    new = ask(batch.contexts, most=batch.count, narrow=not whole)
    return new, ask(batch.earlier, most=options.recall) if batch.earlier else None


def stored(site: Site, facts: int, options: Options) -> int:
    """Return the numbers of one plane for each fact, until there are no more planes."""
    return min(facts, planes_needed(site.d_out, site.d_in, site.d_in)) * 2 * site.d_in


def _rotor(state: SiteState, keys: Tensor, options: Options) -> Rotor:
    """Offer reading directions for `keys` (n, d_in) and landing directions for every output."""
    confinement = Confinement.of(state, options.softness, options.history)
    reading = directions(state.guard.inputs(confinement.free(keys.T)))  # (d_in, r)
    outputs = state.weight.T  # (d_in, d_out)
    offered = [confinement.free(outputs), *([outputs] if options.strong else [])]
    landing = [
        torch.nn.functional.normalize(state.guard.inputs(columns), dim=0) for columns in offered
    ]
    basis, _ = torch.linalg.qr(torch.cat([reading, *landing], dim=1))  # (d_in, m)
    return Rotor(state.weight, basis, reading.shape[1])


def _check_finite(loss: Tensor, step: int) -> None:
    if not math.isfinite(loss.item()):
        raise SolveError(
            f"the loss is {loss.item()} at step {step + 1}",
            hint="compute in another precision with --dtype float32, or lower the recipe's rate",
        )


def _set_rate(optimizer: torch.optim.Optimizer, options: Options, step: int) -> None:
    """Warm up over a few steps, then follow a half cosine down to a tenth."""
    warm = min(1.0, (step + 1) / _WARM_UP)
    cosine = (1 + math.cos(math.pi * step / options.steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = options.rate * warm * (0.1 + 0.9 * cosine)


def _factor(rotor: Rotor) -> Rotation:
    x, y = rotor.generator()
    return Rotation("input", x, y)
