"""Loading a base for the commands that run a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .options import Device, Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from patchkit.tensors.checkpoint import Checkpoint

ATLAS = "atlas"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A base in memory, and the folder it came from."""

    checkpoint: "Checkpoint"
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def open_base(ref: str) -> "Checkpoint":
    """The checkpoint that a reference names, from its headers alone."""
    from patchkit.tensors.checkpoint import Checkpoint
    from patchkit.tensors.refs import resolve_base

    return Checkpoint.open(resolve_base(ref), repo=ATLAS if ref == ATLAS else None)


def load(ref: str, device: Device, dtype: Dtype) -> Loaded:
    """The base that a reference names, with its tokenizer."""
    from patchkit.base import load_model, load_tokenizer

    checkpoint = open_base(ref)
    tokenizer = load_tokenizer(checkpoint.path)
    return Loaded(checkpoint, load_model(checkpoint.path, device=device, dtype=dtype), tokenizer)
