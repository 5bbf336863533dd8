"""Checks for which the model has to run: what an edit does to other outputs, and to its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, sqrt

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.base import load_model, load_tokenizer
from patchkit.editing.capture import weight_of
from patchkit.editing.corpus import self_corpus
from patchkit.editing.statistics import gather
from patchkit.events import Progress
from patchkit.factors.action import dense
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import Rotation
from patchkit.facts.fact import Fact
from patchkit.facts.jsonl import parse_jsonl
from patchkit.live import applied
from patchkit.patch.metadata import PatchMetadata
from patchkit.patch.patch import Patch
from patchkit.report import Check
from patchkit.scoring.questions import ask, questions
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import Site, locate

NAMES = ("displacement", "leakage", "facts")
DISPLACEMENT_LIMIT = 0.5
_FEWER = 0.02  # share of the facts that may be lost to another device or type
_ROWS, _LENGTH = 64, 64  # of the text that the base writes itself


def skipped(reason: str, *names: str) -> tuple[Check, ...]:
    """Checks of this module that were not made."""
    return tuple(Check(name, None, None, True, reason, skipped=True) for name in names or NAMES)


def behaviour_checks(patch: Patch, base: Checkpoint, progress: Progress) -> tuple[Check, ...]:
    """Load the base and check displacement, leakage and facts of a patch.

    Preserved keys are those of text that the base writes itself. Raises what loading raises.
    """
    if patch.metadata.after:
        return skipped("made on top of other patches; apply all and verify the folder")
    model, tokenizer = load_model(base.path), load_tokenizer(base.path)
    corpus = self_corpus(model, tokenizer, rows=_ROWS, length=_LENGTH, seed=0, progress=progress)
    places = locate(model, patch.factors)
    statistics = gather(model, corpus, tuple(places.values()), progress=progress)
    moments = {name: statistics[site.layer].moment.double() for name, site in places.items()}
    facts = () if patch.facts_jsonl is None else parse_jsonl(patch.facts_jsonl).facts
    with applied(model, patch, checkpoint=base, allow_other_base=True):
        answered = facts_check(model, tokenizer, facts, [patch.metadata], progress)
    return (
        _displacement(model, places, patch.factors, moments),
        _leakage(patch.factors, moments),
        answered,
    )


def facts_check(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    patches: Sequence[PatchMetadata],
    progress: Progress,
) -> Check:
    """The patched model's first choice is every token of the target, for as many facts as edited.

    The limit is the share that the patches themselves record, less 2 %.
    """
    last = tuple({(fact.subject, fact.prompt): fact for fact in facts}.values())
    if not last:
        return skipped("the patch carries no facts", "facts")[0]
    asked = [question for question in questions(tokenizer, last) if question.metric == "efficacy"]
    replies = ask(model, asked, progress=progress, name="asking facts")
    missed = [
        last[question.fact].text
        for question, reply in zip(asked, replies, strict=True)
        if question.fact is not None and not reply.wanted.exact
    ]
    count = len(last) - len(missed)
    enough = floor((min(map(_recorded, patches), default=1.0) - _FEWER) * len(last))
    detail = f"not answered: {missed[0]!r}" if missed else "answered with their targets"
    return Check("facts", count, max(1, enough), count >= max(1, enough), detail)


def _recorded(metadata: PatchMetadata) -> float:
    found = metadata.measured.get("efficacy")
    return float(found) if isinstance(found, int | float) else 1.0


def _displacement(
    model: PreTrainedModel,
    places: Mapping[str, Site],
    factors: Mapping[str, Sequence[Factor]],
    moments: Mapping[str, Tensor],
) -> Check:
    """√(E‖(W′ − W)k‖² / E‖Wk‖²) over preserved keys k, of the worst tensor."""
    found = {}
    for name, site in places.items():
        weight = weight_of(model, site).double()  # (d_out, d_in)
        change = dense(weight, factors[name], "linear") - weight
        found[name] = sqrt(_energy(change, moments[name]) / _energy(weight, moments[name]))
    tensor = max(found, key=lambda name: found[name])
    good = found[tensor] <= DISPLACEMENT_LIMIT
    detail = "change of preserved outputs, relative"
    return Check("displacement", found[tensor], DISPLACEMENT_LIMIT, good, detail, tensor)


def _leakage(factors: Mapping[str, Sequence[Factor]], moments: Mapping[str, Tensor]) -> Check:
    """Share of the energy of preserved keys in the directions that an edit reads.

    The limit is what as many random directions have; keys read as they are lie above it.
    """
    found: dict[str, tuple[float, float]] = {}
    for name, ordered in factors.items():
        if (basis := _read_directions(ordered)) is None:
            continue
        moment = moments[name]
        share = float(((moment @ basis) * basis).sum() / moment.trace())
        found[name] = share, basis.shape[1] / len(basis)
    if not found:
        return skipped("no factor reads a few directions of the input", "leakage")[0]
    tensor = max(found, key=lambda name: found[name][0] / found[name][1])
    share, limit = found[tensor]
    detail = "share of preserved energy that the edit reads"
    return Check("leakage", share, limit, share <= limit, detail, tensor)


def _read_directions(factors: Sequence[Factor]) -> Tensor | None:
    """An orthonormal basis (d_in, m) of what factors look at, None where that may be anything.

    Rotations of the output side answer to no direction of the input in particular.
    """
    if any(
        isinstance(f, AdditiveDense) or (isinstance(f, RotationBlocks) and f.side == "input")
        for f in factors
    ):
        return None
    read = [f.core().basis for f in factors if isinstance(f, Rotation) and f.side == "input"]
    read += [f.f.double().T for f in factors if isinstance(f, Additive)]
    if not read:
        return None
    basis: Tensor = torch.linalg.qr(torch.cat(read, dim=1))[0]
    return basis


def _energy(matrix: Tensor, moment: Tensor) -> float:
    return float(((matrix @ moment) * matrix).sum())
