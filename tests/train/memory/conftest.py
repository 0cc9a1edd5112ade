"""Small decoders of every layout, and what they keep for a backward pass, counted without knowing how."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder

VOCAB_SIZE = 97
_EXPERTS = {"model_type": "qwen3_moe", "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "attention_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 7},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3"},
    "qwen3_moe": {**_EXPERTS, "norm_topk_prob": True},
    "qwen3_moe-mixed": {**_EXPERTS, "mlp_only_layers": [0], "use_sliding_window": True, "sliding_window": 9},
}
_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    # No multiple of the 32 values that share a scale in ssc8 where they can.
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}


def decoder(layout: str, **changes: Any) -> Decoder:
    """Random weights, the same for the same arguments, that make all parts of a layer matter."""
    model = Decoder(DecoderConfig.from_hf({**_SHAPE, **LAYOUTS[layout], **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(offset + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def packed_rows(length: int) -> tuple[Tensor, Tensor]:
    """Two rows of several documents: token and document ids `[2, length]`."""
    ids = torch.randint(VOCAB_SIZE, (2, length), generator=torch.Generator().manual_seed(length))
    return ids, (torch.arange(length) // 11).expand(2, -1)


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make inside, and how much of them is still there."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._made[StorageWeakRef(storage)] = storage.nbytes()
        return result

    def alive(self, *besides: Tensor) -> int:
        given = {StorageWeakRef(tensor.untyped_storage()) for tensor in besides}
        return sum(size for storage, size in self._made.items() if storage not in given and not storage.expired())


class PeakBytes(LiveBytes):
    """Notes the most that was there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(function, types, args, kwargs)
        self.peak = max(self.peak, self.alive())
        return result
