"""The sequential driver: facts, batch by batch, into the factors of each edited matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.assemble import assemble
from patchkit.editing.background import Background
from patchkit.editing.batch import Batch
from patchkit.editing.clock import Clock
from patchkit.editing.dataset_text import DatasetText
from patchkit.editing.earlier import earlier_layers, resume
from patchkit.editing.held import check_held, holding
from patchkit.editing.knowledge import Sources, preserved_text, weighed_statistics
from patchkit.editing.layers import LayerChoice, choose_layers, given_layers
from patchkit.editing.merging import merged
from patchkit.editing.methods import Finished, find_method, finish
from patchkit.editing.outcome import Outcome
from patchkit.editing.protect import Guard
from patchkit.editing.recipe import Recipe
from patchkit.editing.report import Edit
from patchkit.editing.stage import Stage, Written
from patchkit.editing.state import SiteState, borrowed, install
from patchkit.editing.statistics import Statistics
from patchkit.errors import FactsError
from patchkit.events import SILENT, Progress, phase
from patchkit.facts.fact import Fact
from patchkit.parallel import ALONE, Workers
from patchkit.patch.patch import Patch
from patchkit.scoring.answers import answers_to
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import Site, sites


def edit(
    model: PreTrainedModel,
    tokenizer: Any,
    facts: Sequence[Fact],
    *,
    checkpoint: Checkpoint | None = None,
    recipe: Recipe | None = None,
    previous: Sequence[Patch] = (),
    corpus: Path | DatasetText | None = None,
    cache_dir: Path | None = None,
    skip_known: bool = False,
    embed_facts: bool = True,
    keep: Callable[[Patch], object] | None = None,
    workers: Workers = ALONE,
    held: Sequence[Fact] = (),
    progress: Progress = SILENT,
) -> Edit:
    """Compute a patch that makes `model` answer `facts`, and report what it does.

    `checkpoint` is the folder the model was loaded from: its digests go into the patch and key
    the cache; without it the model's own weights are hashed. `previous` are patches that the base
    carries already, whose facts are protected and which the new patch comes `after`. `corpus` is
    a text to preserve instead of the base's own samples, a file or a data set. `keep` receives the
    finished patch before anything is measured with it, so that a failure after the work does not
    lose it. `workers` are processes that compute the same edit together. `held` are facts that must
    not change, which are protected as if they had been written before. The model's weights are
    given back bit for bit. Raises FactsError (nothing to edit, or a fact both to edit and to hold),
    RecipeError (a method that holds nothing), UnsupportedModel, BaseMismatch and SolveError (the
    loss is not finite).
    """
    recipe = recipe or Recipe()
    job = _Job(
        model, tokenizer, tuple(facts), holding(recipe) if held else recipe, tuple(previous),
        Sources(checkpoint, corpus, cache_dir), progress, workers,
    )  # fmt: skip
    if not job.facts:
        raise FactsError("there are no facts to edit")
    check_held(held, job.facts)
    outcome = Outcome.before(model, tokenizer, job.facts, previous, checkpoint, skip_known, held)
    chosen = [fact for fact, take in zip(job.facts, outcome.edited, strict=True) if take]
    if not chosen:
        raise FactsError("the base already answers every fact as asked")
    with job.clock.phase("preparing"):
        choice, found, text, states = _prepare(job, chosen)
    with borrowed(model, found):
        behind = job.background(text)
        states, earlier = resume(
            model, tokenizer, states, previous, behind.contexts, outcome.holdable
        )
        with job.clock.phase("optimising"):
            written = _advance(job, Written(states, tuple(earlier)), chosen, behind)
            states = _settled(job, written, behind)
    with job.clock.phase("merging"):
        build = _builder(job, states, chosen, embed_facts)
        patch = build({})
    if keep is not None:
        keep(patch)
    with job.clock.phase("measuring"):
        source = "self" if corpus is None else corpus.name
        report = outcome.after(patch, states, job.recipe, choice, source, job.clock.seconds)
    return Edit(build(report.summary), report)


def edit_sequence(
    model: PreTrainedModel,
    tokenizer: Any,
    facts: Sequence[Fact],
    at: Sequence[int],
    *,
    checkpoint: Checkpoint | None = None,
    recipe: Recipe | None = None,
    corpus: Path | DatasetText | None = None,
    cache_dir: Path | None = None,
    start: Callable[[Mapping[int, SiteState]], Written] | None = None,
    workers: Workers = ALONE,
    progress: Progress = SILENT,
) -> Iterator[Stage]:
    """Write `facts` in sequence and yield the patch of the first so many for each count in `at`.

    With the layers given it is the patch that `edit` makes of those facts alone: what ends an edit
    is done beside the sequence, which goes on as if nobody had looked. `start` turns the states at
    the beginning into those of an earlier stage's `written`, which holds no more facts than the
    least of `at`. The model has its own weights whenever a stage is out. Other arguments and errors
    are those of `edit`; FactsError also for counts beyond the facts, or below what was written.
    """
    job = _Job(
        model, tokenizer, tuple(facts), recipe or Recipe(), (),
        Sources(checkpoint, corpus, cache_dir), progress, workers,
    )  # fmt: skip
    if not job.facts:
        raise FactsError("there are no facts to edit")
    _, found, text, states = _prepare(job, job.facts)
    written = Written(states) if start is None else start(states)
    for count in at:
        if not max(1, written.count) <= count <= len(job.facts):
            raise FactsError(
                f"no patch can be taken after {count} facts: there are {len(job.facts)}, "
                f"{written.count} of them written already"
            )
    behind = job.background(text)
    for count in sorted(set(at)):
        whole = count - count % job.recipe.batch
        with borrowed(model, found):
            install(model, written.states)
            with job.clock.phase("before"):
                written = _advance(job, written, job.facts[written.count : whole], behind)
            with job.clock.phase(f"{count}"):
                rest = _advance(job, written, job.facts[whole:count], behind)
                states = _settled(job, rest, behind)
                patch = _builder(job, states, job.facts[:count], embed_facts=True)({})
        seconds = written.seconds + job.clock.seconds.pop("before", 0.0)
        written = replace(written, seconds=seconds)
        yield Stage(count, patch, seconds + job.clock.seconds[f"{count}"], written)


@dataclass(frozen=True, slots=True)
class _Job:
    """What every step of one edit needs."""

    model: PreTrainedModel
    tokenizer: Any
    facts: tuple[Fact, ...]
    recipe: Recipe
    previous: tuple[Patch, ...]
    sources: Sources
    progress: Progress
    workers: Workers = ALONE
    clock: Clock = field(default_factory=Clock)

    def background(self, text: Tensor) -> Background:
        """Return what batches have in common, made of the preserved text before any of them."""
        return Background.of(
            self.model, self.tokenizer, text, self.recipe, self.sources, self.progress
        )


def _prepare(
    job: _Job, facts: Sequence[Fact]
) -> tuple[LayerChoice, list[Site], Tensor, dict[int, SiteState]]:
    """Choose the layers and measure what to preserve there."""
    every = sites(job.model, job.sources.checkpoint)
    if job.recipe.layers is None:
        choice = choose_layers(
            job.model, job.tokenizer, facts, every,
            most=job.recipe.most_layers, progress=job.progress,
        )  # fmt: skip
    else:
        choice = given_layers(job.recipe.layers, every)
    carried = earlier_layers(job.previous, {site.tensor: site.layer for site in every})
    found = [site for site in every if site.layer in carried.union(choice.layers)]
    text = preserved_text(job.model, job.tokenizer, job.recipe, job.sources, job.progress)
    if job.workers.count > 1:  # sampled text may differ between processes by rounding
        text = job.workers.same(text.to(job.model.device)).cpu()
    moments = weighed_statistics(
        job.model, text, found, job.recipe.sensitivity, job.sources, job.progress, job.workers
    )
    states = {site.layer: _state(job, site, moments[site.layer]) for site in found}
    return choice, found, text, states


def _state(job: _Job, site: Site, statistics: Statistics) -> SiteState:
    state = SiteState.of(job.model, site, statistics)
    recipe = job.recipe
    guard = Guard.of(state.base, statistics, recipe.protect, recipe.protection)
    return replace(state, guard=guard)


def _builder(
    job: _Job, states: Mapping[int, SiteState], facts: Sequence[Fact], embed_facts: bool
) -> Callable[[Mapping[str, object]], Patch]:
    """Return what makes the patch of `states`, whatever was measured of it."""
    factors = {layer: merged(state.factors, state.ground) for layer, state in states.items()}

    def build(measured: Mapping[str, object]) -> Patch:
        return assemble(
            job.model, states, factors, facts, job.recipe, checkpoint=job.sources.checkpoint,
            previous=job.previous, measured=measured, embed_facts=embed_facts,
        )  # fmt: skip

    return build


def _advance(job: _Job, written: Written, facts: Sequence[Fact], behind: Background) -> Written:
    """Write `facts` batch by batch, each on the weights that the ones before left.

    A batch takes along the facts written before that it unsettles.
    """
    if not facts:
        return written
    size = job.recipe.batch
    states, history = dict(written.states), list(written.history)
    with phase(job.progress, "optimising", len(facts), "facts") as advance:
        for batch in _chunks(facts, size):
            again = _unsettled(job, history, batch)[:size]
            finished = _counter(advance, len(batch))
            states = _rewrite(job, states, history, [*batch, *again], behind, finished)
            states = {layer: state.bounded() for layer, state in states.items()}
            history = [*_without(history, again), *batch, *again]
    return replace(written, states=states, history=tuple(history), count=written.count + len(facts))


def _settled(job: _Job, written: Written, behind: Background) -> dict[int, SiteState]:
    """End an edit: write again what later facts have hurt, then take the method's last step."""
    states, history = dict(written.states), list(written.history)
    for hurt in _chunks(_unsettled(job, history, ()), job.recipe.batch):
        states = _rewrite(job, states, history, hurt, behind, lambda step, of: None)
        history = [*_without(history, hurt), *hurt]
    return finish(find_method(job.recipe.method), states, job.recipe.options)


