"""Reward models, against transformers' sequence classification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kilonova.core.errors import CheckpointError
from kilonova.models.checkpoint import load_decoder
from kilonova.models.reward import RewardModel, document_rewards, load_reward_model, save_reward_model


def reward_model(directory: Path) -> RewardModel:
    return RewardModel.from_decoder(load_decoder(directory), torch.Generator().manual_seed(3)).eval()


def test_transformers_opens_every_layout_and_scores_equally(reference, tmp_path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = reward_model(reference.directory)
    model.config = type(model.config)(**{**vars(model.config), "pad_token_id": 0})
    save_reward_model(model, tmp_path / "reward", max_shard_bytes=20_000)
    theirs, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    assert theirs.config.num_labels == 1
    input_ids = reference.input_ids.clamp_min(1)
    padded = torch.cat((input_ids, input_ids.roll(1, 1)))
    padded[1, 25:] = 0
    with torch.no_grad():
        expected = theirs(padded, attention_mask=(padded != 0).long()).logits.squeeze(1)
        ours = load_reward_model(tmp_path / "reward")(padded)
    torch.testing.assert_close(ours[[0, 1], [-1, 24]], expected, rtol=1e-4, atol=1e-4)


def test_saved_and_loaded_model_is_the_same(make_reference, tmp_path) -> None:
    reference = make_reference("qwen3_moe-normalised")
    model = reward_model(reference.directory)
    save_reward_model(model, tmp_path / "reward")
    again = load_reward_model(tmp_path / "reward")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert torch.equal(model(reference.input_ids), again(reference.input_ids))
    assert not (tmp_path / "reward/generation_config.json").exists()
    assert json.loads((tmp_path / "reward/config.json").read_text())["architectures"] == [
        "Qwen3MoeForSequenceClassification"
    ]


def test_the_layers_are_those_of_the_decoder_and_packing_changes_nothing(make_reference) -> None:
    reference = make_reference("qwen2-sliding-yarn")
    decoder = load_decoder(reference.directory)
    model = RewardModel.from_decoder(decoder)
    assert model.model.embed_tokens.weight is decoder.model.embed_tokens.weight
    tokens = reference.input_ids
    documents = torch.full_like(tokens, -1)
    documents[:, :11], documents[:, 11:30] = 0, 1
    with torch.no_grad():
        packed = document_rewards(model(tokens, document_ids=documents), documents, 2)
        alone = torch.stack([model(tokens[:, :11])[:, -1], model(tokens[:, 11:30])[:, -1]], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_a_language_model_is_not_taken_for_a_reward_model_or_the_reverse(make_reference, tmp_path) -> None:
    reference = make_reference("llama")
    with pytest.raises(CheckpointError, match=r"missing: score\.weight; unexpected: lm_head\.weight"):
        load_reward_model(reference.directory)
    save_reward_model(reward_model(reference.directory), tmp_path / "reward")
    with pytest.raises(CheckpointError, match=r"unexpected: score\.weight"):
        load_decoder(tmp_path / "reward")
