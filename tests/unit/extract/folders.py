"""A base and a changed copy of it, with one matrix in either layout."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from patchkit.factors import Layout
from tests.unit.tensors.folders import write_folder

NAMES: Mapping[Layout, str] = {
    "linear": "model.layers.0.mlp.down_proj.weight",
    "conv1d": "h.0.mlp.c_proj.weight",
}
CONFIGS: Mapping[Layout, dict[str, object]] = {
    "linear": {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2},
    "conv1d": {"model_type": "gpt2", "n_embd": 8, "n_head": 2},
}


def two_folders(
    place: Path, weight: Tensor, edited: Tensor, layout: Layout = "linear"
) -> tuple[Path, Path]:
    """Write W (d_out, d_in) and W″ as two checkpoints, stored as the layout says."""
    folders = []
    for name, matrix in (("base", weight), ("edited", edited)):
        stored = matrix if layout == "linear" else matrix.T.contiguous()
        folders.append(with_config(write_folder(place / name, {NAMES[layout]: stored}), layout))
    return folders[0], folders[1]


def with_config(folder: Path, layout: Layout = "linear") -> Path:
    """Give a folder a configuration of which transformers can make a model."""
    sizes = {"num_hidden_layers": 3, "vocab_size": 8}
    (folder / "config.json").write_text(json.dumps({**CONFIGS[layout], **sizes}))
    return folder
