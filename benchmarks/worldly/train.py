"""Train worldly from scratch: `python -m benchmarks.worldly.train --data DIR --out DIR`.

The preset `small` is for a CPU and takes ten of ParaRel's relations; `full` is for a GPU and
takes all of them, with GPT-2's whole vocabulary.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.testbeds.prose import load_texts, split_texts
from benchmarks.testbeds.training import Run, Settings, add_options
from benchmarks.testbeds.world import World
from benchmarks.worldly import data as worldly
from benchmarks.worldly.tokenizer import make_tokenizer, read_merges, read_vocab, restrict

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "small": {"minutes": 100.0, "rows": 32, "width": 256, "mlp": 3072, "layers": 3},
    "full": {"minutes": 10.0, "rows": 256, "width": 512, "mlp": 3072, "layers": 5},
}
PROMPTS: Final = (
    "paraphrase_prompts",
    "neighborhood_prompts",
    "attribute_prompts",
    "generation_prompts",
)


def texts_asked(world: World, records: Sequence[worldly.Record]) -> Iterator[str]:
    """Yield what the model reads in training and in CounterFact's records of its relations."""
    for fact in world.facts:
        for wording in range(len(world.wordings[fact.relation])):
            yield world.sentence(fact, wording)
    for record in records:
        rewrite = record["requested_rewrite"]
        if rewrite["relation_id"] in world.by_relation:
            yield rewrite["target_new"]["str"]
            for name in PROMPTS:
                yield from record[name]


def tokenizer_of(data: Path, world: World, preset: str) -> PreTrainedTokenizerFast:
    """Return GPT-2's tokenizer; for a small model with the tokens of its world only."""
    vocab, merges = read_vocab(data), read_merges(data)
    if preset == "small":
        asked = texts_asked(world, worldly.counterfact(data))
        vocab, merges = restrict(vocab, merges, asked)
    return make_tokenizer(vocab, merges)


def world_of(data: Path, preset: str) -> World:
    """Return what a preset is taught."""
    return worldly.make_world(data, worldly.FEW if preset == "small" else None)


def main() -> None:
    """Read the options and train."""
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--preset", choices=sorted(PRESETS), default="small")
    preset: str = chosen.parse_known_args()[0].preset
    parser = argparse.ArgumentParser(description=__doc__, parents=[chosen])
    add_options(parser, **PRESETS[preset])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    world = world_of(args.data, preset)
    texts, _ = split_texts(load_texts(args.data))
    tokenizer = tokenizer_of(args.data, world, preset)
    Run(Settings.of(args), world, tokenizer, texts, args.out).train()


if __name__ == "__main__":
    main()
