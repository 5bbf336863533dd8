"""Adapters in the layout of the PEFT library, which vLLM and transformers read too."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from patchkit.errors import UnsupportedModel
from patchkit.export.adapter import Adapter, Storage, matrices
from patchkit.factors.lowrank import LowRank
from patchkit.tensors.rewrite import staged_folder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank can be."""

_PREFIX = "base_model.model."


def vllm_rank(rank: int) -> int | None:
    """Return the least --max-lora-rank of vLLM that an adapter needs, None above all of them."""
    return next((most for most in VLLM_RANKS if most >= rank), None)


def write(adapter: Adapter, out: Path, storage: Storage, *, overwrite: bool) -> None:
    """Write the folder whole or not at all; OutputError if it cannot be written."""
    tensors = {}
    for layer in adapter.layers:
        name = f"{_PREFIX}{layer.site.module}"
        a, b = matrices(layer, storage)
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
    config = json.dumps(_config(adapter), indent=2, sort_keys=True) + "\n"
    with staged_folder(out, overwrite=overwrite) as folder:
        (folder / CONFIG).write_text(config, encoding="utf-8")
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def read(folder: Path) -> dict[str, LowRank]:
    """Return each module's change in fp64, scaled as PEFT scales it, by its path in the model."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    tensors = load_file(folder / WEIGHTS)
    return {
        module: LowRank(
            scale * tensors[f"{_PREFIX}{module}.lora_B.weight"].double(),
            tensors[f"{_PREFIX}{module}.lora_A.weight"].double(),
        )
        for module in config["target_modules"]
    }


def _config(adapter: Adapter) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.repo,
        "revision": adapter.revision,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": _layout(adapter) == "conv1d",
        # Whole paths: a short name would also match the layers that are not edited.
        "target_modules": [layer.site.module for layer in adapter.layers],
        "modules_to_save": None,
    }


def _layout(adapter: Adapter) -> str:
    layouts = {layer.site.layout for layer in adapter.layers}
    if len(layouts) > 1:
        raise UnsupportedModel("a PEFT adapter has one storage layout, and the base has two")
    return layouts.pop()
