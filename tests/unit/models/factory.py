"""Randomly initialised models of every supported architecture, small enough for any test.

`tiny("gpt2")` gives a model, `save_tiny("gpt2", folder)` a checkpoint with its tokenizer. Weights
are larger than a fresh initialisation would make them, so that logits differ clearly between tokens
and an edit has something to change; biases are random too.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 320
BOS, EOS, PAD = 0, 1, 2
TEXT = (
    "The capital of France is Paris. The capital of Italy is Rome. Ada Lovelace was born here.",
    "Marie Curie discovered radium, and Isaac Newton wrote about light, motion and gravity.",
    "The currency of Japan is the yen; the language of Brazil is Portuguese.",
)

_COMMON = {
    "vocab_size": VOCABULARY,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "initializer_range": 0.3,
}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_GEMMA = {**_LLAMA, "head_dim": 8}
_GPT = {"n_embd": 32, "n_inner": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("llama", {**_LLAMA, "num_key_value_heads": 4}),
    "llama3": ("llama", {**_LLAMA, "rope_parameters": _LLAMA3_ROPE}),
    "qwen2": ("qwen2", {**_LLAMA, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**_LLAMA, "head_dim": 8}),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 16}),
    "gemma2": ("gemma2", {**_GEMMA, "sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {**_GEMMA, "sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gemma3_multimodal": ("gemma3", {"text_config": _GEMMA, "vision_config": _VISION}),
    "phi3": ("phi3", _LLAMA),
    "gpt2": ("gpt2", _GPT),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", {**_LLAMA, "use_parallel_residual": True}),
    "opt": ("opt", {**_LLAMA, "ffn_dim": 64, "word_embed_proj_dim": 32}),
}
ARCHITECTURES = tuple(_CONFIGS)


def tiny(architecture: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model: 3 layers, d 32, d_ff 64, in eval mode and without gradients."""
    kind, options = _CONFIGS[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(kind, {**options, **changes}))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def _config(kind: str, options: dict[str, Any]) -> Any:
    if "text_config" in options:
        options = {**options, "text_config": {**_COMMON, **options["text_config"]}}
    return AutoConfig.for_model(kind, **{**_COMMON, **options})


@cache
def _trained() -> str:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
            ),
        ]
    )
    return tokenizer.to_str()


def tiny_tokenizer(padding_side: str = "right") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that puts <s> first, trained on three sentences."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
    )


def save_tiny(
    architecture: str,
    folder: Path,
    max_shard_size: str | int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Write `tiny(architecture)` and its tokenizer to `folder`; give the model as written."""
    model = tiny(architecture, seed)
    if dtype is not None:
        model = model.to(dtype)
    shards = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    model.save_pretrained(folder, **shards)
    tiny_tokenizer().save_pretrained(folder)
    return model
