"""Where a value is read and moved: behind a block, or at the output of its edited matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from patchkit.editing.beginning import Beginning
from patchkit.editing.capture import capture, module_of
from patchkit.editing.replay import Replay, replay_subjects
from patchkit.editing.rows import Rows
from patchkit.errors import SolveError
from patchkit.tensors.layout import Site, blocks


@dataclass(frozen=True, slots=True)
class Place:
    """The value of `site`'s layer at the subject's last token.

    `stream` means the residual stream behind the block, to which several layers can contribute;
    otherwise it is what the matrix itself gives, bias included.
    """

    model: PreTrainedModel
    site: Site
    stream: bool

    @classmethod
    def behind(cls, model: PreTrainedModel, sites: Sequence[Site]) -> Place:
        """Return the place where `sites`, in order, write together.

        That is the stream behind the last of them, except where the block normalises what its MLP
        gave before adding it: there it is the one matrix's own output. Raises SolveError for
        several layers of such a model.
        """
        post_norm = _normalises_after(blocks(model)[sites[-1].layer])
        if post_norm and len(sites) > 1:
            raise SolveError(
                f"{len(sites)} layers were asked for, and {model.config.model_type} normalises "
                "behind each MLP, so that their outputs do not add up to one value",
                hint="edit one layer, with --layers",
            )
        return cls(model, sites[-1], not post_norm)

    @property
    def wide(self) -> torch.dtype:
        """What values are computed in: fp32, or the model's type where that is wider."""
        return torch.promote_types(self.model.dtype, torch.float32)

    def values(self, rows: Rows) -> Tensor:
        """Return the model's own values (n, d) at the subjects' last tokens, in fp32 or wider."""
        index = torch.arange(rows.count, device=rows.ids.device)
        if self.stream:
            replay = self.replay(rows)
            return _wide(replay.hidden[replay.at(index, rows.last)])
        flow = capture(self.model, rows.ids, rows.mask, [self.site])[self.site.layer]
        return _wide(flow.at(rows.last).values)

    def replay(self, rows: Rows, beginning: Beginning | None = None) -> Replay:
        """Run what comes before the place once, of each row from its subject's last token on."""
        first = self.site.layer + 1 if self.stream else self.site.layer
        return replay_subjects(self.model, rows, first, beginning)

    def again(self, replay: Replay, rows: Rows, kept: Tensor) -> Replay:
        """Replay `rows`, those at `kept` (m,) of the ones that `replay` is of."""
        beginning = replay.beginning
        return self.replay(rows, None if beginning is None else beginning.only(kept))

    def logits(
        self, replay: Replay, rows: Rows, shift: Tensor, where: Tensor, positions: Tensor
    ) -> Tensor:
        """Return logits (p, vocab) at `where`, `positions` with every row's value moved by `shift`.

        `shift` is (n, d) in fp32, one for each of `rows`, and is added at the subject's last token.
        """
        index = torch.arange(rows.count, device=rows.ids.device)

        subjects = replay.at(index, rows.last)

        def moved(values: Tensor) -> Tensor:
            return values.index_put(subjects, shift.to(values.dtype), accumulate=True)

        if self.stream:
            return _wide(replay.logits(where, positions, moved(replay.hidden), narrow=True))

        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            # OPT runs its MLP on rows and positions flattened into one axis.
            return moved(out.reshape(rows.count, -1, out.shape[-1])).reshape(out.shape)

        handle = module_of(self.model, self.site).register_forward_hook(hook)
        try:
            return _wide(replay.logits(where, positions))
        finally:
            handle.remove()


def _wide(values: Tensor) -> Tensor:
    """Return half-precision values in fp32, others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _normalises_after(block: nn.Module) -> bool:
    """Whether a block normalises behind its MLP: Gemma 2 and 3, and OPT 350M behind the sum."""
    before = getattr(block, "do_layer_norm_before", True)
    return hasattr(block, "post_feedforward_layernorm") or not before
