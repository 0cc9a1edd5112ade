"""What each policy of a recipe's `memory` keeps of a decoder layer, what it computes again, and how exact it is.

Bytes are counted in bfloat16, without knowing how a policy works: those that autograd saves (through its own hooks,
each storage once, without parameters) and those of all tensors that are still there after the forward pass. FLOPs are
those of the matrix products of a forward and a backward pass, as torch counts them. Gradients are compared with plain
autograd's in float32, which shows a policy's own error, and in bfloat16, which adds the format's. None of it depends on
the device or on its speed:

    python benchmarks/activation_memory.py [--width 4096] [--length 256] [--weights DIRECTORY] [--json]

The layer is random, Llama 3 8B's at width 4096 and of the same proportions at others. `--weights` also compares
gradients of a trained checkpoint, on text.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.nn.attention import PackedCausalAttention
from kilonova.nn.cross_entropy import linear_cross_entropy
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.memory.policy import apply_memory_policy
from kilonova.train.memory.section import MemoryPolicy

# name: policy, whether the output projection is multiplied again
VARIANTS: dict[str, tuple[MemoryPolicy, bool]] = {
    "none": ("none", False),
    "selective": ("selective", False),
    "full": ("full", False),
    "ssc": ("ssc", False),
    "ssc, o_proj again": ("ssc", True),
    "ssc8": ("ssc8", False),
    "ssc8, o_proj again": ("ssc8", True),
}
LLAMA_LAYERS, LLAMA_VOCABULARY = 32, 128256
_LONG = 10**9
_CHUNK = 32


def shape(width: int) -> DecoderConfig:
    """One layer of Llama 3 8B's proportions; heads stay 128 wide where there are enough."""
    heads = max(4, width // 128)
    return DecoderConfig.from_hf(
        {
            "model_type": "llama",
            "vocab_size": 8,
            "hidden_size": width,
            "intermediate_size": width * 7 // 2,
            "num_hidden_layers": 1,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 4,
            "head_dim": width // heads,
            "max_position_embeddings": 131072,
        }
    )


class Layer(nn.Module):
    """A decoder layer alone, on random inputs of unit size, with weights that keep them so."""

    def __init__(self, config: DecoderConfig, variant: str, dtype: torch.dtype, length: int) -> None:
        super().__init__()
        self.decoder = Decoder(config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.decoder.model.layers.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
                else:
                    parameter.normal_(1.0, 0.1, generator=generator)
        policy, again = VARIANTS[variant]
        apply_memory_policy(self.decoder, policy, sequence_length=_LONG if again else None)
        self.decoder.to(dtype)
        self.x = torch.randn(1, length, config.hidden_size, generator=generator).to(dtype)
        self.direction = torch.randn(self.x.shape, generator=generator).to(dtype)
        cos, sin = self.decoder.model.rotary(torch.arange(length), dtype)
        self.rotary = (cos.unsqueeze(-3), sin.unsqueeze(-3))

    def forward(self) -> Tensor:
        # As in a model, the layer's input is made by an operation that autograd follows.
        x = self.x.detach().requires_grad_() * 1
        return self.decoder.model.layers[0](x, self.rotary, PackedCausalAttention())

    def gradients(self) -> dict[str, Tensor]:
        (self.forward() * self.direction).sum().backward()
        return gradients(self.decoder.model.layers)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    named = module.named_parameters()
    return {name: parameter.grad.float() for name, parameter in named if parameter.grad is not None}


class Storages(TorchDispatchMode):
    """Follows every storage that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._sizes[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, self.alive())
        return result

    def alive(self, *besides: Tensor) -> int:
        """Bytes of those that still exist, without those of given tensors."""
        self._sizes = {storage: size for storage, size in self._sizes.items() if not storage.expired()}
        given = {StorageWeakRef(tensor.untyped_storage()) for tensor in besides}
        return sum(size for storage, size in self._sizes.items() if storage not in given)


@contextmanager
def saved_storages(besides: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Sizes of the storages that autograd saves inside, by address, without those of given tensors."""
    given = {tensor.untyped_storage().data_ptr() for tensor in besides}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def kept(config: DecoderConfig, variant: str, length: int) -> dict[str, float]:
    """Bytes a token: what autograd saves, and what is there after the forward pass."""
    layer = Layer(config, variant, torch.bfloat16, length)
    shared = [layer.x, *layer.parameters(), *layer.rotary]
    with saved_storages(shared) as saved:
        result = layer()
    a_token = sum(saved.values()) / length
    del result, saved
    gc.collect()
    with Storages() as storages:
        result = layer()
    return {"saved": a_token, "held": storages.alive(*shared, result) / length}


def flops(config: DecoderConfig, variant: str, length: int) -> int:
    layer = Layer(config, variant, torch.bfloat16, length)
    with FlopCounterMode(display=False) as counter:
        layer.gradients()
    return counter.get_total_flops()


def loss_head(width: int, chunked: bool) -> float:
    """Bytes a token that the loss takes at its peak, with Llama's ratio of vocabulary to width, in bfloat16.

    It is measured at width 128, where what does not grow with the tokens, such as the gradient of the output
    projection, does not hide the rest, and grows in proportion.
    """
    vocabulary, peaks = LLAMA_VOCABULARY * 128 // 4096, []
    for length in (2 * _CHUNK, 4 * _CHUNK):
        hidden = torch.randn(length, 128, dtype=torch.bfloat16, requires_grad=True)
        weight = torch.randn(vocabulary, 128, dtype=torch.bfloat16, requires_grad=True)
        labels = torch.arange(length) % vocabulary
        with Storages() as storages:
            if chunked:
                loss = linear_cross_entropy(hidden, weight, labels, chunk_size=_CHUNK)
            else:
                loss = nn.functional.cross_entropy((hidden @ weight.t()).float(), labels, reduction="sum")
            loss.backward()
        peaks.append(storages.peak)
    return (peaks[1] - peaks[0]) / (2 * _CHUNK) * width / 128


def trained_errors(directory: str) -> dict[str, dict[str, float]]:
    """Errors of a checkpoint's gradients in float32, on the text of this file."""
    tokenizer = Tokenizer.from_directory(directory)
    ids = torch.tensor([tokenizer.encode(Path(__file__).read_text())[:1024]])
    found = {}
    for policy in ("none", "ssc", "ssc8"):
        decoder = load_decoder(directory, dtype=torch.float32)
        apply_memory_policy(decoder, policy)
        hidden = decoder.hidden_states(ids[:, :-1]).flatten(0, 1)
        linear_cross_entropy(hidden, decoder.lm_head.weight, ids[:, 1:].flatten()).backward()
        found[policy] = gradients(decoder)
    return {policy: error(found[policy], found["none"]) for policy in ("ssc", "ssc8")}


def error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Euclidean distance over length, of all gradients together and of the parameter where it is largest."""
    distances = {name: float((found[name] - right).norm()) for name, right in expected.items()}
    lengths = {name: float(right.norm()) for name, right in expected.items()}
    return {
        "all": sum(value**2 for value in distances.values()) ** 0.5
        / sum(value**2 for value in lengths.values()) ** 0.5,
        "worst": max(distances[name] / lengths[name] for name in lengths),
    }


def measure(width: int, length: int, error_length: int) -> dict[str, Any]:
    """Everything the table shows, and the figures the policies are held to."""
    config = shape(width)
    exact = Layer(config, "none", torch.float32, error_length).gradients()
    policies = {}
    for variant in VARIANTS:
        policies[variant] = {
            **kept(config, variant, length),
            "flops": flops(config, variant, length),
            "error": error(Layer(config, variant, torch.float32, error_length).gradients(), exact),
            "error_bfloat16": error(Layer(config, variant, torch.bfloat16, error_length).gradients(), exact),
        }
    selective = policies["selective"]

    def against_selective(variant: str, prefix: str) -> dict[str, float]:
        found = policies[variant]
        return {
            f"{prefix}ssc_over_selective": found["held"] / selective["held"],
            f"{prefix}extra_flops": found["flops"] / selective["flops"] - 1,
            f"{prefix}gradient_error": found["error"]["all"],
        }

    heads = {"plain": loss_head(width, chunked=False), "chunked": loss_head(width, chunked=True)}
    whole = {
        f"{variant}, {head} loss": LLAMA_LAYERS * policies[variant]["held"] + heads[head]
        for variant, head in (("selective", "plain"), ("selective", "chunked"), ("ssc", "chunked"), ("ssc8", "chunked"))
    }
    return {
        "width": width,
        "length": length,
        "error_length": error_length,
        **against_selective("ssc8", ""),
        **against_selective("ssc", "lossless_"),
        "policies": policies,
        "loss_bytes": heads,
        "whole_model_bytes": whole,
        "whole_model_ssc_over_selective": whole["ssc8, chunked loss"] / whole["selective, plain loss"],
        "lossless_whole_model_ssc_over_selective": whole["ssc, chunked loss"] / whole["selective, plain loss"],
    }


def show(found: dict[str, Any]) -> None:
    width, selective = found["width"], found["policies"]["selective"]
    table = Table(title=f"A layer of width {width}, {found['length']} tokens, in bytes a token / width")
    for heading in ("policy", "saved", "held", "of selective", "FLOPs", "error", "worst", "error, bf16"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for variant, row in found["policies"].items():
        table.add_row(
            variant,
            f"{row['saved'] / width:.2f}",
            f"{row['held'] / width:.2f}",
            f"{row['held'] / selective['held']:.3f}",
            f"{row['flops'] / selective['flops'] - 1:+.1%}",
            *(f"{value:.1e}" for value in (*row["error"].values(), row["error_bfloat16"]["all"])),
        )
    console = Console()
    console.print(table)
    whole = found["whole_model_bytes"]
    table = Table(title=f"{LLAMA_LAYERS} such layers and the loss, KiB a token")
    for heading in ("policy and loss", "KiB", "share"):
        table.add_column(heading, justify="left" if heading == "policy and loss" else "right")
    for name, size in whole.items():
        table.add_row(name, f"{size / 1024:,.0f}", f"{size / whole['selective, plain loss']:.3f}")
    console.print(table)
    for policy, errors in found.get("trained_error", {}).items():
        console.print(
            f"gradients of the checkpoint under {policy}: error {errors['all']:.1e}, worst {errors['worst']:.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4096, help="hidden size of the layer, a multiple of 128")
    parser.add_argument("--length", type=int, default=256, help="tokens in the row")
    parser.add_argument("--error-length", type=int, default=64, help="tokens in the row whose gradients are compared")
    parser.add_argument("--weights", help="the directory of a checkpoint")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    found = measure(arguments.width, arguments.length, arguments.error_length)
    if arguments.weights:
        found["trained_error"] = trained_errors(arguments.weights)
    if arguments.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
