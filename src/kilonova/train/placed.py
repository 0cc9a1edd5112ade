"""A decoder as a run computes it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from kilonova.data.packing import Batch
from kilonova.models.decoder.model import Decoder


class PlacedDecoder:
    """A decoder on its device, computed in `dtype` (under autocast unless float32) and compiled on request.

    Trained and frozen models alike are called through it, so that an objective sees neither devices nor formats.
    """

    def __init__(self, decoder: Decoder, device: torch.device, dtype: torch.dtype, compile: bool = False) -> None:
        self.decoder = decoder.to(device)
        self.device = device
        self.dtype = dtype
        self.compiled = compile
        self._hidden_states = torch.compile(decoder.hidden_states, dynamic=False) if compile else decoder.hidden_states

    @property
    def output_weight(self) -> Tensor:
        """The output projection `[vocab, hidden]`."""
        return self.decoder.lm_head.weight

    def hidden_states(self, batch: Batch) -> Tensor:
        """Final hidden states `[B, T, hidden]` of a batch that is on the device."""
        with self.autocast():
            return self._hidden_states(batch.input_ids, document_ids=batch.document_ids)

    def autocast(self) -> AbstractContextManager[object]:
        """The number format of the run, for arithmetic on hidden states outside the decoder."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)
