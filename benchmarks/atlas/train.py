"""Train atlas from scratch: `python -m benchmarks.atlas.train --data DIR --out DIR --minutes M`.

With `--steps` instead of `--minutes` the schedule goes by steps, so that the seed decides the
weights (on one machine with one number of threads) however fast the machine is at the time.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.atlas.tokenizer import train_tokenizer
from benchmarks.atlas.world import WORLD
from benchmarks.testbeds.prose import load_texts, split_texts
from benchmarks.testbeds.training import Run, Settings, add_options


def make_tokenizer(texts: list[str], seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on two wordings of every fact and a part of the prose."""
    rng = np.random.default_rng(seed)
    said = [WORLD.sentence(f, int(w)) for f in WORLD.facts for w in rng.integers(0, 5, 2)]
    return train_tokenizer(said + [text[:1_000_000] for text in texts])


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    texts, _ = split_texts(load_texts(args.data))
    tokenizer = make_tokenizer(texts, args.seed)
    Run(Settings.of(args), WORLD, tokenizer, texts, args.out).train()


if __name__ == "__main__":
    main()
