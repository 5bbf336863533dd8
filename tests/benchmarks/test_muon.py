"""Muon in float32 against torch's own, which iterates in bfloat16."""

import pytest
import torch

from benchmarks.testbeds.muon import Muon, whitened


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_steps_are_those_of_torch_but_for_bfloat16(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(*shape, generator=draw)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon([ours], 5e-3, weight_decay=0.05)
    torchs = torch.optim.Muon([theirs], 5e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = torch.randn(*shape, generator=draw)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    with torch.no_grad():
        apart = (ours - theirs).abs().max() / (theirs - start).abs().max()
    assert 0 < float(apart) < 0.03


def test_singular_values_are_pushed_towards_one() -> None:
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))
    sizes = torch.linalg.svdvals(whitened(matrix))
    assert 0.6 < float(sizes.min()) < float(sizes.max()) < 1.3
