"""Small checkpoints on disk, and patches for them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from patchkit.factors.action import Factor
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, TensorDraft, build_patch
from patchkit.tensors.checkpoint import Checkpoint

D_OUT, D_IN = 12, 20
LINEAR = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)]
CONV = [f"h.{layer}.mlp.c_proj.weight" for layer in range(3)]


def weights(dtype: torch.dtype, *, conv: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Three editable matrices among others."""
    generator = torch.Generator().manual_seed(seed)
    shape = (D_IN, D_OUT) if conv else (D_OUT, D_IN)
    tensors = {"embed.weight": torch.randn(7, D_OUT, generator=generator)}
    for name in CONV if conv else LINEAR:
        tensors[name] = torch.randn(*shape, generator=generator)
        tensors[name.replace("weight", "bias")] = torch.randn(D_OUT, generator=generator)
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def write_folder(folder: Path, tensors: Mapping[str, Tensor], *, shards: int = 1) -> Path:
    """Write a checkpoint as save_pretrained lays it out, with a tokenizer file beside it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 12}')
    (folder / "tokenizer.json").write_text("{}")
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
        return folder
    places = {}
    names = list(tensors)
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[index::shards]}
        save_file(part, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index_json = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_json))
    return folder


def rotation(side: str, size: int, seed: int, rank: int = 2) -> Rotation:
    """A rotation of some tenths of a radian."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, size, rank, generator=generator) / size**0.5
    return Rotation(side, x, y)  # type: ignore[arg-type]


def additive(seed: int, rank: int = 2) -> Additive:
    """An additive factor of the size of the weights."""
    generator = torch.Generator().manual_seed(seed)
    return Additive(
        torch.randn(D_OUT, rank, generator=generator) / 4,
        torch.randn(rank, D_IN, generator=generator) / 4,
    )


def rotation_blocks(side: str, size: int, seed: int, blocks: int = 2) -> RotationBlocks:
    """A rotation in equal blocks of some tenths of a radian."""
    generator = torch.Generator().manual_seed(seed)
    n = size // blocks
    s = torch.randn(blocks, n * (n - 1) // 2, generator=generator) / n
    return RotationBlocks(side, s)  # type: ignore[arg-type]


def additive_dense(seed: int) -> AdditiveDense:
    """A dense sum of a tenth of the size of the weights."""
    generator = torch.Generator().manual_seed(seed)
    return AdditiveDense(torch.randn(D_OUT, D_IN, generator=generator) / 10)


def write_patch(
    path: Path,
    base: Path,
    factors: Mapping[str, Sequence[Factor]],
    *,
    after: Sequence[str] = (),
    layout: str | None = None,
) -> str:
    """Write a patch for a folder; return its digest."""
    checkpoint = Checkpoint.open(base)
    drafts = {}
    for name, ordered in factors.items():
        info = checkpoint.tensor(name).info
        stored = layout or ("conv1d" if "c_proj" in name else "linear")
        shape = (info.shape[0], info.shape[1])
        drafts[name] = TensorDraft(shape, info.dtype, stored, checkpoint.digest(name), ordered)
    meta = BaseMeta(checkpoint.repo, None, checkpoint.config_digest)
    patch: Patch = build_patch(meta, drafts, None, {}, "test", {}, after)
    return patch.write(path)


def torch_tensors() -> dict[str, Tensor]:
    """A few tensors of different types and shapes, one of them empty."""
    return {
        "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "b.weight": torch.arange(4, dtype=torch.int64),
        "c": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.empty(0, 3, dtype=torch.float16),
    }
