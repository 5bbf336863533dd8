"""Read keys and values of the editable matrices while the model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from patchkit.tensors.layout import Site


class Stop(Exception):
    """Raised by a hook to leave a forward pass whose rest nobody needs."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What entered and left one matrix: `keys` (b, t, d_in), `values` (b, t, d_out)."""

    keys: Tensor
    values: Tensor

    def at(self, positions: Tensor) -> Flow:
        """Keep one position of each row: (b, d_in) and (b, d_out) at `positions` (b,)."""
        rows = torch.arange(len(positions), device=self.keys.device)
        return Flow(self.keys[rows, positions], self.values[rows, positions])


@torch.no_grad()
def capture(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, sites: Sequence[Site]
) -> Mapping[int, Flow]:
    """Run `ids` and `mask` (b, t) up to the deepest of `sites` and return its flow by layer."""
    flows: dict[int, Flow] = {}
    deepest = max(site.layer for site in sites)

    def hook(layer: int, args: tuple[Any, ...], out: Tensor) -> None:
        # OPT runs its MLP on rows and positions flattened into one axis.
        keys, values = (
            part.detach().unflatten(0, (len(ids), -1)) if part.ndim == 2 else part.detach()
            for part in (args[0], out)
        )
        flows[layer] = Flow(keys, values)
        if layer == deepest:
            raise Stop

    handles = [
        module_of(model, site).register_forward_hook(
            lambda _, args, out, layer=site.layer: hook(layer, args, out)
        )
        for site in sites
    ]
    try:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    except Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return flows


def module_of(model: PreTrainedModel, site: Site) -> nn.Module:
    """Return the module that holds the matrix of `site`."""
    return model.get_submodule(site.module)


def weight_of(model: PreTrainedModel, site: Site) -> Tensor:
    """Return the matrix of `site` as (d_out, d_in), a view, whatever its storage layout."""
    weight: Tensor = module_of(model, site).get_parameter("weight").detach()
    return weight.T if site.layout == "conv1d" else weight
