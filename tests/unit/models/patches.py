"""Random patches for tiny models: no facts, but every kind of factor."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from patchkit.factors.action import Factor
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.rotation import Rotation
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.parts import tensor_bytes
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.layout import Site, sites
from patchkit.tensors.torch_dtypes import dtype_name


def random_patch(
    model: PreTrainedModel,
    seed: int = 0,
    *,
    found: Sequence[Site] | None = None,
    after: Sequence[str] = (),
    scale: float = 0.3,
) -> Patch:
    """A patch of all sites: both sides rotated, and the other kinds of factor on the last one."""
    generator = torch.Generator().manual_seed(seed)
    found = sites(model) if found is None else found
    drafts = {site.tensor: _draft(model, site, generator, scale) for site in found}
    return build_patch(BaseMeta(), drafts, None, {}, "random", {}, after)


def _draft(
    model: PreTrainedModel, site: Site, generator: torch.Generator, scale: float
) -> TensorDraft:
    weight = model.get_submodule(site.module).weight

    def normal(*shape: int) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=generator)

    factors: list[Factor] = [
        Rotation("input", normal(site.d_in, 2), normal(site.d_in, 2)),
        Rotation("output", normal(site.d_out, 1), normal(site.d_out, 1)),
    ]
    if site.layer == 2:
        factors.append(Additive(normal(site.d_out, 1), normal(1, site.d_in)))
        n = site.d_in // 2
        factors.append(RotationBlocks("input", normal(2, n * (n - 1) // 2) / n))
        factors.append(AdditiveDense(normal(site.d_out, site.d_in) / 10))
    digest = bytes_digest(tensor_bytes(weight))
    return TensorDraft(site.shape, dtype_name(weight.dtype), site.layout, digest, factors)
