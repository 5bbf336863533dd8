"""From the states after the last batch to a patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from patchkit.editing.recipe import Recipe
from patchkit.editing.state import SiteState
from patchkit.factors.kinds import Factor
from patchkit.facts.fact import Fact
from patchkit.facts.jsonl import to_jsonl
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.order import leaf_digests
from patchkit.patch.parts import tensor_bytes
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.torch_dtypes import dtype_name


def assemble(
    model: PreTrainedModel,
    states: Mapping[int, SiteState],
    factors: Mapping[int, Sequence[Factor]],
    facts: Sequence[Fact],
    recipe: Recipe,
    *,
    checkpoint: Checkpoint | None,
    previous: Sequence[Patch],
    measured: Mapping[str, object],
    embed_facts: bool,
) -> Patch:
    """Build the patch; digests are `checkpoint`'s, or of the weights the states began with."""
    drafts = {
        states[layer].site.tensor: _draft(model, states[layer], ordered, checkpoint)
        for layer, ordered in factors.items()
    }
    return build_patch(
        base=_base(checkpoint),
        tensors=drafts,
        facts_jsonl=to_jsonl(facts),
        recipe=recipe.as_dict(),
        method=recipe.method,
        measured=measured,
        after=_predecessors(previous),
        embed_facts=embed_facts,
        storage=recipe.storage,
    )


def _predecessors(previous: Sequence[Patch]) -> list[str]:
    """Return the leaf digests that `previous` consist of, in order."""
    return [leaf for patch in previous for leaf in leaf_digests(patch.digest, patch.metadata)]


def _base(checkpoint: Checkpoint | None) -> BaseMeta:
    if checkpoint is None:
        return BaseMeta()
    return BaseMeta(checkpoint.repo, checkpoint.revision, checkpoint.config_digest)


def _draft(
    model: PreTrainedModel,
    state: SiteState,
    factors: Sequence[Factor],
    checkpoint: Checkpoint | None,
) -> TensorDraft:
    site = state.site
    if checkpoint is not None:
        dtype = checkpoint.tensor(site.tensor).info.dtype
        digest = checkpoint.digest(site.tensor)
    else:
        dtype = dtype_name(model.dtype)
        stored = state.base.T if site.layout == "conv1d" else state.base
        digest = bytes_digest(tensor_bytes(stored.to(model.dtype).contiguous()))
    return TensorDraft(site.shape, dtype, site.layout, digest, factors)
