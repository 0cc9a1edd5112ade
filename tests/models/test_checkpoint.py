from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.models.checkpoint import load_config, load_decoder, save_decoder, verify_checkpoint
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder

CONFIG = DecoderConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    tie_word_embeddings=True,
    eos_token_ids=(5, 7),
    pad_token_id=0,
)
SHARD_BYTES = 16 * 1024


@pytest.fixture
def model() -> Decoder:
    model = Decoder(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def saved(model, tmp_path) -> Path:
    save_decoder(model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded(model, tmp_path) -> Path:
    save_decoder(model, tmp_path / "sharded", max_shard_bytes=SHARD_BYTES)
    return tmp_path / "sharded"


def rewrite(directory: Path, change) -> None:
    """Apply `change` to the dictionary of tensors in a single-file checkpoint."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def rewrite_config(directory: Path, **values) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("max_shard_bytes", [2**24, SHARD_BYTES])
def test_transformers_opens_what_is_saved(reference, transformers_logits, tmp_path, max_shard_bytes):
    save_decoder(load_decoder(reference.directory), tmp_path, max_shard_bytes=max_shard_bytes)
    assert (tmp_path / "model.safetensors").exists() == (max_shard_bytes > SHARD_BYTES)
    logits = transformers_logits(tmp_path, reference.input_ids)
    torch.testing.assert_close(logits, reference.logits, atol=1e-5, rtol=0)
    with torch.no_grad():
        again = load_decoder(tmp_path)(reference.input_ids)
    torch.testing.assert_close(again, reference.logits, atol=1e-4, rtol=0)


def test_tensors_have_the_names_transformers_gives_them(reference, tmp_path):
    save_decoder(load_decoder(reference.directory), tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(reference.directory / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_weights_come_back_exactly(model, saved):
    loaded = load_decoder(saved)
    assert loaded.config == CONFIG
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert not loaded.training
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter)


def test_shards_stay_within_their_size_and_the_index_is_complete(model, sharded):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    files = sorted(sharded.glob("model-*.safetensors"))
    assert len(files) > 3
    assert [file.name for file in files] == sorted(set(index["weight_map"].values()))
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert all(index["weight_map"][name] == file.name for name in opened.keys())  # noqa: SIM118
            total += sum(opened.get_tensor(name).nbytes for name in opened.keys())  # noqa: SIM118
        assert file.stat().st_size <= SHARD_BYTES
    assert index["metadata"] == {"total_parameters": model.num_parameters(), "total_size": total}
    assert not (sharded / "model.safetensors").exists()


def test_a_tensor_larger_than_a_shard_is_alone_in_its_own(model, tmp_path):
    save_decoder(model, tmp_path, max_shard_bytes=4096)
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    embedding = weight_map["model.embed_tokens.weight"]
    assert [name for name, file in weight_map.items() if file == embedding] == ["model.embed_tokens.weight"]
    assert torch.equal(load_decoder(tmp_path).model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_generation_config_ends_where_the_model_does(saved):
    generation = json.loads((saved / "generation_config.json").read_text())
    assert generation == {"bos_token_id": None, "eos_token_id": [5, 7], "pad_token_id": 0}


def test_saving_again_replaces_the_model_and_keeps_the_rest(model, sharded):
    (sharded / "tokenizer.json").write_text("{}")
    (sharded / "extra").mkdir()
    (sharded / "extra" / "notes.txt").write_text("keep")
    (sharded / "generation_config.json").write_text('{"temperature": 0.5, "eos_token_id": 1}')
    outside = sharded.parent / "hard-link.json"
    os.link(sharded / "generation_config.json", outside)
    save_decoder(model, sharded)
    assert sorted(path.name for path in sharded.iterdir()) == [
        "config.json",
        "extra",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (sharded / "extra" / "notes.txt").read_text() == "keep"
    generation = json.loads((sharded / "generation_config.json").read_text())
    assert (generation["temperature"], generation["eos_token_id"]) == (0.5, [5, 7])
    assert json.loads(outside.read_text()) == {"temperature": 0.5, "eos_token_id": 1}


def test_a_save_that_fails_leaves_the_old_checkpoint(model, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    calls = []

    def fail_at_second(tensors, path, metadata):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("no space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr("kilonova.models.checkpoint.save_file", fail_at_second)
    with pytest.raises(OSError, match="no space"):
        save_decoder(model, saved, max_shard_bytes=SHARD_BYTES)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_saving_onto_a_file_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        save_decoder(model, tmp_path / "file")


def test_dtypes_are_kept_or_converted(model, tmp_path):
    save_decoder(model, tmp_path, dtype=torch.bfloat16)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["dtype"], written["torch_dtype"]) == ("bfloat16", "bfloat16")
    kept, converted = load_decoder(tmp_path), load_decoder(tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in kept.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in converted.parameters()} == {torch.float32}
    assert kept.model.rotary.inverse_frequencies.dtype == torch.float32
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert torch.equal(converted.model.layers[0].self_attn.q_proj.weight, weight.bfloat16().float())


def test_tied_output_may_be_stored_too_or_instead(model, saved):
    rewrite(saved, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    both = load_decoder(saved)
    rewrite(saved, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    instead = load_decoder(saved)
    for loaded in (both, instead):
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_tied_output_that_differs_is_refused(saved):
    rewrite(saved, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load_decoder(saved)


def test_untied_output_must_be_there(saved):
    rewrite_config(saved, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        load_decoder(saved)


def test_rotary_buffers_of_old_checkpoints_are_ignored(model, saved):
    rewrite(saved, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}))
    assert torch.equal(load_decoder(saved).model.norm.weight, model.model.norm.weight)


def test_missing_unexpected_and_misshaped_tensors_are_named(saved):
    def damage(tensors):
        del tensors["model.norm.weight"]
        tensors["model.layers.1.mlp.down_proj.weight"] = torch.zeros(32, 47)
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)
        tensors["model.layers.0.input_layernorm.weight"] = torch.zeros(32, dtype=torch.int8)

    rewrite(saved, damage)
    with pytest.raises(CheckpointError) as caught:
        load_decoder(saved)
    message = str(caught.value)
    assert str(saved) in message
    assert "missing: model.norm.weight;" in message
    assert "unexpected: model.layers.0.self_attn.q_proj.bias;" in message
    assert "model.layers.1.mlp.down_proj.weight (is [32, 47], config.json asks for [32, 48])" in message
    assert "model.layers.0.input_layernorm.weight (is I8, not F32 or F16 or BF16 or F64)" in message
    with pytest.raises(CheckpointError, match=r"missing: model\.norm\.weight"):
        verify_checkpoint(saved)


def test_long_lists_of_missing_tensors_are_cut(saved):
    rewrite_config(saved, num_hidden_layers=3, layer_types=None)
    with pytest.raises(CheckpointError, match=r"missing: .* and 6 more"):
        load_decoder(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_files_are_refused(saved, keep):
    file = saved / "model.safetensors"
    contents = file.read_bytes()
    file.write_bytes(contents[: int(len(contents) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated"):
        load_decoder(saved)


def test_files_of_another_kind_are_refused(saved):
    (saved / "model.safetensors").write_bytes(b"\x80\x04pickle" * 100)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_decoder(saved)


def test_a_missing_shard_is_named(sharded):
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name}: the file is missing"):
        load_decoder(sharded)


def test_index_promises_are_checked(sharded):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    moved = {**index["weight_map"], "model.norm.weight": index["weight_map"]["model.embed_tokens.weight"]}
    path.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(CheckpointError, match=r"promises tensors it lacks; missing: model\.norm\.weight"):
        load_decoder(sharded)
    path.write_text(json.dumps({"weight_map": dict.fromkeys(moved, "../elsewhere.safetensors")}))
    with pytest.raises(CheckpointError, match="not a plain file name"):
        load_decoder(sharded)
    path.write_text(json.dumps({"weight_map": ["a"]}))
    with pytest.raises(CheckpointError, match="weight_map"):
        load_decoder(sharded)


def test_absent_and_broken_files_are_named(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: the file is missing"):
        load_decoder(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load_decoder(saved)
    rewrite_config(saved, hidden_act="relu")
    with pytest.raises(ConfigError, match=r"config\.json: hidden_act"):
        load_config(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not readable as JSON"):
        load_decoder(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="a JSON object is expected"):
        load_decoder(saved)


_BIG = """
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.models.checkpoint import save_decoder
import sys, torch
config = DecoderConfig(
    model_type="qwen3_moe", vocab_size=16384, hidden_size=1024, intermediate_size=2048, num_hidden_layers=3,
    num_attention_heads=8, num_key_value_heads=4, head_dim=128, max_position_embeddings=256, tie_word_embeddings=True,
    moe_layers=frozenset({2}), num_experts=8, num_experts_per_tok=2, moe_intermediate_size=512,
)
model = Decoder(config)
model.init_weights(torch.Generator().manual_seed(0))
save_decoder(model, sys.argv[1], max_shard_bytes=2**40)
"""

_LOAD = """
import sys, torch
from kilonova.models.checkpoint import load_decoder

def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))

before = memory("VmRSS")
model = load_decoder(sys.argv[1])
total = sum(parameter.detach().sum().item() for parameter in model.parameters())
heavy = [name for name in ("sympy", "torch._dynamo") if name in sys.modules]
print(memory("VmHWM") - before, sum(parameter.nbytes for parameter in model.parameters()), total == total, heavy)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")
def test_peak_memory_of_loading_is_about_one_copy(tmp_path):
    subprocess.run([sys.executable, "-c", _BIG, str(tmp_path)], check=True)
    size = (tmp_path / "model.safetensors").stat().st_size
    run = subprocess.run([sys.executable, "-c", _LOAD, str(tmp_path)], check=True, capture_output=True, text=True)
    peak, weights, finite, heavy = run.stdout.split()
    assert (finite, heavy) == ("True", "[]")
    assert 170e6 < int(weights) <= size
    assert int(weights) < int(peak) < 1.35 * int(weights)
