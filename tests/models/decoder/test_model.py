from __future__ import annotations

import pytest
import torch

from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder

DENSE = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)


def test_logits_agree_with_transformers(reference):
    model = load_decoder(reference.directory)
    with torch.no_grad():
        logits = model(reference.input_ids)
    assert reference.logits.std() > 0.5
    torch.testing.assert_close(logits, reference.logits, atol=1e-4, rtol=0)


def test_positions_given_by_the_caller_replace_the_default(make_reference):
    reference = make_reference("qwen3-yarn-mscale")
    model = load_decoder(reference.directory)
    positions = torch.arange(reference.input_ids.shape[1])[None]
    with torch.no_grad():
        shifted = model(reference.input_ids, position_ids=positions + 11)
        stretched = model(reference.input_ids, position_ids=positions * 2)
    torch.testing.assert_close(shifted, reference.logits, atol=1e-4, rtol=0)  # rotary positions are relative
    assert (stretched - reference.logits).abs().max() > 0.1


@pytest.mark.parametrize("variant", ["llama", "mistral-sliding", "qwen3-layer-types", "qwen3_moe-normalised"])
def test_packed_documents_equal_documents_run_apart(make_reference, variant):
    reference = make_reference(variant)
    model = load_decoder(reference.directory)
    lengths = [17, 1, 22]
    document_ids = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    with torch.no_grad():
        packed = model(reference.input_ids, document_ids=document_ids)
        apart = torch.cat([model(document) for document in reference.input_ids.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, apart, atol=1e-4, rtol=0)


def test_packed_documents_differ_between_rows():
    model = Decoder(DENSE)
    model.init_weights(torch.Generator().manual_seed(0))
    input_ids = torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(1))
    document_ids = torch.tensor([[0] * 5 + [1] * 7, [0] * 12])
    with torch.no_grad():
        packed = model(input_ids, document_ids=document_ids)
        first = torch.cat([model(input_ids[:1, :5]), model(input_ids[:1, 5:])], dim=1)
        second = model(input_ids[1:])
    torch.testing.assert_close(packed, torch.cat([first, second]), atol=1e-5, rtol=0)


def test_init_weights_follow_the_configuration():
    config = DecoderConfig(
        model_type="qwen3_moe",
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=64,
        qkv_bias=True,
        output_bias=True,
        moe_layers=frozenset({1}),
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        initializer_range=0.03,
    )
    model = Decoder(config)
    model.init_weights(torch.Generator().manual_seed(0))
    again = Decoder(config)
    again.init_weights(torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif parameter.ndim == 1:
            assert (parameter == 1).all()
        else:
            residual = "o_proj" in name or "down_proj" in name
            expected = 0.03 / 4 if residual else 0.03  # 1 / sqrt(2 * 8 layers)
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
            assert abs(parameter.mean().item()) < expected / 10, name


def test_tied_parameters_count_once():
    tied, untied = Decoder(DENSE), Decoder(DecoderConfig(**{**vars(DENSE), "tie_word_embeddings": False}))
    assert untied.num_parameters() - tied.num_parameters() == 50 * 32
    attention = 32 * (64 + 32 + 32) + 64 * 32 + 2 * 16
    layer = attention + 3 * 32 * 64 + 2 * 32
    assert tied.num_parameters() == 2 * layer + 50 * 32 + 32


def test_flops_per_token_equal_a_count_by_hand():
    attention = 32 * (64 + 32 + 32) + 64 * 32  # query, key, value; output
    matrices = 2 * (attention + 3 * 32 * 64) + 32 * 50  # and the output projection
    scores = 2 * 4 * (2 * 16 * 10 + 2 * 16 * 10) / 2  # layers, heads, scores and values, half of them masked
    assert Decoder(DENSE).flops_per_token(10) == 3 * (2 * matrices + scores)

    untied = Decoder(DecoderConfig(**{**vars(DENSE), "tie_word_embeddings": False}))
    assert untied.flops_per_token(10) == 3 * (2 * matrices + scores)

    sparse = DecoderConfig(
        **{
            **vars(DENSE),
            "model_type": "qwen3_moe",
            "moe_layers": frozenset({0}),
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 20,
        }
    )
    active = matrices - 3 * 32 * 64 + 3 * (3 * 32 * 20) + 8 * 32  # three experts and the router for a dense layer
    assert Decoder(sparse).flops_per_token(10) == 3 * (2 * active + scores)


def test_dense_training_path_compiles_as_one_graph():
    torch.compiler.reset()
    model = Decoder(DENSE)
    model.init_weights(torch.Generator().manual_seed(0))
    input_ids = torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(1))
    document_ids = torch.tensor([[0] * 5 + [1] * 7] * 2)
    compiled = torch.compile(model.hidden_states, fullgraph=True, backend="eager")
    for documents in (None, document_ids):
        expected = model.hidden_states(input_ids, document_ids=documents)
        torch.testing.assert_close(compiled(input_ids, document_ids=documents), expected)


def test_rotary_frequencies_stay_exact_through_conversions():
    model = Decoder(DENSE)
    exact = model.model.rotary.inverse_frequencies.clone()
    assert model.to(torch.bfloat16).model.rotary.inverse_frequencies.dtype == torch.float32
    assert torch.equal(model.model.rotary.inverse_frequencies, exact)
    with torch.device("meta"):
        abstract = Decoder(DENSE)
    assert torch.equal(abstract.to_empty(device="cpu").model.rotary.inverse_frequencies, exact)
    assert not [name for name in model.state_dict() if "rotary" in name]
