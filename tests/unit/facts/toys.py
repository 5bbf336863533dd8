"""Small tokenizers of every family, trained on a few sentences."""

import json
from collections.abc import Callable
from functools import cache

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The capital of France is Paris. The mother tongue of Léon Blum is French.",
    "Danielle Darrieux was born in Málaga and lives near Łódź, in the Rhône valley.",
    "Who wrote it? The author of Zadie's book, a native speaker of Danish, did.",
    "東京は日本の首都です。 The currency of Japan is the yen 🎉 and 👩‍👩‍👧 are a family 🇩🇰.",
    " ".join(f"{x} {x.upper()} .{x}{x.upper()}" for x in "abcdefghijklmnopqrstuvwxyz"),
] * 3


def _wrap(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _template(text: str, tokenizer: Tokenizer, *names: str) -> processors.TemplateProcessing:
    special = [(name, tokenizer.token_to_id(name)) for name in names]
    return processors.TemplateProcessing(single=text, special_tokens=special)


def _byte_level(*, prefix: bool, trim: bool, bos: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    offsets = processors.ByteLevel(trim_offsets=trim)
    ends = _template("<s> $A", tokenizer, "<s>")
    tokenizer.post_processor = processors.Sequence([offsets, ends]) if bos else offsets
    return _wrap(tokenizer, bos_token="<s>", eos_token="</s>")


def _unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=260,
        special_tokens=["<unk>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = _template("$A </s>", tokenizer, "</s>")
    return _wrap(tokenizer, unk_token="<unk>", eos_token="</s>")


def _sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """As Llama 2: no splitting at spaces, unknown characters as bytes, BOS in front."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=200, limit_alphabet=60, special_tokens=["<unk>", "<s>"], show_progress=False
    )
    learner.train_from_iterator(CORPUS, trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = [*model["vocab"], *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = _template("<s> $A", tokenizer, "<s>")
    return _wrap(tokenizer, unk_token="<unk>", bos_token="<s>")


def _wordpiece() -> PreTrainedTokenizerFast:
    """As BERT: lower case, accents stripped, tokens around the text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=320, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = _template("[CLS] $A [SEP]", tokenizer, "[CLS]", "[SEP]")
    return _wrap(tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


_BUILDERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": lambda: _byte_level(prefix=False, trim=False),
    "byte-level, trimmed offsets, prefix space": lambda: _byte_level(prefix=True, trim=True),
    "byte-level, BOS": lambda: _byte_level(prefix=False, trim=True, bos=True),
    "unigram": _unigram,
    "SentencePiece BPE": _sentencepiece_bpe,
    "WordPiece": _wordpiece,
}
NAMES = tuple(_BUILDERS)
BYTE_LEVEL = NAMES[:3]


@cache
def toy(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of that name, trained once."""
    return _BUILDERS[name]()
