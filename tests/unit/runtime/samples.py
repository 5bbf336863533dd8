"""What the tests of attached patches compare with: the same factors, written into the weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from patchkit.factors.action import Factor, dense
from patchkit.factors.additive import Additive
from patchkit.factors.rotation import Rotation
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.layout import Site, locate
from tests.unit.models.patches import random_patch

IDS = torch.arange(5, 29).reshape(2, 12)


def thin_patch(
    model: PreTrainedModel,
    seed: int = 0,
    *,
    found: Sequence[Site] | None = None,
    after: Sequence[str] = (),
) -> Patch:
    """A random patch of the kinds of factor that are of low rank."""
    whole = random_patch(model, seed, found=found)
    kept = {
        name: [factor for factor in factors if isinstance(factor, Rotation | Additive)]
        for name, factors in whole.factors.items()
    }
    return rebuilt(whole, kept, after)


def rebuilt(
    patch: Patch, factors: Mapping[str, Sequence[Factor]], after: Sequence[str] = ()
) -> Patch:
    """A patch for the base of `patch` with other factors."""
    drafts = {}
    for name, ordered in factors.items():
        meta = patch.metadata.tensors[name]
        drafts[name] = TensorDraft(meta.shape, meta.dtype, meta.layout, meta.base_sha256, ordered)
    return build_patch(BaseMeta(), drafts, None, {}, "random", {}, after)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


@contextmanager
def written(
    model: PreTrainedModel, patches: Sequence[Patch], strength: float = 1.0
) -> Iterator[None]:
    """The fp64 product in the weights, in the model's own type and rounded nowhere else."""
    before = {}
    for name, site in locate(model, patches[0].factors).items():
        weight = model.get_submodule(site.module).weight
        before[weight] = weight.data
        factors = [f.power(strength) for patch in patches for f in patch.factors.get(name, ())]
        weight.data = dense(weight.data, factors, site.layout).to(weight.dtype)
    try:
        yield
    finally:
        for weight, data in before.items():
            weight.data = data


def expected(model: PreTrainedModel, *patches: Patch, strength: float = 1.0) -> torch.Tensor:
    with written(model, patches, strength):
        return logits(model)


def close(found: torch.Tensor, wanted: torch.Tensor, within: float = 1e-5) -> bool:
    """Whether logits agree to a part of their spread."""
    return float((found - wanted).abs().max()) <= within * float(wanted.std())


def traces(model: PreTrainedModel) -> dict[str, Any]:
    """Everything that attaching could leave behind: objects by identity, and where data lies."""
    return {
        "modules": [
            (name, id(module), type(module), sorted(module.__dict__), _hooks(module))
            for name, module in model.named_modules()
        ],
        "tensors": [
            (name, id(tensor), tensor.data_ptr(), tensor._version)
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        ],
        "state": list(model.state_dict()),
    }


def _hooks(module: torch.nn.Module) -> tuple[int, int]:
    return len(module._forward_hooks), len(module._forward_pre_hooks)
