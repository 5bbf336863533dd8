"""Tokens per second with a patch attached, beside the base and a PEFT LoRA of the same rank.

    python -m benchmarks.runtime --write benchmarks/results/runtime.json

A random Llama of about 100 million parameters; every MLP output projection is edited by one
rotation, whose change has the rank given (twice its planes), and the same change is exported as a
LoRA for the PEFT library. Each round times base, patch and LoRA right after each other, in turning
order, so that a machine which others use too disturbs all three alike; on a CPU it is the
processor's seconds that count, not those on the wall. The figures to look at are the ratios, each
the median over rounds of a ratio within one round. Needs the package peft.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.provenance import commit
from patchkit.export import export
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.parts import tensor_bytes
from patchkit.patch.patch import Patch, TensorDraft, build_patch
from patchkit.runtime import attach
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.layout import sites
from patchkit.tensors.torch_dtypes import dtype_name

KINDS = ("base", "attach", "lora")
Model = Any


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    result = measure(options)
    show(result)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--inner", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=20000)
    parser.add_argument("--prefill", type=int, default=64, help="tokens of one long sequence")
    parser.add_argument("--decode", type=int, default=8, help="sequences that get a token each")
    parser.add_argument("--rounds", type=int, default=30, help="of prefill; five times of decode")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="under torch.compile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, object]:
    model = make_model(options)
    rows = [row for rank in options.ranks for row in one_rank(model, rank, options)]
    return {
        "testbed": f"random llama, d {options.hidden}, d_ff {options.inner}, "
        f"{options.layers} layers",
        "parameters": sum(p.numel() for p in model.parameters()),
        "edited_tensors": options.layers,
        "dtype": options.dtype,
        "compiled": options.compile,
        "rows": rows,
        "clock": "processor" if options.device == "cpu" else "wall",
        "load_average": os.getloadavg()[0],
        "seed": options.seed,
        "threads": torch.get_num_threads(),
        "device": device_name(options.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "commit": commit(),
    }


def make_model(options: argparse.Namespace) -> LlamaForCausalLM:
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        hidden_size=options.hidden,
        intermediate_size=options.inner,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        vocab_size=options.vocabulary,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).to(options.device, getattr(torch, options.dtype))
    return model.eval().requires_grad_(False)


def make_patch(model: LlamaForCausalLM, rank: int, seed: int) -> Patch:
    """One input-side rotation of each matrix, by angles of about 0.3 radians."""
    generator = torch.Generator().manual_seed(seed)
    drafts = {}
    for site in sites(model):
        weight = model.get_submodule(site.module).weight
        x, y = torch.randn(2, site.d_in, rank // 2, generator=generator) / site.d_in**0.5
        drafts[site.tensor] = TensorDraft(
            site.shape,
            dtype_name(weight.dtype),
            site.layout,
            bytes_digest(tensor_bytes(weight)),
            [Rotation("input", 0.3 * x, y)],
        )
    return build_patch(BaseMeta(), drafts, None, {}, "random", {})


def with_lora(model: LlamaForCausalLM, patch: Patch, storage: str) -> Model:
    """A copy of the model under PEFT with the patch as its adapter."""
    with tempfile.TemporaryDirectory(prefix="patchkit-bench-") as folder:
        model.save_pretrained(f"{folder}/base")
        patch.write(f"{folder}/p.patch.safetensors")
        export(f"{folder}/base", [f"{folder}/p.patch.safetensors"], f"{folder}/lora",
               storage="float32" if storage == "float32" else "bfloat16")  # fmt: skip
        wrapped = peft.PeftModel.from_pretrained(twin(model), f"{folder}/lora")
    return wrapped.eval().to(model.dtype)


def twin(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """A copy that shares the weights: where they lie in memory would make a difference, too."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def one_rank(
    model: LlamaForCausalLM, rank: int, options: argparse.Namespace
) -> list[dict[str, object]]:
    patch = make_patch(model, rank, options.seed + 1)
    models: dict[str, Model] = {"base": model, "lora": with_lora(model, patch, options.dtype)}
    models["attach"] = twin(model)
    attach(models["attach"], patch)
    if options.compile:
        models = {kind: torch.compile(models[kind], fullgraph=True) for kind in KINDS}
    shapes = {"prefill": (1, options.prefill), "decode": (options.decode, 1)}
    return [
        {
            "rank": rank,
            "phase": phase,
            "tokens": shape[0] * shape[1],
            **timed(models, shape, options),
        }
        for phase, shape in shapes.items()
    ]


def timed(
    models: dict[str, Model], shape: tuple[int, int], options: argparse.Namespace
) -> dict[str, object]:
    """Seconds of each kind in each round, and medians of ratios within a round."""
    tokens = torch.randint(options.vocabulary, shape).to(options.device)
    with torch.inference_mode():
        logits = {kind: models[kind](tokens).logits for kind in KINDS}
        change = float((logits["lora"] - logits["base"]).abs().max())
        off = float((logits["attach"] - logits["lora"]).abs().max())
        assert off <= 0.05 * change, (off, change)
        # A short pass is disturbed more by whatever else the machine does.
        count = options.rounds * (5 if shape[1] == 1 else 1)
        rounds = [one_round(models, tokens, number) for number in range(count)]
    seconds = {kind: statistics.median(r[kind] for r in rounds) for kind in KINDS}
    return {
        "tokens_per_second": {kind: tokens.numel() / seconds[kind] for kind in KINDS},
        "attach_to_base": median_ratio(rounds, "attach", "base"),
        "lora_to_base": median_ratio(rounds, "lora", "base"),
        "attach_to_lora": median_ratio(rounds, "attach", "lora"),
        "attach_to_lora_quartiles": quartiles(rounds, "attach", "lora"),
        "attach_differs_from_lora": off / change,
        "rounds": count,
    }


def one_round(models: dict[str, Model], tokens: torch.Tensor, number: int) -> dict[str, float]:
    """Seconds of one pass of each, beginning with another one each time."""
    order = KINDS[number % 3 :] + KINDS[: number % 3]
    return {kind: clock(lambda kind=kind: models[kind](tokens), tokens) for kind in order}


def clock(run: Callable[[], object], tokens: torch.Tensor) -> float:
    """Seconds of one pass: of the processor, or on the wall for a GPU."""
    now = time.perf_counter if tokens.is_cuda else time.process_time
    wait = torch.cuda.synchronize if tokens.is_cuda else lambda: None
    wait()
    start = now()
    run()
    wait()
    return now() - start


def median_ratio(rounds: list[dict[str, float]], one: str, two: str) -> float:
    """Ratio of times: above 1, `one` takes longer."""
    return statistics.median(r[one] / r[two] for r in rounds)


def quartiles(rounds: list[dict[str, float]], one: str, two: str) -> list[float]:
    """How far the ratios of single rounds lie apart: a quarter below, half, a quarter above."""
    return [round(q, 3) for q in statistics.quantiles([r[one] / r[two] for r in rounds], n=4)]


def device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.machine() + " CPU"


def show(result: dict[str, Any]) -> None:
    """Print a table of tokens per second and of time ratios."""
    print("| rank | phase | base tok/s | attach tok/s | LoRA tok/s | attach/base | attach/LoRA |")
    print("|---|---|---|---|---|---|---|")
    for row in result["rows"]:
        speed = " | ".join(f"{row['tokens_per_second'][kind]:.0f}" for kind in KINDS)
        print(
            f"| {row['rank']} | {row['phase']} | {speed} "
            f"| {row['attach_to_base']:.3f} | {row['attach_to_lora']:.3f} |"
        )


if __name__ == "__main__":
    main()
