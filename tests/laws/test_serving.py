"""A patch beside the weights, as an adapter, or in the weights: the same model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from patchkit.export import export
from patchkit.export.peft import read
from patchkit.factors.action import Factor, dense
from patchkit.factors.additive import Additive
from patchkit.factors.rotation import Rotation
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.parts import tensor_bytes
from patchkit.patch.patch import Patch, build_patch
from patchkit.runtime import attached
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.layout import locate, sites
from patchkit.tensors.torch_dtypes import dtype_name
from tests.unit.models.factory import tiny
from tests.unit.runtime.samples import logits, written

SIZES = {"llama2": "intermediate_size", "gpt2": "n_inner"}
HALF = {torch.float32: 0.0, torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}


@dataclass(frozen=True)
class Case:
    """A model of random sizes in some type, and a stack of random patches for it."""

    model: PreTrainedModel
    stack: list[Patch]


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype) -> Case:
    architecture = draw(st.sampled_from(sorted(SIZES)))
    inner = draw(st.sampled_from([24, 48, 80]))
    model = tiny(architecture, draw(st.integers(0, 9)), **{SIZES[architecture]: inner}).to(dtype)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    chosen = draw(st.lists(st.sampled_from(sites(model)), min_size=1, max_size=3, unique=True))

    def factor(d_out: int, d_in: int) -> Factor:
        kind = draw(st.sampled_from(["input", "output", "additive"]))
        if kind == "additive":
            tall = torch.randn(d_out, 2, generator=generator) / 8
            return Additive(tall, torch.randn(2, d_in, generator=generator) / 8)
        size = d_in if kind == "input" else d_out
        rank = draw(st.integers(1, size // 4))
        x, y = torch.randn(2, size, rank, generator=generator) / size**0.5
        return Rotation("input" if kind == "input" else "output", x, y)

    def patch() -> Patch:
        drafts = {}
        for site in chosen:
            weight = model.get_submodule(site.module).weight
            assert isinstance(weight, torch.Tensor)
            count = draw(st.integers(1, 2))
            factors = [factor(site.d_out, site.d_in) for _ in range(count)]
            kind, digest = dtype_name(weight.dtype), bytes_digest(tensor_bytes(weight))
            drafts[site.tensor] = TensorDraft(site.shape, kind, site.layout, digest, factors)
        return build_patch(BaseMeta(), drafts, None, {}, "law", {})

    return Case(model, [patch() for _ in range(draw(st.integers(1, 3)))])


@pytest.mark.parametrize("dtype", list(HALF), ids=str)
@settings(max_examples=12)
@given(data=st.data())
def test_attaching_answers_as_applying(dtype: torch.dtype, data: st.DataObject) -> None:
    """Within the type: fp32 to rounding, half types as near to fp32 as applied weights are."""
    case = data.draw(cases(dtype))
    base = logits(case.model)
    with attached(case.model, case.stack):
        found = logits(case.model).float()
    with written(case.model, case.stack):
        applied = logits(case.model).float()
    assert torch.equal(logits(case.model), base)
    if dtype == torch.float32:
        assert float((found - applied).norm()) <= 1e-4 * float(applied.norm())
        return
    with written(case.model.float(), case.stack):
        exact = logits(case.model)
    own = float((applied - exact).norm())
    assert float((found - exact).norm()) <= 3 * own + HALF[dtype] * float(exact.norm())


@settings(max_examples=12)
@given(data=st.data())
def test_an_exported_adapter_is_the_change_of_the_weights(data: st.DataObject) -> None:
    """Its product is W′ − W of the whole stack in fp64, to what fp32 factors can hold."""
    case = data.draw(cases(torch.float32))
    with TemporaryDirectory() as name:
        place = Path(name)
        case.model.save_pretrained(place / "base")
        files = [place / f"{i}.patch.safetensors" for i in range(len(case.stack))]
        for file, patch in zip(files, case.stack, strict=True):
            patch.write(file)
        export(place / "base", files, place / "lora")
        found = read(place / "lora")
    for tensor, site in locate(case.model, case.stack[0].factors).items():
        weight = case.model.get_submodule(site.module).weight.double()
        factors = [factor for patch in case.stack for factor in patch.factors[tensor]]
        change = dense(weight, factors, site.layout) - weight
        change = change if site.layout == "linear" else change.T
        low = found[site.module]
        assert float((low.up @ low.down - change).norm()) <= 1e-6 * float(
            change.norm() + weight.norm()
        )