def _chunks(facts: Sequence[Fact], size: int) -> list[Sequence[Fact]]:
    return [facts[i : i + size] for i in range(0, len(facts), size)]


def _without(history: Sequence[Fact], taken: Sequence[Fact]) -> list[Fact]:
    gone = set(taken)
    return [fact for fact in history if fact not in gone]


def _counter(advance: Callable[[int], None], facts: int) -> Finished:
    """Spread the count of a batch's facts over its steps, so that a bar moves while it works."""
    return lambda step, of: advance(facts * step // of - facts * (step - 1) // of)


def _rewrite(
    job: _Job,
    states: dict[int, SiteState],
    history: Sequence[Fact],
    batch: Sequence[Fact],
    behind: Background,
    finished: Finished,
) -> dict[int, SiteState]:
    """Write `batch`, whose facts the history no longer holds to their old values."""
    taken = set(batch)
    rows = [row for row, fact in enumerate(history) if fact in taken]
    states = {layer: state.forget(rows) for layer, state in states.items()}
    recalled = _without(history, batch) if getattr(job.recipe.options, "recall", 0) else ()
    facts = Batch.of(
        job.tokenizer, batch, behind.contexts, job.model.device, job.workers,
        rehearsal=behind.rehearsal, earlier=recalled,
    )  # fmt: skip
    method = find_method(job.recipe.method)
    states = method.solve(job.model, states, facts, job.recipe.options, finished)
    install(job.model, states)
    return states


def _unsettled(job: _Job, history: Sequence[Fact], batch: Sequence[Fact]) -> list[Fact]:
    """Return the earlier facts to write again with `batch`, those of its subjects first.

    Facts of one subject share a key, so to hold an earlier one's value there is to refuse the new
    one; the others are those that the model no longer answers as asked.
    """
    if not job.recipe.rewrite:
        return []
    subjects = {fact.subject for fact in batch}
    said = answers_to(job.model, job.tokenizer, history, workers=job.workers)
    hurt = [fact for fact, answer in zip(history, said, strict=True) if not answer.exact]
    shared = [fact for fact in history if fact.subject in subjects]
    return list(dict.fromkeys([*shared, *hurt]))
