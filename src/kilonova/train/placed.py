"""A decoder as a run computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from kilonova.data.packing import Batch
from kilonova.models.decoder.model import Decoder
from kilonova.nn.cross_entropy import linear_cross_entropy
from kilonova.train.memory.policy import apply_memory_policy
from kilonova.train.memory.section import ActivationMemory
from kilonova.train.parallel.context import (
    ContextParallelAttention,
    gather_positions,
    local_positions,
    sum_over_context,
)
from kilonova.train.parallel.expert import apply_expert_parallel
from kilonova.train.parallel.mesh import ParallelMesh
from kilonova.train.parallel.sharding import fully_sharded_modules, shard_decoder
from kilonova.train.parallel.tensor import apply_tensor_parallel


class PlacedDecoder:
    """A decoder on its device, computed in `dtype` (under autocast unless float32) and compiled on request.

    Trained and frozen models alike are called through it, so that an objective sees neither devices nor formats nor,
    given a `mesh`, how parameters and positions are spread over ranks: ranks with the same rows get the same results.
    A rank must then call each method as often as all others do, and use `output_weight` only after `hidden_states`.
    What a trained model keeps for its backward pass is `memory`.
    """

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        dtype: torch.dtype,
        compile: bool = False,
        mesh: ParallelMesh | None = None,
        memory: ActivationMemory | None = None,
    ) -> None:
        self.decoder = decoder
        self.device = device
        self.dtype = dtype
        self.compiled = compile
        self._context = mesh["context"] if mesh is not None and mesh.section.context > 1 else None
        if memory is not None:
            apply_memory_policy(decoder, memory.policy, budget=memory.budget, sequence_length=memory.sequence_length)
        self._hidden_states = _prepare(decoder, device, dtype, compile, mesh)

    @property
    def output_weight(self) -> Tensor:
        """The output projection `[vocab, hidden]`."""
        weight = self.decoder.lm_head.weight
        return weight.full_tensor() if isinstance(weight, DTensor) else weight

    def hidden_states(self, batch: Batch) -> Tensor:
        """Final hidden states `[B, T, hidden]` of a batch that is on the device."""
        with self.autocast(), self._sharded_again():
            if self._context is None:
                return self._hidden_states(batch.input_ids, document_ids=batch.document_ids)
            return gather_positions(self._local_hidden_states(batch, self._context), self._context)

    def cross_entropy(self, batch: Batch) -> Tensor:
        """Cross-entropy of the next token, summed over the labels of a batch that is on the device.

        What `linear_cross_entropy` makes of `hidden_states`, with positions and vocabulary left where they are.
        """
        labels = batch.labels
        with self.autocast(), self._sharded_again():
            if self._context is None:
                hidden = self._hidden_states(batch.input_ids, document_ids=batch.document_ids)
            else:
                hidden = self._local_hidden_states(batch, self._context)
                labels = labels[:, self._local_positions(batch, self._context)]
            weight = self.decoder.lm_head.weight
            group = None
            if isinstance(weight, DTensor):
                group = weight.device_mesh.get_group()
                weight = weight.to_local()
            total = linear_cross_entropy(
                hidden.flatten(0, 1), weight, labels.flatten(), compiled=self.compiled, vocabulary_group=group
            )
        return total if self._context is None else sum_over_context(total, self._context)

    def autocast(self) -> AbstractContextManager[object]:
        """The number format of the run, for arithmetic on hidden states outside the decoder."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @contextmanager
    def _sharded_again(self) -> Iterator[None]:
        """Free at the end what FSDP2 keeps gathered for a backward pass when there will be none.

        Whoever lists the decoder's parameters then always finds the sharded ones.
        """
        yield
        if not torch.is_grad_enabled():
            for group in fully_sharded_modules(self.decoder):
                group.reshard()

    def _local_hidden_states(self, batch: Batch, ranks: DeviceMesh) -> Tensor:
        positions = self._local_positions(batch, ranks)
        return self._hidden_states(
            batch.input_ids[:, positions],
            position_ids=positions,
            attend=ContextParallelAttention(ranks, batch.document_ids),
        )

    def _local_positions(self, batch: Batch, ranks: DeviceMesh) -> Tensor:
        length = batch.input_ids.shape[1]
        return local_positions(length, ranks.get_local_rank(), ranks.size()).to(batch.input_ids.device)


def _prepare(
    decoder: Decoder, device: torch.device, dtype: torch.dtype, compile: bool, mesh: ParallelMesh | None
) -> Callable[..., Tensor]:
    """Change `decoder` in place into what the run computes, and return its `hidden_states`.

    The order matters: adapters are already in their places, tensor and expert parallelism replace parameters, and
    FSDP2 takes what is then there, outside of what is compiled.
    """
    if mesh is None:
        decoder.to(device)
        return torch.compile(decoder.hidden_states, dynamic=False) if compile else decoder.hidden_states
    if mesh.section.tensor > 1:
        apply_tensor_parallel(decoder, mesh)
    if mesh.section.expert > 1:
        apply_expert_parallel(decoder, mesh)
    if compile:
        for layer in decoder.model.layers:
            layer.compile(dynamic=False)
    shard_decoder(decoder, mesh, dtype)
    return decoder.hidden_states
