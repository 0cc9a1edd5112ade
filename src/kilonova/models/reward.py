"""A decoder that scores conversations instead of continuing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kilonova.models.checkpoint import read_model, write_model
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder, DecoderStack
from kilonova.nn.attention import PackedCausalAttention


class RewardModel(nn.Module):
    """A decoder's layers under a linear head with one output and no bias, the score at each position.

    Its parameter names are those of transformers' `...ForSequenceClassification`. The reward of a conversation is the
    score at its last token. The weights are of no use until `from_decoder` or a checkpoint fills them.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = DecoderStack(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    @classmethod
    def from_decoder(cls, decoder: Decoder, generator: torch.Generator | None = None) -> RewardModel:
        """A reward model that shares the layers of `decoder`, under a head drawn with its `initializer_range`."""
        with torch.device("meta"):
            model = cls(decoder.config)
        model.model = decoder.model
        weight = torch.empty(1, decoder.config.hidden_size)
        weight.normal_(std=decoder.config.initializer_range, generator=generator)
        like = decoder.model.embed_tokens.weight
        model.score.weight = nn.Parameter(weight.to(like.device, like.dtype))
        return model

    def hidden_states(self, input_ids: Tensor, *, document_ids: Tensor | None = None) -> Tensor:
        """Final hidden states `[B, T, hidden]` of `input_ids` `[B, T]`; `document_ids` keeps packed documents apart."""
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.model(input_ids, position_ids, PackedCausalAttention(document_ids))

    def forward(self, input_ids: Tensor, *, document_ids: Tensor | None = None) -> Tensor:
        """The score `[B, T]` at every position of `input_ids` `[B, T]`; `document_ids` keeps packed documents apart."""
        return self.score(self.hidden_states(input_ids, document_ids=document_ids)).squeeze(-1)


def last_positions(document_ids: Tensor, num_documents: int) -> Tensor:
    """Where each document of packed rows ends, int64 `[B, num_documents]`; 0 for a number that a row lacks.

    `document_ids` is `[B, T]`; documents of a row are numbered from 0, and -1 marks padding.
    """
    positions = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    last = torch.zeros(len(document_ids), num_documents + 1, dtype=torch.long, device=document_ids.device)
    columns = torch.where(document_ids < 0, num_documents, document_ids)
    return last.scatter_reduce(1, columns, positions, reduce="amax")[:, :-1]


def document_rewards(scores: Tensor, document_ids: Tensor, num_documents: int) -> Tensor:
    """The reward `[B, num_documents]` of each document of packed rows: the score (of `[B, T]`) at its last position."""
    return scores.gather(1, last_positions(document_ids, num_documents))


def load_reward_model(
    directory: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> RewardModel:
    """The reward model stored in a Hugging Face `directory`; as `load_decoder`, errors included."""
    return read_model(Path(directory), RewardModel, dtype, device).to(device).eval()


def save_reward_model(
    model: RewardModel, directory: str | Path, max_shard_bytes: int = 16 * 2**20, dtype: torch.dtype | None = None
) -> None:
    """Write `model` in the layout that transformers' `AutoModelForSequenceClassification` opens; as `save_decoder`."""
    config: dict[str, Any] = model.config.to_hf()
    (architecture,) = config["architectures"]
    config |= {
        "architectures": [architecture.replace("ForCausalLM", "ForSequenceClassification")],
        "num_labels": 1,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
    }
    write_model(model, directory, config, {}, max_shard_bytes, dtype or model.score.weight.dtype)
