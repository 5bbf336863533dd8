"""ROME (Meng et al., https://arxiv.org/abs/2202.05262) and its two repairs, one fact at a time.

    Δ = (v − y) uᵀ / (kᵀ u),   u = C⁻¹ k_u

The released code takes k_u as the mean over contexts and k, y from the bare prompt. Then Δ k_u is
not v − y, which is what makes some of its edits destroy a model (Gupta et al.,
https://arxiv.org/abs/2403.07175): r-ROME takes means everywhere, p-ROME the bare prompt everywhere.
`docs/methods/rome.md` has shapes and deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.additive import guarded, stored
from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.metric import Metric
from patchkit.editing.place import Place
from patchkit.editing.rows import keys_in_contexts
from patchkit.editing.state import SiteState, install
from patchkit.editing.targets import TargetOptions, groups_of, optimise
from patchkit.errors import SolveError
from patchkit.factors.additive import Additive

__all__ = ["PROTECTIONS", "REWRITES", "Options", "rank_one", "solve", "stored"]

REWRITES = False
PROTECTIONS: Mapping[str, str | None] = {
    "nullspace": None,
    "spectrum": None,
    "history": "it writes one key at a time and weighs it against none; memit and emmet do",
}

Variant = Literal["rome", "r-rome", "p-rome"]


@dataclass(frozen=True, slots=True)
class Options(TargetOptions):
    """Values as in `TargetOptions`, with ROME's own defaults; `variant` and `moment`.

    `variant` says which keys are meant (above). `moment` False puts the identity in the place of
    C, as EasyEdit's configurations do.
    """

    steps: int = 20
    clamp: float = 4.0
    variant: Variant = "r-rome"
    moment: bool = True


def solve(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: Options,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write facts one by one, each on the weights that the ones before left.

    The model holds the new weights on return. Raises SolveError for several layers.
    """
    if len(states) != 1:
        raise SolveError(
            f"ROME edits one layer, and {len(states)} were asked for",
            hint="name one with --layers",
        )
    ((layer, state),) = states.items()
    if options.moment and state.solver is None:
        state = replace(state, solver=Metric.of(state.statistics.moment))
    groups = groups_of(batch, options)
    for index, group in enumerate(groups):
        state = _written(model, state, batch.only(group), options)
        install(model, {layer: state})
        finished(index + 1, len(groups))
    keys = keys_in_contexts(model, [state.site], batch.contexts)[layer]
    return {layer: state.remember(keys)}


def _written(model: PreTrainedModel, state: SiteState, batch: Batch, options: Options) -> SiteState:
    """Write the facts of one key."""
    place = Place(model, state.site, stream=False)
    group = [list(range(batch.count))]
    wanted = optimise(batch, group, place, options, lambda step, of: None)[0]  # (d_out,)
    keys = keys_in_contexts(model, [state.site], [rows.only([0]) for rows in batch.contexts])
    every = keys[state.site.layer][0].double()  # (c, d_in)
    mean, bare = every.mean(0), every[0]
    value = place.values(batch.contexts[0].only([0]))[0].double()
    read = bare if options.variant == "p-rome" else mean
    met = mean if options.variant == "r-rome" else bare
    # The output that belongs to another key than the bare prompt's: W k + b, b from the bare one.
    given = value + state.weight.double() @ (met - bare)
    factor = rank_one(state.solver, read, met, wanted.double() - given)
    return state.changed(guarded(factor, state))


def rank_one(metric: Metric | None, read: Tensor, met: Tensor, change: Tensor) -> Additive:
    """Return Δ with Δ `met` = `change` that reads along C⁻¹ `read`; both keys are (d_in,).

    Raises SolveError when the key that is met is orthogonal to what is read.
    """
    along = read if metric is None else metric.solve(read[:, None])[:, 0]
    along = along / along.norm()
    reach = float(met @ along)
    if abs(reach) < 1e-12 * float(met.norm()):
        raise SolveError("a key is orthogonal to the direction it is read along, as is every edit")
    return Additive((change / reach)[:, None], along[None, :])
