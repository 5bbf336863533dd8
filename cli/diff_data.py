"""The three comparisons of `patchkit diff` as JSON holds them."""

from dataclasses import asdict
from math import degrees
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchkit.diff import AppliedDiff, CheckpointDiff, PatchDiff, TensorDiff
    from patchkit.facts.fact import Fact


def patch_data(found: "PatchDiff") -> dict[str, object]:
    """Two patches."""
    facts = found.facts
    return {
        "kind": "patches",
        "equal": found.equal,
        "digests": found.digests,
        "same_base": found.same_base,
        "bases": found.bases,
        "same_after": found.same_after,
        "facts": {
            "compared": facts.compared,
            "same": facts.same,
            "added": [_fact(fact) for fact in facts.added],
            "removed": [_fact(fact) for fact in facts.removed],
            "changed": [
                {**_fact(one), "target": (one.target, two.target)} for one, two in facts.changed
            ],
            "other_details": facts.other_details,
        },
        "tensors": [_tensor_data(tensor) for tensor in found.tensors],
    }


def _fact(fact: "Fact") -> dict[str, object]:
    return {"subject": fact.subject, "prompt": fact.prompt, "target": fact.target}


def _tensor_data(tensor: "TensorDiff") -> dict[str, object]:
    return {
        "name": tensor.name,
        "status": tensor.status,
        "same_base": tensor.same_base,
        "sums": tensor.sums,
        "sums_distance": tensor.sums_distance,
        "sides": [
            {
                "side": side.side,
                "planes": side.planes,
                "max_angle_deg": side.max_angle and [degrees(angle) for angle in side.max_angle],
                "geodesic": side.geodesic,
                "principal_deg": side.principal and [degrees(angle) for angle in side.principal],
                "commutator": side.commutator,
            }
            for side in tensor.sides
        ],
    }


def applied_data(found: "AppliedDiff") -> dict[str, object]:
    """A patch and a checkpoint."""
    return {
        "kind": "patch-checkpoint",
        "equal": found.verdict == "applied",
        "verdict": found.verdict,
        "digest": found.digest,
        "lock": found.lock,
        "place": found.place,
        "tensors": [asdict(tensor) for tensor in found.tensors],
    }


def checkpoint_data(found: "CheckpointDiff") -> dict[str, object]:
    """Two checkpoints."""
    return {
        "kind": "checkpoints",
        "equal": found.equal,
        "same_config": found.same_config,
        "tensors_total": found.tensors,
        "shards": found.shards,
        "shards_changed": found.shards_changed,
        "known_patches": found.known,
        "unexplained": len(found.unexplained),
        "tensors": [asdict(change) for change in found.changes],
    }
