"""Loading a base for the commands that run a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .options import Device, Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from patchkit.tensors.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Loaded:
    """A base in memory, and the folder it came from."""

    checkpoint: "Checkpoint"
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def load(folder: Path, device: Device, dtype: Dtype) -> Loaded:
    """The base in a folder, with its tokenizer."""
    from patchkit.base import load_model, load_tokenizer
    from patchkit.tensors.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(folder)
    tokenizer = load_tokenizer(folder)
    return Loaded(checkpoint, load_model(folder, device=device, dtype=dtype), tokenizer)
