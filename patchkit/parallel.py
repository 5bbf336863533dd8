"""Several processes that work on one task, each with its own copy of the model.

Every process computes the same program and does its share of what is expensive: rows of text,
facts, questions. What the shares give is added up over the processes, so that all of them go on
with the same numbers. Adding is the one thing that processes ever say to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workers:
    """One process as one of `count`; the first has `rank` 0. By default there is no other."""

    rank: int = 0
    count: int = 1

    @classmethod
    def of_group(cls) -> Workers:
        """Return this process as a member of PyTorch's default process group."""
        from torch import distributed

        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Return what this process does of `items`: every `count`-th one from its rank on."""
        return list(items[self.rank :: self.count])

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up the tensors of all processes in place; alone, nothing happens."""
        if self.count > 1:
            from torch import distributed

            distributed.all_reduce(tensor)
        return tensor

    def same(self, tensor: Tensor) -> Tensor:
        """Return the first process's tensor in every process; all must have its shape and type."""
        if self.count == 1:
            return tensor
        return self.sum(tensor.clone() if self.first else tensor.new_zeros(tensor.shape))

    def agree(self, yes: bool) -> bool:
        """Return whether every process says yes."""
        if self.count == 1:
            return yes
        import torch
        from torch import distributed

        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        return int(self.sum(torch.tensor(int(yes), device=device))) == self.count


ALONE = Workers()
"""The one process there is."""
