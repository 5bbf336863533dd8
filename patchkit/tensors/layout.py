"""Which matrices of a model can be edited, found from the model itself.

An editable matrix is the output projection of a decoder layer's MLP: its input is the key, its
output the value. One small table says where each architecture keeps its parts; everything else
(shapes, storage layout, bias) is read off the modules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from patchkit.errors import BaseMismatch, UnsupportedModel

if TYPE_CHECKING:
    from patchkit.tensors.checkpoint import Checkpoint

Layout = Literal["linear", "conv1d"]


@dataclass(frozen=True, slots=True)
class Site:
    """One editable matrix: where it is in the model, and where in the checkpoint.

    `layout` says how the matrix is stored: `linear` as (d_out, d_in), `conv1d` as (d_in, d_out).
    """

    layer: int
    module: str
    tensor: str
    layout: Layout
    d_in: int
    d_out: int
    has_bias: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The stored shape."""
        linear = self.layout == "linear"
        return (self.d_out, self.d_in) if linear else (self.d_in, self.d_out)


@dataclass(frozen=True, slots=True)
class _Family:
    """Where an architecture keeps its decoder: paths from the model, `down` from one layer."""

    trunk: str
    layers: str
    down: str
    tail: tuple[str, ...]


_LLAMA = _Family("model", "layers", "mlp.down_proj", ("norm",))
_GEMMA3 = _Family("model.language_model", "layers", "mlp.down_proj", ("norm",))
_FAMILIES: Mapping[str, _Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3"), _LLAMA),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), _LLAMA),
    "gemma3": _GEMMA3,
    "gpt2": _Family("transformer", "h", "mlp.c_proj", ("ln_f",)),
    "gptj": _Family("transformer", "h", "mlp.fc_out", ("ln_f",)),
    "gpt_neox": _Family("gpt_neox", "layers", "mlp.dense_4h_to_h", ("final_layer_norm",)),
    "opt": _Family("model.decoder", "layers", "fc2", ("final_layer_norm", "project_out")),
}
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def sites(
    model: PreTrainedModel, checkpoint: Checkpoint | None = None, *, quantised: bool = False
) -> tuple[Site, ...]:
    """List the editable matrices of `model`, first layer first.

    With `checkpoint`, tensor names are those of its files, which may lack or add a prefix, and
    shapes are compared; without, they are the names of the model's own parameters. Weights that
    are quantised can be looked at only if `quantised`. Raises UnsupportedModel (no such
    architecture, or a module is missing) and BaseMismatch (the checkpoint has no tensor, several
    tensors, or another shape for a site).
    """
    family = _family(model)
    found = tuple(_site(model, family, index, quantised) for index in range(len(blocks(model))))
    if checkpoint is None:
        return found
    names = _by_tail(found, checkpoint.tensors)
    shapes = {name: tuple(checkpoint.tensors[name].info.shape) for name in names.values()}
    return tuple(_stored(site, names, shapes) for site in found)


def locate(
    model: PreTrainedModel, tensors: Iterable[str], *, quantised: bool = False
) -> dict[str, Site]:
    """Find the site that each checkpoint tensor name stands for; `quantised` as in `sites`.

    Raises UnsupportedModel when a name belongs to no editable matrix of `model`.
    """
    wanted = tuple(tensors)
    found = sites(model, quantised=quantised)
    names = {name: site for site, name in _by_tail(found, wanted).items()}
    for name in wanted:
        if name not in names:
            last = found[-1].module
            raise UnsupportedModel(
                f"{name} is not an editable matrix of this {model.config.model_type} model, "
                f"whose last one is {last}.weight",
                hint="patchkit inspect PATCH shows which base the patch was made for",
            )
    return {name: names[name] for name in wanted}


def blocks(model: PreTrainedModel) -> list[nn.Module]:
    """Give the decoder layers, first to last."""
    family = _family(model)
    layers = _module(model, f"{family.trunk}.{family.layers}")
    return list(cast(nn.ModuleList, layers))


def last_mlp(model: PreTrainedModel) -> nn.Module | None:
    """Give the last layer's MLP, None where its parts lie in the layer itself."""
    name, inside, _ = _family(model).down.rpartition(".")
    return blocks(model)[-1].get_submodule(name) if inside else None


def trunk(model: PreTrainedModel) -> nn.Module:
    """Give the decoder: token ids in, hidden states after `final_norm` out, no vocabulary."""
    return _module(model, _family(model).trunk)


def final_norm(model: PreTrainedModel) -> nn.Module:
    """Give what lies between the last decoder layer and the head, usually one norm."""
    family = _family(model)
    decoder = _module(model, family.trunk)
    parts = [getattr(decoder, name, None) for name in family.tail]
    present = [part for part in parts if part is not None]
    return present[0] if len(present) == 1 else nn.Sequential(*present)


