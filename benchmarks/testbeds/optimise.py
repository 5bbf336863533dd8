"""How a test bed is optimised: the optimizers, one schedule, one loss."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from benchmarks.testbeds.batches import Rows
from benchmarks.testbeds.muon import Muon
from benchmarks.testbeds.readout import Readout
from benchmarks.testbeds.shield import shielded

WARM_UP: Final = 0.02
DECAY_FROM: Final = 0.35
SMOOTHING: Final = 0.08
READOUT_WEIGHT: Final = 0.5
WEIGHT_DECAY: Final = 0.05
BETAS: Final = (0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Draws:
    """The sources of chance in a step."""

    shields: torch.Generator
    pairs: random.Random


def make_optimizers(
    model: LlamaForCausalLM, readout: Readout, muon_lr: float, adam_lr: float
) -> dict[torch.optim.Optimizer, float]:
    """Return each optimizer with its peak learning rate.

    Muon takes the matrices inside the layers: it spreads what is learnt over all directions of a
    matrix, which serves rarely seen associations. AdamW takes the rest.
    """
    inner = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in inner}
    rest = [p for p in model.parameters() if id(p) not in known]
    groups = [
        {"params": rest, "weight_decay": WEIGHT_DECAY},
        {"params": list(readout.parameters()), "weight_decay": 0.0},
    ]
    muon = Muon(inner, muon_lr, weight_decay=WEIGHT_DECAY)
    return {muon: muon_lr, torch.optim.AdamW(groups, adam_lr, BETAS, fused=True): adam_lr}


def schedule(done: float) -> float:
    """Return the factor of the learning rate when this share of the training is done."""
    if done < WARM_UP:
        return done / WARM_UP
    if done < DECAY_FROM:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - DECAY_FROM) / (1 - DECAY_FROM)))) + 1e-3


def _label_loss(logits: torch.Tensor, wanted: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    """Return the mean loss; objects are smoothed, so that no fact becomes certain."""
    log_p = functional.log_softmax(logits.float(), -1)
    nll = -log_p.gather(1, wanted.long()[:, None])[:, 0]
    smooth = torch.where(objects, SMOOTHING, 0.0)
    return ((1 - smooth) * nll - smooth * log_p.mean(-1)).mean()


@contextmanager
def only_at(mlp: torch.nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Run the last MLP at the places that are asked; behind it nothing reads the other ones."""
    whole = mlp.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = whole(x[places])
        return torch.zeros_like(x, dtype=found.dtype).index_put((places,), found)

    mlp.forward = forward
    try:
        yield
    finally:
        mlp.forward = whole


def loss_of(model: LlamaForCausalLM, readout: Readout, rows: Rows, draws: Draws) -> torch.Tensor:
    """Return the loss over the labels plus the weighted loss of the readout."""
    first_layer: list[torch.Tensor] = []
    handle = model.model.layers[0].register_forward_hook(
        lambda module, args, output: first_layer.append(output)
    )
    device = rows.ids.device.type
    asked = rows.labels[:, 1:] >= 0
    with (
        # Processors without instructions for bfloat16 emulate it, and are far slower in it.
        torch.autocast(device, torch.bfloat16, enabled=device == "cuda"),
        shielded(model, rows.names, draws.shields),
        only_at(model.model.layers[-1].mlp, functional.pad(asked, (0, 1))),
    ):
        hidden = model.model(input_ids=rows.ids, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[asked])
    handle.remove()
    labels = _label_loss(logits, rows.labels[:, 1:][asked], rows.objects[:, 1:][asked])
    read = readout.loss(model, first_layer[0], rows.subjects, draws.pairs)
    return labels + READOUT_WEIGHT * read
