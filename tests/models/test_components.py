from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.models.autoencoder.config import ImageAutoencoderConfig
from kilonova.models.components import (
    build_component,
    load_component,
    load_folder,
    save_component,
    save_folder,
)
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.dit.config import DiTConfig
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.unet.config import UNetConfig
from kilonova.models.uvit.config import UViTConfig
from kilonova.text.tokenizer import Tokenizer

TRANSFORMER = {"in_channels": 4, "hidden_size": 16, "num_attention_heads": 2, "text_hidden_size": 12}
CONFIGS = {
    "UViT": UViTConfig(**TRANSFORMER, num_hidden_layers=3),
    "DiT": DiTConfig(**TRANSFORMER, num_hidden_layers=1, prediction="x"),
    "UNet": UNetConfig(
        in_channels=4, block_out_channels=(8, 16), transformer_depth=(0, 1), attention_head_dim=8, norm_num_groups=4
    ),
    "ImageAutoencoder": ImageAutoencoderConfig(
        block_out_channels=(16, 32),
        encoder_layers=(1, 1),
        decoder_layers=(1, 1),
        latents_mean=(0.5,) * 16,
        latents_std=(2.0,) * 16,
    ),
    "TextTransformer": TextTransformerConfig(
        vocab_size=512, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    ),
}


def make(name):
    model = build_component(CONFIGS[name])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def answer(model):
    """What a network makes of the same input each time."""
    latents = torch.linspace(-1, 1, 4 * 16).view(1, 4, 4, 4)
    if isinstance(model.config, TextTransformerConfig):
        return model(torch.tensor([[3, 4]]), torch.ones(1, 2, dtype=torch.bool)).states
    if isinstance(model.config, ImageAutoencoderConfig):
        return model.decode(model.encode(torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)))
    return model(latents, torch.tensor([0.5]), torch.ones(1, 2, model.config.text_hidden_size), None)


def same(left, right):
    assert left.config == right.config
    found = right.state_dict()
    assert left.state_dict().keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in left.state_dict().items())


@pytest.mark.parametrize("limit", [2**24, 4096])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_networks_come_back_bit_by_bit(tmp_path, name, limit):
    model = make(name)
    save_component(model, tmp_path / "it", limit)
    assert (tmp_path / "it" / "diffusion_pytorch_model.safetensors.index.json").exists() == (limit == 4096)
    assert json.loads((tmp_path / "it" / "config.json").read_text())["_class_name"] == name
    loaded = load_component(tmp_path / "it")
    same(model, loaded)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(answer(model), answer(loaded))


def test_dtypes_are_converted_on_either_way(tmp_path):
    model = make("UViT")
    save_component(model, tmp_path / "it", dtype=torch.bfloat16)
    stored = load_component(tmp_path / "it")
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.bfloat16}
    same(make("UViT").bfloat16(), stored)
    read = load_component(tmp_path / "it", torch.float32)
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    save_component(make("UViT"), tmp_path / "it")

    def fail(*arguments):
        raise OSError("no space")

    monkeypatch.setattr("kilonova.models.components.write_tensors", fail)
    with pytest.raises(OSError, match="no space"):
        save_component(make("DiT"), tmp_path / "it")
    same(make("UViT"), load_component(tmp_path / "it"))
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_tensors_that_do_not_fit_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    save_component(make("UViT"), tmp_path / "it")
    file = tmp_path / "it" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["extra"] = tensors.pop("norm_out.weight")
    tensors["norm_out.bias"] = torch.zeros(3)
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        load_component(tmp_path / "it")
    message = str(caught.value)
    assert "missing: norm_out.weight" in message
    assert "unexpected: extra" in message
    assert "of the wrong shape: norm_out.bias (is [3], config.json asks for [16])" in message


def test_unknown_classes_and_keys_are_refused(tmp_path):
    save_component(make("UViT"), tmp_path / "it")
    path = tmp_path / "it" / "config.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "_diffusers_version": "0.42.1"}))
    load_component(tmp_path / "it")
    path.write_text(json.dumps({**tree, "hiden_size": 3}))
    with pytest.raises(ConfigError, match=r"config\.json: unknown key 'hiden_size': did you mean 'hidden_size'"):
        load_component(tmp_path / "it")
    path.write_text(json.dumps({**tree, "_class_name": "UVit2D"}))
    with pytest.raises(ConfigError, match="'UVit2D' is no component; did you mean 'UViT'"):
        load_component(tmp_path / "it")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: the file is missing"):
        load_component(tmp_path / "it")


def test_other_networks_and_places_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        save_component(make("UViT"), tmp_path / "file")
    with pytest.raises(ConfigError, match="Linear is no component"):
        save_component(nn.Linear(2, 2), tmp_path / "it")
    with pytest.raises(ConfigError, match="DecoderConfig describes no component"):
        build_component(DecoderConfig.__new__(DecoderConfig))


def test_a_whole_folder_comes_back(tmp_path, tiny_tokenizer_directory):
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    scheduler = {"_class_name": "FlowScheduler", "shift": 1.5}
    components = {
        "transformer": make("UViT"),
        "vae": make("ImageAutoencoder"),
        "text_encoder": make("TextTransformer"),
        "tokenizer": tokenizer,
        "scheduler": scheduler,
    }
    save_folder(components, tmp_path / "canvas", "CanvasPipeline")
    assert json.loads((tmp_path / "canvas" / "model_index.json").read_text()) == {
        "_class_name": "CanvasPipeline",
        "transformer": ["kilonova", "UViT"],
        "vae": ["kilonova", "ImageAutoencoder"],
        "text_encoder": ["kilonova", "TextTransformer"],
        "tokenizer": ["kilonova", "Tokenizer"],
        "scheduler": ["kilonova", "FlowScheduler"],
    }
    loaded = load_folder(tmp_path / "canvas")
    for name in ("transformer", "vae", "text_encoder"):
        same(components[name], loaded[name])
    text = "seven wizards quietly vex a judge"
    assert loaded["tokenizer"].encode(text) == tokenizer.encode(text)
    assert loaded["tokenizer"].eos_token_id == tokenizer.eos_token_id
    assert loaded["scheduler"] == scheduler


def test_components_of_other_libraries_are_refused(tmp_path):
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"]})
    )
    with pytest.raises(CheckpointError, match=r"unet: .* is not a component of kilonova"):
        load_folder(tmp_path)
