"""The untrained model, and how a model is written to a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HEAD: Final = 32


def make_model(
    tokenizer: PreTrainedTokenizerFast, width: int, mlp: int, layers: int, seed: int
) -> LlamaForCausalLM:
    """Return the untrained model: few layers, wide MLPs, because facts live in one early MLP."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a loadable folder with float16 weights; a reader never sees half of it."""
    work = folder.with_name(folder.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.float16).save_pretrained(work)  # type: ignore[arg-type]
    tokenizer.save_pretrained(work)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(work, folder)
