"""From a folder to a base model in memory: load the weights, load the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from patchkit.errors import CheckpointError, UnsupportedModel
from patchkit.tensors.checkpoint import Checkpoint

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def load_model(path: str | Path, *, device: str = "cpu", dtype: str = "auto") -> PreTrainedModel:
    """Load a base for inference: eval mode, no gradients, safetensors only, nothing fetched.

    `device` is a torch device or `auto` (CUDA where there is one). `dtype` is one of DTYPES or
    `auto`: float32 on a CPU; elsewhere as stored, except that float16, whose range is too small
    for gradients, becomes float32. Raises CheckpointError for a folder that cannot be loaded
    completely, and UnsupportedModel for an architecture that transformers does not have.
    """
    checkpoint = Checkpoint.open(path)
    place = torch.device(_device(device))
    loader: Any = AutoModelForCausalLM
    with _quiet():
        try:
            model, info = loader.from_pretrained(
                Path(path),
                dtype=_dtype(dtype, place, checkpoint),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (ValueError, OSError, RuntimeError, KeyError, StrictDataclassError) as error:
            raise _unloadable(path, checkpoint, error) from error
    if info["missing_keys"]:
        raise CheckpointError(
            f"{path} lacks {len(info['missing_keys'])} tensors of {type(model).__name__}, "
            f"for instance {min(info['missing_keys'])}",
            hint="fetch the checkpoint again",
            details={"missing": sorted(info["missing_keys"])},
        )
    return cast(PreTrainedModel, model.eval().requires_grad_(False).to(place))


def outline(checkpoint: Checkpoint) -> PreTrainedModel:
    """Build a base without memory behind its tensors, which is enough to find its modules.

    Raises UnsupportedModel for an architecture that transformers does not have, and CheckpointError
    for sizes that it does not take.
    """
    loader: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
        with torch.device("meta"):
            model = loader.from_config(config)
    except StrictDataclassError as error:
        raise _unloadable(checkpoint.path, checkpoint, error) from error
    except (ValueError, KeyError) as error:
        kind = checkpoint.config.get("model_type")
        raise UnsupportedModel(
            f"transformers has no causal language model of model_type {kind!r}",
            hint="patchkit edits decoder-only models that AutoModelForCausalLM knows",
            details={"model_type": kind},
        ) from error
    return cast(PreTrainedModel, model)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base, which must have character offsets (a fast tokenizer).

    Raises CheckpointError where the folder has none, UnsupportedModel where it has no offsets.
    """
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(Path(path), local_files_only=True)
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} has no tokenizer that transformers can load: {_sentence(error)}",
                hint="a base needs tokenizer.json and tokenizer_config.json",
            ) from error
    if not tokenizer.is_fast:
        raise UnsupportedModel(
            f"{type(tokenizer).__name__} gives no character offsets, which finding subjects needs",
            hint="save the base with its fast tokenizer (a tokenizer.json file)",
        )
    return cast(PreTrainedTokenizerBase, tokenizer)


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UnsupportedModel(
            f"device {device} was asked for and torch {torch.__version__} sees no CUDA device",
            hint="pass --device cpu",
        )
    return device


def _dtype(dtype: str, place: torch.device, checkpoint: Checkpoint) -> torch.dtype:
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise UnsupportedModel(
            f"dtype {dtype} is not one of {', '.join(DTYPES)}", hint="pass --dtype auto"
        )
    stored = {entry.info.dtype for entry in checkpoint.tensors.values()}
    return torch.bfloat16 if place.type != "cpu" and "BF16" in stored else torch.float32


def _unloadable(
    path: str | Path, checkpoint: Checkpoint, error: Exception
) -> CheckpointError | UnsupportedModel:
    kind = checkpoint.config.get("model_type")
    if isinstance(error, ValueError | KeyError):
        return UnsupportedModel(
            f"transformers cannot make a causal language model of {path} (model_type {kind!r}): "
            + _sentence(error),
            hint="patchkit edits decoder-only models that AutoModelForCausalLM knows",
            details={"model_type": kind},
        )
    return CheckpointError(f"{path} could not be loaded: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and log lines off the terminal, and put its settings back."""
    log = cast(Any, transformers_logging)
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    if bar:
        log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()
