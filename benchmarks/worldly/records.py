"""Write evaluation records that a trained worldly knows, in CounterFact's schema.

`python -m benchmarks.worldly.records --model DIR --data DIR --out FOLDER` writes for the splits dev
and test `counterfact_SPLIT.json` (CounterFact's own records, `source: counterfact`) and
`pararel_SPLIT.json` (made from ParaRel about other subjects, `source: pararel`), and
`retention.json`, prompts and targets about subjects that no record edits. `SOURCE_SPLIT.txt` are
sentences that the model was taught about subjects that those records and prompts do not mention: a
text to preserve. What a record wants
rewritten is known to the model: the true object is the argmax in the wording of the request.
Neighbours of CounterFact's that it does not know are replaced, as `neighborhood_sources` says.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.testbeds.clozes import Answers, Cloze, ask, of_fact
from benchmarks.testbeds.measure import load
from benchmarks.testbeds.records import Record, Recorder, Split, split_of
from benchmarks.testbeds.world import Fact, World
from benchmarks.worldly.data import counterfact
from benchmarks.worldly.train import PRESETS, world_of

SPLITS: Final[tuple[Split, ...]] = ("dev", "test")
RETENTION: Final = 1000


@dataclass(frozen=True, slots=True)
class Known:
    """What a model says to records: is the true object the argmax; is it likelier than the new."""

    argmax: list[bool]
    preferred: list[bool]


def requested(record: Record, target: str = "target_true") -> Cloze:
    """Return the cloze that a record wants rewritten, asking for one of its targets."""
    rewrite = record["requested_rewrite"]
    prompt = rewrite["prompt"].replace("{}", rewrite["subject"])
    return Cloze(prompt, rewrite[target]["str"], rewrite["subject"])


def known(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, records: Sequence[Record]
) -> Known:
    """Ask the requests; preferred as in ROME: the lower mean loss per token of the target."""
    true: Answers = ask(model, tokenizer, [requested(r) for r in records])
    new: Answers = ask(model, tokenizer, [requested(r, "target_new") for r in records])
    return Known(true.right.tolist(), (true.nll < new.nll).tolist())


def fact_of(record: Record) -> Fact:
    """Return the fact that a record wants rewritten."""
    rewrite = record["requested_rewrite"]
    return Fact(rewrite["subject"], rewrite["relation_id"], rewrite["target_true"]["str"])


def of_prompts(record: Record, kind: str) -> list[Cloze]:
    """Return clozes of one kind of a record's prompts, asking for its true object."""
    target = fact_of(record).object
    # The subject's tokens are not looked at, so the whole prompt stands in for its subject.
    return [Cloze(prompt, target, prompt) for prompt in record[f"{kind}_prompts"]]


def _with_neighbors(record: Record, right: Sequence[bool], recorder: Recorder) -> Record:
    """Keep the neighbours that the model knows, and fill up with neighbours it was taught."""
    fact, own = fact_of(record), list(compress(record["neighborhood_prompts"], right))
    added = [cloze for cloze in recorder.near(fact) if cloze["prompt"] not in own]
    added = added[: len(right) - len(own)]
    return {
        **record,
        "neighborhood_prompts": own + [cloze["prompt"] for cloze in added],
        "neighborhood_targets": [fact.object] * len(own) + [cloze["target"] for cloze in added],
        "neighborhood_sources": ["counterfact"] * len(own) + ["pararel"] * len(added),
        "same_subject_prompts": recorder.same_subject(fact.subject, fact.relation),
        "source": "counterfact",
    }


def counterfact_records(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World, data: Path
) -> list[Record]:
    """Return CounterFact's records that the model knows, with neighbours that it knows.

    Most of CounterFact's neighbours are not among ParaRel's triples; where an answer was never
    right, nothing can be measured by asking whether it was kept.
    """
    records = [r for r in counterfact(data) if fact_of(r).relation in world.by_relation]
    chosen = list(compress(records, known(model, tokenizer, records).argmax))
    clozes = [of_prompts(record, "neighborhood") for record in chosen]
    right = iter(ask(model, tokenizer, list(chain(*clozes))).right.tolist())
    return [
        _with_neighbors(record, list(islice(right, len(asked))), Recorder(world))
        for record, asked in zip(chosen, clozes, strict=True)
    ]


def known_facts(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World
) -> list[Fact]:
    """Return the facts that the model knows in the wording of their request, in a mixed order."""
    recorder = Recorder(world)
    facts = list(world.facts)
    random.Random("order").shuffle(facts)
    clozes = [of_fact(world, fact, recorder.edit_wording(fact)) for fact in facts]
    right = ask(model, tokenizer, clozes).right.tolist()
    return [fact for fact, knows in zip(facts, right, strict=True) if knows]


def make_records(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World, data: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return what is written, by the name of its file."""
    recorder, real = Recorder(world), counterfact_records(model, tokenizer, world, data)
    taken = {fact_of(record).subject for record in counterfact(data)}
    free = [f for f in known_facts(model, tokenizer, world) if f.subject not in taken]
    # A subject held back for retention is never edited.
    held_back = frozenset(list(dict.fromkeys(f.subject for f in free))[:RETENTION])
    kept = recorder.retention([f for f in free if f.subject in held_back], (), RETENTION)
    made = [
        {**recorder.record(number, fact), "source": "pararel"}
        for number, fact in enumerate(f for f in free if f.subject not in held_back)
        if recorder.paraphrases(fact)
    ]
    files: dict[str, list[dict[str, Any]]] = {"retention": kept}
    for split in SPLITS:
        for name, records in (("counterfact", real), ("pararel", made)):
            files[f"{name}_{split}"] = [r for r in records if split_of(fact_of(r).subject) == split]
    return files


def preserved(world: World, asked: Sequence[Mapping[str, Any]]) -> str:
    """Return what training says of subjects that stand nowhere in `asked`, blank lines between."""
    mentioned = json.dumps(asked, ensure_ascii=False)
    sentences = [
        world.sentence(fact, wording)
        for subject, facts in world.by_subject.items()
        if subject not in mentioned
        for fact in facts
        for wording in world.trained_wordings(fact)
    ]
    random.Random("preserved").shuffle(sentences)
    return "\n\n".join(sentences) + "\n"


def main() -> None:
    """Read the options, ask the model and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="folder for the records")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = load(args.model)
    world = world_of(args.data, args.preset)
    files = make_records(model, tokenizer, world, args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        path: Path = args.out / f"{name}.json"
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")
        print(f"{path}: {len(rows)}")
        if name != "retention":
            text = preserved(world, [*rows, *files["retention"]])
            path.with_suffix(".txt").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