def head(model: PreTrainedModel) -> nn.Module:
    """Give the projection to the vocabulary; UnsupportedModel when the model has none."""
    found: nn.Module | None = cast(Any, model).get_output_embeddings()
    if found is None:
        raise UnsupportedModel(
            f"looked for a language-model head in {type(model).__name__} and found none",
            hint="load the base with transformers.AutoModelForCausalLM",
        )
    return found


def embed(model: PreTrainedModel) -> nn.Module:
    """Give the token embedding."""
    found: nn.Module = cast(Any, model).get_input_embeddings()
    return found


def readout(model: PreTrainedModel, normed: torch.Tensor) -> torch.Tensor:
    """Turn hidden states after `final_norm` (..., d) into logits (..., vocabulary)."""
    logits = cast(torch.Tensor, head(model)(normed))
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _family(model: PreTrainedModel) -> _Family:
    kind = str(getattr(model.config, "model_type", ""))
    experts = _experts(model)
    if experts:
        raise UnsupportedModel(
            f"{kind} is a mixture of experts ({experts}); "
            "only models with one MLP per layer can be edited",
            details={"model_type": kind},
        )
    if kind not in _FAMILIES:
        raise UnsupportedModel(
            f"looked for the MLP output projection of {type(model).__name__} and do not know "
            f"where architecture {kind!r} keeps it",
            hint="supported: " + ", ".join(sorted(_FAMILIES)),
            details={"model_type": kind},
        )
    return _FAMILIES[kind]


def _experts(model: PreTrainedModel) -> str | None:
    config = model.config.get_text_config()
    for key in _EXPERT_COUNTS:
        if (getattr(config, key, None) or 0) > 1:
            return f"{key} = {getattr(config, key)}"
    return None


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise UnsupportedModel(
            f"looked for module {path} in {type(model).__name__} and it is not there",
            hint="load the base with transformers.AutoModelForCausalLM",
            details={"module": path},
        ) from error


def has_plain_weight(module: nn.Module) -> bool:
    """Whether the weight is a matrix of floating-point numbers, neither packed nor a subclass."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or type(weight.data) is not torch.Tensor:
        return False
    return weight.ndim == 2 and weight.is_floating_point()


def _site(model: PreTrainedModel, family: _Family, layer: int, quantised: bool) -> Site:
    path = f"{family.trunk}.{family.layers}.{layer}.{family.down}"
    module = _module(model, path)
    usable = quantised or has_plain_weight(module)
    if not (usable and isinstance(module, nn.Linear | Conv1D)):
        raise UnsupportedModel(
            f"looked for a Linear or Conv1D with plain weights at {path}, found "
            f"{type(module).__name__}",
            hint="load the base without quantisation or adapters",
            details={"module": path},
        )
    linear = isinstance(module, nn.Linear)
    d_in, d_out = _sizes(module)
    return Site(
        layer=layer,
        module=path,
        tensor=f"{path}.weight",
        layout="linear" if linear else "conv1d",
        d_in=d_in,
        d_out=d_out,
        has_bias=module.bias is not None,
    )


def _sizes(module: nn.Linear | Conv1D) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.nx, module.nf


def _by_tail(found: Collection[Site], names: Iterable[str]) -> dict[Site, str]:
    """Match sites to checkpoint names by what follows the trunk, such as layers.3.mlp.down_proj.

    Prefixes differ (a bare GPT-2 file has none, a multimodal one has others); the tail does not.
    """
    offered = set(names)
    by_tail: dict[str, list[str]] = {}
    for name in offered:
        parts = name.split(".")
        for start in range(len(parts)):
            by_tail.setdefault(".".join(parts[start:]), []).append(name)
    matched: dict[Site, str] = {}
    for site in found:
        candidates = by_tail.get(_tail(site), [])
        if site.tensor in offered:
            matched[site] = site.tensor
        elif len(candidates) == 1:
            matched[site] = candidates[0]
    return matched


def _tail(site: Site) -> str:
    parts = site.tensor.split(".")
    return ".".join(parts[parts.index(str(site.layer)) - 1 :])


def _stored(site: Site, names: Mapping[Site, str], shapes: Mapping[str, tuple[int, ...]]) -> Site:
    name = names.get(site)
    if name is None:
        raise BaseMismatch(
            f"the checkpoint has no tensor for {site.tensor} (looked for one name ending in "
            f"{_tail(site)})",
            details={"expected": site.tensor, "found": None},
        )
    if shapes[name] != site.shape:
        raise BaseMismatch(
            f"{name} is {shapes[name]} in the checkpoint and {site.shape} in the model",
            details={"expected": site.shape, "found": shapes[name]},
        )
    return replace(site, tensor=name)
