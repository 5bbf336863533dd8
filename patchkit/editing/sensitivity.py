"""How much the base's predictions hang on what a matrix gives, token by token.

Not every preserved key matters alike: at most tokens a matrix may give something else without any
prediction noticing. With g the gradient of a token row's loss by a value, the Fisher information of
the predictions in a change ΔW is E[(gᵀ ΔW k)²], here in the factors of K-FAC (Martens and Grosse,
https://arxiv.org/abs/1503.05671): keys weighed by ‖g‖², and values measured by E[g gᵀ]. On text
that the base wrote itself the next tokens are draws from its own predictions, as the Fisher
information asks for; on other text it is the empirical one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from patchkit.editing.capture import Flow, module_of
from patchkit.editing.corpus import rows_at_once
from patchkit.editing.statistics import Statistics
from patchkit.events import SILENT, Progress, phase
from patchkit.parallel import ALONE, Workers
from patchkit.tensors.layout import Site

_TOKENS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """Of one matrix, in fp32, each scaled to a mean eigenvalue of one.

    `keys` (d_in, d_in) is E[‖g‖² k kᵀ], `values` (d_out, d_out) is E[g gᵀ].
    """

    keys: Tensor
    values: Tensor

    def weigh(self, statistics: Statistics, share: float) -> Statistics:
        """Return `statistics` with `share` of their energy, and of what a change costs, from here.

        The rest counts all tokens, and all directions of a value, alike.
        """
        moment = (1 - share) * statistics.moment + share * statistics.energy * self.keys
        metric = share * self.values.double()
        metric.diagonal().add_(1 - share)
        sizes, vectors = torch.linalg.eigh(metric)
        root = (vectors * sizes.clamp_min(0).sqrt()) @ vectors.T  # (d_out, d_out)
        return Statistics(moment, statistics.tokens, root.float())


def gather_sensitivity(
    model: PreTrainedModel,
    corpus: Tensor,
    sites: Sequence[Site],
    *,
    workers: Workers = ALONE,
    progress: Progress = SILENT,
) -> dict[int, Sensitivity]:
    """Run `corpus` (n, t) forwards and backwards once and add up both moments of every site.

    Each of `workers` runs its share of the rows. The model's weights take no gradients.
    """
    device = model.device
    keys = {site.layer: torch.zeros(site.d_in, site.d_in, device=device) for site in sites}
    values = {site.layer: torch.zeros(site.d_out, site.d_out, device=device) for site in sites}
    at_once = rows_at_once(corpus, _TOKENS_AT_ONCE)
    with phase(progress, "measuring sensitivity", len(corpus), "texts") as advance:
        for rows in workers.share(torch.split(corpus, at_once)):
            for layer, flow in _slopes(model, rows.to(device), sites).items():
                weights = flow.values.square().sum(1, keepdim=True)  # (b t, 1)
                keys[layer] += (flow.keys * weights).T @ flow.keys
                values[layer] += flow.values.T @ flow.values
            advance(len(rows))
    return {
        layer: Sensitivity(_scaled(workers.sum(keys[layer])), _scaled(workers.sum(values[layer])))
        for layer in keys
    }


def _scaled(total: Tensor) -> Tensor:
    return total / total.diagonal().mean().clamp_min(torch.finfo(total.dtype).tiny)


def _slopes(model: PreTrainedModel, ids: Tensor, sites: Sequence[Site]) -> dict[int, Flow]:
    """Return keys (b t, d_in) and the loss's gradients by values (b t, d_out), in fp32."""
    with torch.enable_grad(), _tapped(model, sites) as taps:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss, [taps[site.layer].values for site in sites])
    return {
        site.layer: Flow(
            taps[site.layer].keys.flatten(0, -2).float(), gradient.flatten(0, -2).float()
        )
        for site, gradient in zip(sites, gradients, strict=True)
    }


@contextmanager
def _tapped(model: PreTrainedModel, sites: Sequence[Site]) -> Iterator[Mapping[int, Flow]]:
    """Keep what enters every site, and a zero added to what leaves it, to derive by."""
    taps: dict[int, Flow] = {}

    def tap(layer: int, args: tuple[Any, ...], out: Tensor) -> Tensor:
        nothing = torch.zeros_like(out, requires_grad=True)
        taps[layer] = Flow(args[0].detach(), nothing)
        return out + nothing

    handles = [
        module_of(model, site).register_forward_hook(
            lambda _, args, out, layer=site.layer: tap(layer, args, out)
        )
        for site in sites
    ]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()
