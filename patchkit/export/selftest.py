"""Does the adapter that was written make the model answer as the patch does?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.base import load_model
from patchkit.export.adapter import Storage
from patchkit.factors.action import dense
from patchkit.factors.lowrank import LowRank
from patchkit.patch.stack import Stacked
from patchkit.report import Check
from patchkit.runtime.carrier import Carrier
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import locate

LIMITS: Mapping[Storage, float] = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest difference of a logit, as a share of the largest change that the patch makes."""

_TOKENS = (4, 32)


def self_test(
    checkpoint: Checkpoint,
    joined: Mapping[str, Stacked],
    stored: Mapping[str, LowRank],
    storage: Storage,
) -> Check:
    """Compare fp32 logits of the base with the adapter beside it and with the patch in its weights.

    `stored` is what was read back from the file, by module. The tokens are random but fixed. An
    adapter that changes nothing fails.
    """
    model = load_model(checkpoint.path, dtype="float32")
    found = locate(model, joined)
    base = _logits(model)
    carriers = [Carrier(model.get_submodule(s.module), s, model.dtype) for s in found.values()]
    for carrier in carriers:
        carrier.install(stored[carrier.site.module])
    adapted = _logits(model)
    for carrier in carriers:
        carrier.remove()
    for name, site in found.items():
        # The fp64 product, rounded to fp32 and not to the type of the base.
        weight = model.get_parameter(f"{site.module}.weight")
        weight.data = dense(weight.data, joined[name].factors, site.layout).to(weight.dtype)
    patched = _logits(model)
    change = float((patched - base).abs().max())
    off = float((adapted - patched).abs().max())
    value = off / change if change else float("inf")
    limit = LIMITS[storage]
    detail = f"logits change by up to {change:.3g}, adapter and patch differ by up to {off:.3g}"
    return Check("self-test", value, limit, value <= limit, detail)


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    vocabulary = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, _TOKENS, generator=generator)
    found: Tensor = model(tokens).logits
    return found
