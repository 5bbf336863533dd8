"""Optimised values: what a matrix should give at the subject's last token.

The loop of ROME (Meng et al., https://arxiv.org/abs/2202.05262, §3.1) and MEMIT
(https://arxiv.org/abs/2210.07229, §4.2) for many facts at once. For each fact, with v its own
value, δ the shift and P the next-token distribution at the subject's last token of "SUBJECT is a",

    loss = mean over contexts of NLL(target) / tokens + kl · KL(P_δ ‖ P_0) + decay · ‖δ‖ / ‖v‖²

Facts do not touch each other: losses are summed, Adam is elementwise, and a fact that is below
`stop` stands still and leaves the computation. What comes before the place of the edit runs once
for the facts that are in it, the vocabulary only where a label is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from patchkit.editing.batch import Batch
from patchkit.editing.methods import Finished
from patchkit.editing.place import Place
from patchkit.editing.replay import Replay
from patchkit.editing.rows import alike
from patchkit.editing.settings import above, at_least
from patchkit.errors import SolveError
from patchkit.tensors.layout import blocks

_AT_ONCE = 1 << 30  # numbers that one context's graph keeps: 4 GB in float32
_LEAVING = 0.25  # share of the facts that must be done before the others are run without them
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """How values are optimised.

    `steps` counts as published: the last one only looks at the loss. `rate` is Adam's, in units of
    ‖v‖/√d, so that it means the same in every model; `published_scales` takes it as it stands.
    `decay`, `kl` and `stop` are as published, and ‖δ‖ is kept within `clamp` · ‖v‖. `joint` gives
    facts that share a key one value, optimised for all of them (MEMIT-Merge,
    https://arxiv.org/abs/2502.07322); without it each asks for its own.
    """

    steps: int = 25
    rate: float = 0.1
    decay: float = 0.5
    clamp: float = 0.75
    kl: float = 0.0625
    stop: float = 0.05
    joint: bool = True
    published_scales: bool = False

    def __post_init__(self) -> None:
        """RecipeError on a value that no edit could use."""
        at_least(self, 1, "steps")
        above(self, 0, "rate", "clamp")
        at_least(self, 0, "decay", "kl", "stop")


def groups_of(batch: Batch, options: TargetOptions) -> list[list[int]]:
    """Return the facts that get one value together, each group by the indices of its facts."""
    return batch.groups() if options.joint else [[index] for index in range(batch.count)]


def optimise(
    batch: Batch,
    groups: Sequence[Sequence[int]],
    place: Place,
    options: TargetOptions,
    finished: Finished,
) -> Tensor:
    """Return the value (g, d), in fp32 or wider, that makes the targets of each group likely.

    Each process of the batch takes its share of the groups. The weights of the model are not
    touched. Raises SolveError when a loss is not finite, in every process.
    """
    workers = batch.workers
    if workers.count == 1:
        return _optimised(batch, groups, place, options, finished)
    size = (len(groups), place.site.d_out)
    values = torch.zeros(size, dtype=place.wide, device=batch.anchors.ids.device)
    failure: SolveError | None = None
    try:
        if mine := workers.share(groups):
            found = _optimised(batch, mine, place, options, finished)
            values[workers.rank :: workers.count] = found
    except SolveError as error:
        failure = error
    if not workers.agree(failure is None):
        raise failure or SolveError("another process got a loss that is not finite")
    return workers.sum(values)


def _optimised(
    batch: Batch,
    groups: Sequence[Sequence[int]],
    place: Place,
    options: TargetOptions,
    finished: Finished,
) -> Tensor:
    """Return the values (g, d) of `groups`, as many facts at a time as fit in memory."""
    chunks = _chunks(batch, groups, max(1, _AT_ONCE // _weight(batch, place)))
    found = batch.contexts[0].ids.new_zeros(len(groups), place.site.d_out, dtype=place.wide)
    for index, chunk in enumerate(chunks):
        members = [fact for group in chunk for fact in groups[group]]
        owner = [number for number, group in enumerate(chunk) for _ in groups[group]]
        task = _Task.of(batch.only(members), torch.tensor(owner), place)
        done, of = index * options.steps, len(chunks) * options.steps
        shift = _descend(task, options)
        for step in range(options.steps):
            finished(done + step + 1, of)
        found[chunk] = task.start + shift
    return found


def _weight(batch: Batch, place: Place) -> int:
    """Estimate how many numbers the graph of one fact in its longest context keeps.

    A block keeps about eight tensors of the stream's width and four of the MLP's for each token.
    """
    length = max(rows.ids.shape[1] for rows in batch.contexts)
    behind = len(blocks(place.model)) - place.site.layer
    return length * behind * (8 * place.site.d_out + 4 * place.site.d_in)


def _chunks(batch: Batch, groups: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Cut the groups into runs of alike length and about `most` facts, or of one that has more."""
    behind = batch.contexts[0].behind.tolist()
    largest = max(map(len, groups))
    return alike([max(behind[fact] for fact in group) for group in groups], max(1, most // largest))


@dataclass(frozen=True, slots=True)
class _Task:
    """Some facts with everything about them that does not change while values are optimised.

    `owner` (n,) is the group of each fact, `start` (g, d) the groups' own values, `calm` (n, vocab)
    the log-probabilities after "SUBJECT" that the KL term holds on to. A group without facts is one
    that is done.
    """

    batch: Batch
    owner: Tensor
    place: Place
    start: Tensor
    replays: tuple[Replay, ...]
    anchor: Replay
    calm: Tensor

    @classmethod
    def of(cls, batch: Batch, owner: Tensor, place: Place) -> _Task:
        owner = owner.to(batch.anchors.ids.device)
        groups = int(owner.max()) + 1
        first = (owner[None, :] == torch.arange(groups, device=owner.device)[:, None]).int()
        start = place.values(batch.contexts[0])[first.argmax(1)]
        anchor = place.replay(batch.anchors)
        with torch.no_grad():
            calm = _after_subject(
                place, anchor, batch, start.new_zeros(batch.count, start.shape[1])
            )
        replays = tuple(place.replay(rows) for rows in batch.contexts)
        return cls(batch, owner, place, start, replays, anchor, calm)

    def only(self, active: Tensor) -> _Task:
        """Return the task of the groups that are `active` (g,), once enough of it is done.

        What enters the edited place is run again from the subject's last token on, which costs less
        than asking what in the captured arguments of a block belongs to which row.
        """
        left = active[self.owner]
        if int(left.sum()) > (1 - _LEAVING) * len(left):
            return self
        kept = left.nonzero()[:, 0]
        batch = self.batch.only(kept.tolist())
        contexts = zip(self.replays, batch.contexts, strict=True)
        return replace(
            self,
            batch=batch,
            owner=self.owner[left],
            replays=tuple(self.place.again(replay, rows, kept) for replay, rows in contexts),
            anchor=self.place.again(self.anchor, batch.anchors, kept),
            calm=self.calm[left],
        )

    def per_group(self, losses: Tensor) -> Tensor:
        """Average losses (n,) of facts over each group, (g,)."""
        total = losses.new_zeros(len(self.start)).index_add(0, self.owner, losses)
        return total / torch.bincount(self.owner, minlength=len(self.start)).clamp_min(1)

    def losses(self, shift: Callable[[], Tensor], options: TargetOptions) -> Iterator[Tensor]:
        """Yield the parts (g,) of the loss, each with a graph of its own from `shift` (g, d)."""
        for replay, rows in zip(self.replays, self.batch.contexts, strict=True):
            moves = shift()[self.owner]
            logits = self.place.logits(replay, rows, moves, rows.label_row, rows.label_position)
            nll = cross_entropy(logits, rows.label_id, reduction="none")
            yield self.per_group(rows.per_fact(nll)) / len(self.replays)
        if options.kl:
            now = _after_subject(self.place, self.anchor, self.batch, shift()[self.owner])
            apart = kl_div(self.calm, now, log_target=True, reduction="none").sum(-1)
            yield options.kl * self.per_group(apart)
        sizes = self.start.norm(dim=1).square().clamp_min(_TINY)
        yield options.decay * shift().norm(dim=1) / sizes


def _after_subject(place: Place, anchor: Replay, batch: Batch, moves: Tensor) -> Tensor:
    """Return log-probabilities (n, vocab) of what follows the subject alone."""
    rows = batch.anchors
    index = torch.arange(rows.count, device=rows.ids.device)
    return log_softmax(place.logits(anchor, rows, moves, index, rows.last), dim=-1)


def _descend(task: _Task, options: TargetOptions) -> Tensor:
    """Return the optimised shift (g, d)."""
    size = task.start.norm(dim=1, keepdim=True)  # (g, 1)
    unit = torch.ones_like(size) if options.published_scales else size / task.start.shape[1] ** 0.5
    unit = unit.clamp_min(_TINY)
    steps = torch.zeros_like(task.start, requires_grad=True)
    optimizer = torch.optim.Adam([steps], lr=options.rate)

    def shift() -> Tensor:
        return steps * unit

    active = torch.ones(len(task.start), dtype=torch.bool, device=steps.device)
    for step in range(options.steps - 1):
        optimizer.zero_grad()
        loss = torch.zeros(len(steps), device=steps.device)
        for part in task.losses(shift, options):
            torch.autograd.backward(part.sum())  # at once: one context's graph in memory
            loss += part.detach()
        if not bool(torch.isfinite(loss).all()):
            raise SolveError(
                f"a loss is not finite at step {step + 1} of optimising a value",
                hint="compute in another precision with --dtype float32, or lower the rate",
            )
        active &= loss >= options.stop
        if not bool(active.any()):
            break
        before = steps.detach().clone()
        optimizer.step()
        with torch.no_grad():
            length = shift().norm(dim=1, keepdim=True)
            steps *= (options.clamp * size / length.clamp_min(_TINY)).clamp_max(1.0)
            steps[~active] = before[~active]
        task = task.only(active)
    return shift().detach()
