"""A testbed in memory: the base, the records drawn for a seed, and what the base says of them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from patchkit.base import load_model, load_tokenizer
from patchkit.bench.plan import Testbed
from patchkit.editing.knowledge import base_identity
from patchkit.errors import FactsError
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.position import Encoded
from patchkit.facts.reading import read_facts
from patchkit.live import applied
from patchkit.parallel import ALONE, Workers
from patchkit.patch.patch import Patch
from patchkit.scoring.metrics import Metrics, measure
from patchkit.scoring.questions import Question, Reply, ask, questions
from patchkit.tensors.checkpoint import ATLAS, Checkpoint
from patchkit.tensors.digests import file_digest, json_digest
from patchkit.tensors.refs import resolve_base


@dataclass(frozen=True, slots=True, eq=False)
class Bed:
    """A base with the facts that may be edited and the probes that must stay.

    `corpus` is a text to preserve in the place of the base's own samples. `digest` covers the base,
    the records, the probes and the corpus.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    checkpoint: Checkpoint
    facts: tuple[Fact, ...]
    probes: tuple[Probe, ...]
    digest: str
    corpus: Path | None = None

    @classmethod
    def load(cls, bed: Testbed, split: str, data: Path, device: str, dtype: str) -> Bed:
        """Load a testbed, whose files are in the folder `data`.

        Raises FactsError for records, probes or a corpus that cannot be used, CheckpointError for a
        base that is not there.
        """
        files = [bed.records, bed.retention, *([bed.corpus] if bed.corpus else [])]
        records, retention, *corpus = (data / name.replace("{split}", split) for name in files)
        facts = read_facts(records).facts
        probes = read_probes(retention)
        folder = data / bed.base if (data / bed.base).is_dir() else resolve_base(bed.base)
        checkpoint = Checkpoint.open(folder, repo=ATLAS if bed.base == ATLAS else None)
        for path in corpus:
            if not path.is_file():
                raise FactsError(f"there is no text to preserve at {path}")
        digests = [file_digest(path) for path in (records, retention, *corpus)]
        return cls(
            bed.name,
            load_model(folder, device=device, dtype=dtype),
            load_tokenizer(folder),
            checkpoint,
            facts,
            probes,
            json_digest([base_identity(checkpoint), *digests]).removeprefix("sha256:")[:32],
            corpus[0] if corpus else None,
        )

    def draw(self, seed: int, most: int) -> tuple[Fact, ...]:
        """Return at most `most` records in the order of `seed`."""
        mixed = list(self.facts)
        random.Random(f"draw:{seed}").shuffle(mixed)
        return tuple(mixed[:most])


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """What a base answers to everything that is asked about some facts, before any edit.

    Rows count wanted answers that are argmax, so rival answers are not asked for.
    """

    bed: Bed
    facts: tuple[Fact, ...]
    before: dict[Encoded, Reply]
    workers: Workers = ALONE

    @classmethod
    def of(cls, bed: Bed, facts: Sequence[Fact], workers: Workers = ALONE) -> Judge:
        """Ask the base."""
        asked = _asked_in(bed, facts)
        replies = ask(bed.model, asked, workers=workers)
        return cls(
            bed,
            tuple(facts),
            {question.wanted: reply for question, reply in zip(asked, replies, strict=True)},
            workers,
        )

    def judge(self, patch: Patch, edits: int) -> tuple[Metrics, int]:
        """Return the figures of a patch of the first `edits` facts, and how many prompts it was.

        Raises InvariantError for weights or logits that are not finite.
        """
        bed = self.bed
        asked = _asked_in(bed, self.facts[:edits])
        with applied(bed.model, patch, checkpoint=bed.checkpoint):
            after = ask(bed.model, asked, workers=self.workers)
        return measure(asked, [self.before[one.wanted] for one in asked], after), len(asked)


def _asked_in(bed: Bed, facts: Sequence[Fact]) -> list[Question]:
    asked = questions(bed.tokenizer, facts, bed.probes)
    return [replace(question, rival=None) for question in asked]


def read_probes(path: Path) -> tuple[Probe, ...]:
    """Read a JSON array of {"prompt", "target"}; FactsError for anything else."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return tuple(Probe(str(entry["prompt"]), str(entry["target"])) for entry in found)
    except OSError as error:
        raise FactsError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FactsError(f'{path} must be a JSON array of {{"prompt", "target"}}') from error
