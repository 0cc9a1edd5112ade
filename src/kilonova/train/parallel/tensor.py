"""Tensor parallelism: heads and feed-forward columns spread over ranks (arXiv 1909.08053)."""

from __future__ import annotations

from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.nn.mlp import GatedMLP
from kilonova.train.parallel.mesh import ParallelMesh


def apply_tensor_parallel(decoder: Decoder, mesh: ParallelMesh) -> None:
    """Spread the matrices of `decoder` over the ranks of the `tensor` dimension, in place.

    Query, key, value, gate and up projections are cut by rows, output and down projections by columns, embedding and
    output projection by vocabulary; hidden states, norms and mixture-of-experts blocks are the same on all ranks.
    ConfigError for a shape that the dimension does not divide.
    """
    ranks = mesh["tensor"]
    _check(decoder.config, ranks.size())
    trained = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    for layer in decoder.model.layers:
        plan: dict[str, ParallelStyle] = {
            "self_attn.q_proj": ColwiseParallel(),
            "self_attn.k_proj": ColwiseParallel(),
            "self_attn.v_proj": ColwiseParallel(),
            "self_attn.o_proj": RowwiseParallel(),
        }
        if decoder.config.qk_norm:
            # Every head shares the norm's weight: each rank has a part of its gradient.
            plan["self_attn.q_norm"] = plan["self_attn.k_norm"] = SequenceParallel(
                sequence_dim=2, use_local_output=True
            )
        if isinstance(layer.mlp, GatedMLP):
            plan["mlp.gate_proj"] = plan["mlp.up_proj"] = ColwiseParallel()
            plan["mlp.down_proj"] = RowwiseParallel()
        parallelize_module(layer, ranks, plan, src_data_rank=None)
    parallelize_module(
        decoder,
        ranks,
        {"model.embed_tokens": RowwiseParallel(input_layouts=Replicate()), "lm_head": ColwiseParallel()},
        src_data_rank=None,
    )
    if decoder.config.tie_word_embeddings:
        decoder.lm_head.weight = decoder.model.embed_tokens.weight
    # Replicated parameters, such as those of norms, come back as trained ones.
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(name in trained)


def _check(config: DecoderConfig, size: int) -> None:
    sizes = {
        "num_key_value_heads": config.num_key_value_heads,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
    }
    for name, value in sizes.items():
        if value % size:
            raise ConfigError(f"parallel.tensor: {size} does not divide the model's {name} {value}")
