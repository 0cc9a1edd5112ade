"""A small recipe for training a flow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from tests.data.pictures.discs import write_discs

from kilonova.models.autoencoder.config import ImageAutoencoderConfig
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import save_component


@pytest.fixture
def recipe(tmp_path: Path, tiny_tokenizer_directory: Path) -> Path:
    """Sixty steps of a tiny U-ViT on six discs."""
    write_discs(tmp_path / "discs.parquet")
    autoencoder = ImageAutoencoder(
        ImageAutoencoderConfig(
            latent_channels=4,
            block_out_channels=(16, 16),
            encoder_layers=(1, 1),
            decoder_layers=(1, 1),
            refine_channels=8,
            norm_num_groups=4,
            latents_mean=(0.0,) * 4,
            latents_std=(0.5,) * 4,
        )
    )
    autoencoder.init_weights(torch.Generator().manual_seed(0))
    save_component(autoencoder, tmp_path / "autoencoder")
    source = {"name": "discs", "path": "discs.parquet", "captions": ["{style} {name}"]}
    tree = {
        "objective": "flow",
        "output": str(tmp_path / "run"),
        "model": {
            "config": {
                "_class_name": "UViT",
                "in_channels": 4,
                "patch_size": 1,
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "text_hidden_size": 16,
            }
        },
        "flow": {
            "autoencoder": str(tmp_path / "autoencoder"),
            "tokenizer": str(tiny_tokenizer_directory),
            "text_encoder": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            },
            "ema_decay": 0.9,
        },
        "pictures": {
            "root": str(tmp_path),
            "sizes": [[32, 32], [64, 16]],
            "sources": [{**source, "where": {"split": ["train"]}}],
            "validation": [{**source, "name": "held-out", "where": {"split": ["eval"]}}],
        },
        "optimizer": {"name": "muon", "lr": 0.01, "muon_lr": 0.01},
        "steps": 60,
        "batch_size": 8,
        "micro_batch_size": 4,
        "evaluate_every": 30,
        "log_every": 1,
        "compile": False,
        "device": "cpu",
        "seed": 3,
    }
    path = tmp_path / "flow.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path
