"""Preserved knowledge: the second moment of the keys that an edit should not disturb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.cache import Entry
from patchkit.editing.capture import capture
from patchkit.events import SILENT, Progress, phase
from patchkit.parallel import ALONE, Workers
from patchkit.tensors.layout import Site

_ROWS_AT_ONCE = 64
_LARGEST_IN_FP64 = 4096
_REST_AFTER = 4  # passes of the model, at least, before what is summed so far is put down
_DONE = "done"
_RESTS = 16  # at most, as each writes every sum to disk


@dataclass(frozen=True, slots=True)
class Statistics:
    """`moment` = E[k kᵀ] (d_in, d_in) of one matrix, in fp32, over `tokens` keys; not centred.

    `metric` (d_out, d_out) is the root of what a change of the values costs; None is the identity.
    """

    moment: Tensor
    tokens: int
    metric: Tensor | None = None

    def cost(self, change: Tensor) -> Tensor:
        """Return a change of the matrix (d_out, n) in coordinates where its square is its cost."""
        return change if self.metric is None else self.metric @ change

    @property
    def energy(self) -> float:
        """Mean eigenvalue of the moment, the natural unit of every threshold on it."""
        return float(self.moment.diagonal().mean())


def gather(
    model: PreTrainedModel,
    corpus: Tensor,
    sites: Sequence[Site],
    *,
    unfinished: Entry | None = None,
    workers: Workers = ALONE,
    progress: Progress = SILENT,
) -> dict[int, Statistics]:
    """Accumulate the second moment of every site in one pass over `corpus` (n, t).

    Each of `workers` runs its share of the rows. Sums are put down in `unfinished` on the way and
    taken up from there after an interruption, to the same bytes; who keeps the result drops it.
    """
    device = model.device
    sums = {
        site.layer: torch.zeros(site.d_in, site.d_in, dtype=_accumulator(site), device=device)
        for site in sites
    }
    mine = workers.share(torch.split(corpus, _ROWS_AT_ONCE))
    done = 0 if unfinished is None else _taken_up(unfinished, sums)
    stretch = max(_REST_AFTER, -(-len(mine) // _RESTS))
    with phase(progress, "measuring preserved keys", sum(map(len, mine)), "texts") as advance:
        advance(sum(map(len, mine[:done])))
        for number, rows in enumerate(mine[done:], done + 1):
            ids = rows.to(device)
            for layer, flow in capture(model, ids, torch.ones_like(ids), sites).items():
                keys = flow.keys.flatten(0, 1).float()  # (b t, d_in)
                sums[layer] += keys.T @ keys
            advance(len(rows))
            if unfinished is not None and number % stretch == 0 and number < len(mine):
                _put_down(unfinished, sums, number)
    count = corpus.numel()
    return {
        layer: Statistics((workers.sum(total) / count).float(), count)
        for layer, total in sums.items()
    }


def _put_down(unfinished: Entry, sums: Mapping[int, Tensor], done: int) -> None:
    unfinished.save(
        {**{str(layer): total for layer, total in sums.items()}, _DONE: torch.tensor(done)}
    )


def _taken_up(unfinished: Entry, sums: Mapping[int, Tensor]) -> int:
    """Fill `sums` with those of an interrupted pass and return how much of it was done."""
    found = unfinished.load()
    if found is None or set(found) != {_DONE, *map(str, sums)}:
        return 0
    for layer, total in sums.items():
        total.copy_(found[str(layer)])
    return int(found[_DONE])


def _accumulator(site: Site) -> torch.dtype:
    """Sum small matrices in fp64; a wide one would cost gigabytes for digits nobody reads."""
    return torch.float64 if site.d_in <= _LARGEST_IN_FP64 else torch.float32
