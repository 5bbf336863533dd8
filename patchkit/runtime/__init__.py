"""Patches beside the weights of a running model: its activations are rotated instead.

    handle = attach(model, patch)     # or: with attached(model, patch) as handle: ...
    handle.set_strength(0.5)          # live
    handle.swap(other)                # live, without recompiling
    handle.detach()

Each edited module computes y = W x + b as before and adds U (V x), where U V = W′ − W is exact and
of low rank: for one rotation of the input side V = Bᵀ and U = (W B)(Q − I). That is the cost of a
LoRA of the same rank. The weights are never written, so they may be quantised, tied or offloaded.
"""

from patchkit.runtime.attachment import Attachment, attach, attached

__all__ = ["Attachment", "attach", "attached"]
