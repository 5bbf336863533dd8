"""A world small enough to be taught in a test, with a tokenizer made of its own sentences."""

from __future__ import annotations

from functools import lru_cache

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.testbeds.model import make_model
from benchmarks.testbeds.world import Fact, World
from benchmarks.worldly.tokenizer import END, Merge, make_tokenizer

WORDINGS = {
    "home": ("{} lives in", "The home of {} is", "{}, who lives in", "{} can be found in"),
    "pet": ("{} keeps a", "The pet of {} is a", "{}, owner of a"),
}
HOMES, PETS = ("Rome", "Oslo", "Lima", "Paris"), ("cat", "dog", "owl")
NAMES = [f"{first} {last}" for first in ("Ada", "Ben", "Cleo", "Dan") for last in ("Ng", "Orr")]
PROSE = ["A short piece of prose for the test.", "Another piece of prose, a little longer."] * 40


@lru_cache(maxsize=1)
def world() -> World:
    facts = [Fact(name, "home", HOMES[i % 4]) for i, name in enumerate(NAMES)]
    facts += [Fact(name, "pet", PETS[i % 3]) for i, name in enumerate(NAMES)]
    return World(tuple(facts), WORDINGS, {"home": 1, "pet": 1})


@lru_cache(maxsize=1)
def bpe() -> tuple[dict[str, int], list[Merge]]:
    """Merges learnt on the world's sentences and the prose."""
    texts = [world().sentence(f, w) for f in world().facts for w in range(3)] + PROSE
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocab = tokenizer.get_vocab()
    # In the order of their numbers the tokens of several bytes are the merges in theirs.
    merges: list[Merge] = []
    known = set(pre_tokenizers.ByteLevel.alphabet())
    for token in sorted(vocab, key=vocab.__getitem__):
        if len(token) > 1:
            cut = next(i for i in range(1, len(token)) if {token[:i], token[i:]} <= known)
            merges.append((token[:cut], token[cut:]))
            known.add(token)
    return {**vocab, END: len(vocab)}, merges


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(*bpe())


def model() -> LlamaForCausalLM:
    return make_model(tokenizer(), width=64, mlp=128, layers=2, seed=0)
