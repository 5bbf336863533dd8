"""Attached patches under torch.compile: no graph break, and no recompiling for a change."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from patchkit.runtime import attach
from tests.unit.models.factory import tiny
from tests.unit.runtime.samples import close, expected, logits, thin_patch


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch._dynamo.reset()


def compiled(model: torch.nn.Module) -> tuple[Any, CompileCounter]:
    counter = CompileCounter()
    return torch.compile(model, backend=counter, fullgraph=True), counter


@pytest.mark.parametrize(
    ("architecture", "depth"), [("llama2", "num_hidden_layers"), ("gpt2", "n_layer")]
)
def test_changes_recompile_nothing(architecture: str, depth: str) -> None:
    model = tiny(architecture, **{depth: 1})
    one, two = thin_patch(model, 1), thin_patch(model, 2)
    wanted = [expected(model, one), expected(model, two), expected(model, two, strength=0.5)]
    handle = attach(model, one)
    fast, counter = compiled(model)
    assert close(logits(fast), wanted[0])
    assert counter.frame_count == 1
    handle.swap(two)
    assert close(logits(fast), wanted[1])
    handle.set_strength(0.5)
    assert close(logits(fast), wanted[2])
    assert counter.frame_count == 1


def test_what_was_compiled_before_notices_both_ends() -> None:
    model = tiny("llama2", num_hidden_layers=1)
    patch = thin_patch(model)
    base, wanted = logits(model), expected(model, patch)
    fast, counter = compiled(model)
    assert close(logits(fast), base)
    handle = attach(model, patch)
    assert close(logits(fast), wanted)
    assert counter.frame_count == 2
    handle.detach()
    assert close(logits(fast), base)
    assert counter.frame_count == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own making, while it loads its compiler
def test_the_default_compiler_gives_the_same() -> None:
    model = tiny("llama2", num_hidden_layers=1)
    patch = thin_patch(model)
    wanted = expected(model, patch), expected(model, patch, strength=0.5)
    handle = attach(model, patch)
    fast: Any = torch.compile(model, fullgraph=True)
    assert close(logits(fast), wanted[0])
    handle.set_strength(0.5)
    assert close(logits(fast), wanted[1])
