from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cosine_similarity, silu

from kilonova.core.errors import ConfigError
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.models.pruning import Importance, PruningConfig, measure_importance, prune_decoder, prune_directory
from kilonova.models.quantization.quantize import QuantizationConfig, quantize_decoder
from kilonova.text.tokenizer import Tokenizer

TOKENS = torch.randint(97, (12, 30), generator=torch.Generator().manual_seed(2))
DENSE = ("llama-tied-biased-llama3", "mistral-sliding", "qwen2-sliding-yarn", "qwen3-layer-types")
MIXTURE = "qwen3_moe-normalised"


@pytest.fixture
def open_reference(make_reference) -> Callable[[str], Decoder]:
    return lambda variant: load_decoder(make_reference(variant).directory)


def inputs_of(decoder: Decoder, name: str) -> torch.Tensor:
    seen = []
    handle = decoder.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        decoder(TOKENS)
    handle.remove()
    return seen[0].double()


@pytest.mark.parametrize("variant", [*DENSE, MIXTURE])
def test_importance_follows_the_formulas(variant, open_reference) -> None:
    decoder = open_reference(variant)
    importance = measure_importance(decoder, TOKENS)

    states = [inputs_of(decoder, f"model.layers.{layer}.input_layernorm") for layer in range(3)]
    states.append(inputs_of(decoder, "model.norm"))
    for layer in range(3):
        influence = 1 - cosine_similarity(states[layer], states[layer + 1], dim=-1).mean()
        torch.testing.assert_close(importance.layers[layer].double(), influence, rtol=1e-4, atol=1e-6)
        attended = inputs_of(decoder, f"model.layers.{layer}.self_attn.o_proj")
        heads, groups = decoder.config.num_attention_heads, decoder.config.num_key_value_heads
        lengths = attended.view(*TOKENS.shape, heads, -1).norm(dim=-1).view(*TOKENS.shape, groups, -1).sum(dim=-1)
        expected = lengths.mean(dim=1).square().sum(dim=0).sqrt()
        torch.testing.assert_close(importance.key_value_heads[layer].double(), expected, rtol=1e-4, atol=1e-6)
        neurons = importance.neurons[layer]
        if layer in decoder.config.moe_layers:
            assert neurons is None
            continue
        x = inputs_of(decoder, f"model.layers.{layer}.mlp")
        mlp = decoder.model.layers[layer].mlp
        activations = silu(x @ mlp.gate_proj.weight.double().t()) * (x @ mlp.up_proj.weight.double().t())
        expected = activations.abs().mean(dim=1).square().sum(dim=0).sqrt()
        torch.testing.assert_close(neurons.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", [*DENSE, MIXTURE])
def test_what_does_nothing_is_pruned_without_a_trace(variant, open_reference, transformers_logits, tmp_path) -> None:
    decoder = open_reference(variant)
    idle_neurons, idle_layer = torch.tensor([0, 5, 17, 47]), 1
    with torch.no_grad():
        for number, layer in enumerate(decoder.model.layers):
            attention = layer.self_attn
            group = slice(0, attention.v_proj.weight.shape[0] // 2)
            attention.v_proj.weight[group] = 0.0
            if attention.v_proj.bias is not None:
                attention.v_proj.bias[group] = 0.0
            if not decoder.config.moe_layers:
                layer.mlp.up_proj.weight[idle_neurons] = 0.0
            if number == idle_layer:
                for module in (attention.o_proj, layer.mlp.down_proj):
                    module.weight.zero_()
                    if module.bias is not None:
                        module.bias.zero_()
    expected = decoder(TOKENS)
    before = {name: parameter.clone() for name, parameter in decoder.named_parameters()}

    config = PruningConfig(
        num_hidden_layers=2,
        num_key_value_heads=1,
        intermediate_size=None if decoder.config.moe_layers else 44,
    )
    pruned = prune_decoder(decoder, config, measure_importance(decoder, TOKENS))

    assert pruned.config.num_attention_heads == 2
    torch.testing.assert_close(pruned(TOKENS), expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], parameter) for name, parameter in decoder.named_parameters())
    save_decoder(pruned, tmp_path)
    torch.testing.assert_close(load_decoder(tmp_path)(TOKENS), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(transformers_logits(tmp_path, TOKENS), expected, atol=1e-3, rtol=1e-3)


def test_the_largest_stay_in_their_order(open_reference) -> None:
    decoder = open_reference("qwen3-layer-types")
    neurons = torch.zeros(48)
    neurons[[3, 40, 7]] = torch.tensor([1.0, 3.0, 2.0])
    importance = Importance(
        torch.tensor([0.3, 0.1, 0.2]),
        (neurons,) * 3,
        (torch.tensor([0.1, 0.9]), torch.ones(2), torch.tensor([0.9, 0.1])),
    )

    pruned = prune_decoder(
        decoder, PruningConfig(num_hidden_layers=2, intermediate_size=3, num_key_value_heads=1), importance
    )

    assert pruned.config.layer_windows == (6, 6)
    for new, old, group in ((0, 0, 1), (1, 2, 0)):
        ours, theirs = pruned.model.layers[new], decoder.model.layers[old]
        for leaf in ("gate_proj", "up_proj"):
            assert torch.equal(getattr(ours.mlp, leaf).weight, getattr(theirs.mlp, leaf).weight[[3, 7, 40]])
        assert torch.equal(ours.mlp.down_proj.weight, theirs.mlp.down_proj.weight[:, [3, 7, 40]])
        queries = slice(32 * group, 32 * group + 32)
        assert torch.equal(ours.self_attn.q_proj.weight, theirs.self_attn.q_proj.weight[queries])
        assert torch.equal(ours.self_attn.o_proj.weight, theirs.self_attn.o_proj.weight[:, queries])
        keys = slice(16 * group, 16 * group + 16)
        assert torch.equal(ours.self_attn.k_proj.weight, theirs.self_attn.k_proj.weight[keys])


def test_a_mixture_may_lose_all_its_experts(open_reference, tmp_path) -> None:
    decoder = open_reference(MIXTURE)
    importance = measure_importance(decoder, TOKENS)
    keep_dense = Importance(torch.tensor([0.0, 1.0, 0.0]), importance.neurons, importance.key_value_heads)

    pruned = prune_decoder(decoder, PruningConfig(num_hidden_layers=1), keep_dense)

    assert not pruned.config.moe_layers
    save_decoder(pruned, tmp_path)
    assert torch.equal(load_decoder(tmp_path)(TOKENS), pruned(TOKENS))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "nothing to prune"),
        ({"num_hidden_layers": 3, "intermediate_size": 48}, "nothing to prune"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0 is not between 1 and the model's 3"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 is not between 1 and the model's 2"),
    ],
)
def test_useless_sizes_are_refused(fields, message, open_reference) -> None:
    decoder = open_reference("qwen3-layer-types")
    with pytest.raises(ConfigError, match=message):
        PruningConfig(**fields).apply_to(decoder.config)


def test_what_cannot_be_pruned_is_refused(open_reference) -> None:
    with pytest.raises(ConfigError, match="mixture of experts cannot be narrowed"):
        PruningConfig(intermediate_size=8).apply_to(open_reference(MIXTURE).config)
    decoder = open_reference("qwen3-layer-types")
    importance = measure_importance(decoder, TOKENS)
    quantize_decoder(decoder, QuantizationConfig(number_format="int8"))
    with pytest.raises(ConfigError, match="the model is quantised"):
        prune_decoder(decoder, PruningConfig(num_hidden_layers=2), importance)


def test_directories_keep_tokenizer_and_template(tiny_micro_directory, tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("seven wizards quietly vex a judge under bright northern lights " * 50)
    output = tmp_path / "out"
    prune_directory(
        tiny_micro_directory,
        output,
        PruningConfig(num_hidden_layers=1),
        calibration=text,
        sequences=4,
        length=32,
        quiet=True,
    )

    assert load_decoder(output).config.num_hidden_layers == 1
    assert Tokenizer.from_directory(output).chat_template is not None
    with pytest.raises(ConfigError, match="already exists"):
        prune_directory(tiny_micro_directory, output, PruningConfig(num_hidden_layers=1), calibration=text)
