"""Preserved knowledge: the second moment of the keys that an edit should not disturb."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.capture import capture
from patchkit.events import SILENT, Progress, phase
from patchkit.parallel import ALONE, Workers
from patchkit.tensors.layout import Site

_ROWS_AT_ONCE = 64
_LARGEST_IN_FP64 = 4096


@dataclass(frozen=True, slots=True)
class Statistics:
    """`moment` = E[k kᵀ] (d_in, d_in) of one matrix, in fp32, over `tokens` keys; not centred."""

    moment: Tensor
    tokens: int

    @property
    def energy(self) -> float:
        """Mean eigenvalue of the moment, the natural unit of every threshold on it."""
        return float(self.moment.diagonal().mean())


def gather(
    model: PreTrainedModel,
    corpus: Tensor,
    sites: Sequence[Site],
    *,
    workers: Workers = ALONE,
    progress: Progress = SILENT,
) -> dict[int, Statistics]:
    """Accumulate the second moment of every site in one pass over `corpus` (n, t).

    Each of `workers` runs its share of the rows.
    """
    device = model.device
    sums = {
        site.layer: torch.zeros(site.d_in, site.d_in, dtype=_accumulator(site), device=device)
        for site in sites
    }
    mine = workers.share(torch.split(corpus, _ROWS_AT_ONCE))
    with phase(progress, "measuring preserved keys", sum(map(len, mine)), "texts") as advance:
        for rows in mine:
            ids = rows.to(device)
            for layer, flow in capture(model, ids, torch.ones_like(ids), sites).items():
                keys = flow.keys.flatten(0, 1).float()  # (b t, d_in)
                sums[layer] += keys.T @ keys
            advance(len(rows))
    count = corpus.numel()
    return {
        layer: Statistics((workers.sum(total) / count).float(), count)
        for layer, total in sums.items()
    }


def _accumulator(site: Site) -> torch.dtype:
    """Sum small matrices in fp64; a wide one would cost gigabytes for digits nobody reads."""
    return torch.float64 if site.d_in <= _LARGEST_IN_FP64 else torch.float32


def cache_key(parts: Mapping[str, object]) -> str:
    """Return the file stem under which tensors made from `parts` are kept."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def load_cached(cache_dir: Path | None, key: str) -> dict[str, Tensor] | None:
    """Read the tensors kept under `key`, None when there is no cache or nothing readable in it."""
    path = None if cache_dir is None else cache_dir / f"{key}.safetensors"
    if path is None or not path.is_file():
        return None
    try:
        return load_file(path)
    except Exception:  # a damaged cache entry is worth recomputing, whatever the reader calls it
        return None


def save_cached(cache_dir: Path | None, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep `tensors` under `key`, completely or not at all."""
    if cache_dir is None:
        return
    cache_dir.mkdir(parents=True, exist_ok=True)
    part = cache_dir / f"{key}.{os.getpid()}.part"
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, part)
        os.replace(part, cache_dir / f"{key}.safetensors")
    finally:
        part.unlink(missing_ok=True)
