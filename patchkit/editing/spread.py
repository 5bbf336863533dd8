"""One value for each key, written into several layers in turn, as MEMIT does.

The value is optimised once, at the last layer. Each layer then takes its share of what is still
missing there (Meng et al., https://arxiv.org/abs/2210.07229, §4.3), so that later layers see what
earlier ones did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.place import Place
from patchkit.editing.rows import keys_in_contexts, mean_key
from patchkit.editing.state import SiteState, install
from patchkit.editing.targets import TargetOptions, groups_of, optimise

Step: TypeAlias = Callable[[SiteState, Tensor, Tensor], SiteState]
"""From a state, keys (g, d_in) and what their outputs lack (g, d_out) to the state after them."""

Commit: TypeAlias = Callable[[SiteState, Tensor], SiteState]
"""From a state and the keys (g, d_in) as they are after the batch to the state that goes on."""


def spread(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    batch: Batch,
    options: TargetOptions,
    step: Step,
    finished: Finished,
    commit: Commit = lambda state, keys: state,
) -> dict[int, SiteState]:
    """Write one batch into all of `states`, first layer first, and return the new ones.

    Facts that share a key share a value (g of them). The batch joins the states' history; the model
    holds the new weights on return. Raises SolveError as `optimise` and `Place.behind` do.
    """
    layers = sorted(states)
    new = dict(states)
    sites = [new[layer].site for layer in layers]
    groups = groups_of(batch, options)
    place = Place.behind(model, sites)
    wanted = optimise(batch, groups, place, options, finished)  # (g, d_out)
    heads = [group[0] for group in groups]
    bare = batch.contexts[0].only(heads)
    for index, layer in enumerate(layers):
        keys = mean_key(keys_in_contexts(model, [new[layer].site], batch.contexts)[layer])[heads]
        missing = (wanted - place.values(bare)) / (len(layers) - index)
        new[layer] = step(new[layer], keys, missing)
        install(model, {layer: new[layer]})
    written = keys_in_contexts(model, sites, batch.contexts)
    return {
        layer: commit(state.remember(written[layer]), mean_key(written[layer])[heads])
        for layer, state in new.items()
    }
