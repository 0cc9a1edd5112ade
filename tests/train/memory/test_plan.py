"""What the planner predicts is what autograd holds."""

from __future__ import annotations

import math

import pytest
import torch
from tests.train.memory.conftest import LAYOUTS, LiveBytes, PeakBytes, decoder, packed_rows
from torch.utils.flop_counter import FlopCounterMode

from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.nn.cross_entropy import linear_cross_entropy
from kilonova.train.memory.layer_cost import LayerCost
from kilonova.train.memory.plan import PLANNED, plan_memory, recomputes_o_proj
from kilonova.train.memory.policy import apply_memory_policy

GIB = 2**30
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
}


def held_bytes(model: Decoder, length: int, format: str) -> int:
    """All that is there after a forward pass and was not before."""
    ids, documents = packed_rows(length)
    with LiveBytes() as live, torch.autocast("cpu", torch.bfloat16, enabled=format == "autocast"):
        hidden = model.hidden_states(ids, document_ids=documents)
        found = live.alive(ids, documents, *model.parameters())
    assert hidden.requires_grad
    return found


@pytest.mark.parametrize(
    ("layout", "format"),
    [(layout, "autocast") for layout in LAYOUTS]
    + [(layout, format) for layout in ("llama", "qwen3_moe-mixed") for format in ("float32", "bfloat16")],
)
def test_predicted_bytes_are_those_held(layout: str, format: str) -> None:
    length = 64
    for policy in PLANNED:
        model = decoder(layout)
        if format == "bfloat16":
            model = model.bfloat16()
        apply_memory_policy(model, policy, sequence_length=length)
        plan = plan_memory(
            model.config,
            batch_size=2,
            sequence_length=length,
            dtype=torch.float32 if format == "float32" else torch.bfloat16,
            # Several ranks share weights by FSDP2, which gathers them in bfloat16.
            ranks=2 if format == "bfloat16" else 1,
        )
        predicted = next(found for found in plan.policies if found.policy == policy).activation_bytes
        assert held_bytes(model, length, format) == pytest.approx(predicted, rel=0.001), policy


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("tokens", [1000, 5000])
def test_predicted_bytes_of_the_loss_are_the_most_held(tokens: int, autocast: bool) -> None:
    changes = {"vocab_size": 1024, "hidden_size": 32}
    config = decoder("llama", **changes).config
    labels = torch.arange(tokens) % 1024

    def peak(chunked: bool) -> int:
        hidden = torch.randn(tokens, 32, requires_grad=True)
        weight = torch.randn(1024, 32, requires_grad=True)
        with PeakBytes() as held, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if chunked:
                linear_cross_entropy(hidden, weight, labels)
            else:
                # Logits that had a name would stay, too.
                loss = torch.nn.functional.cross_entropy((hidden @ weight.t()).float(), labels, reduction="sum")
                loss.backward()
        return held.peak

    dtype = torch.bfloat16 if autocast else torch.float32
    found = plan_memory(config, batch_size=1, sequence_length=tokens, dtype=dtype).policies[0]
    assert peak(chunked=True) == pytest.approx(found.loss_bytes, rel=0.05)
    assert peak(chunked=False) == pytest.approx(found.plain_loss_bytes, rel=0.05)


@pytest.mark.parametrize("model_length", [24, 10**6])
def test_predicted_flops_are_those_computed(model_length: int) -> None:
    layout, length = "qwen3_moe-mixed", 24
    ids, documents = packed_rows(length)

    def step(policy: str) -> int:
        model = decoder(layout)
        apply_memory_policy(model, policy, sequence_length=model_length)
        with FlopCounterMode(display=False) as counter:
            model.hidden_states(ids, document_ids=documents).sum().backward()
        counts = counter.get_flop_counts()["Global"]
        return sum(count for name, count in counts.items() if "attention" not in str(name))

    none = step("none")
    config = decoder(layout).config
    layers = [LayerCost(config, index, torch.float32, torch.float32, model_length) for index in range(2)]
    assert none == 2 * length * sum(3 * layer.matmul_flops for layer in layers)
    for policy in ("ssc", "full"):
        again = sum(layer.recomputed_flops(policy) for layer in layers)
        if policy == "full":
            again -= sum(layer.attention_flops for layer in layers)
        assert step(policy) - none == 2 * length * again, policy


def test_attention_flops_count_what_queries_see() -> None:
    config = decoder("mistral").config
    visible = sum(min(position + 1, 7) for position in range(50))
    cost = LayerCost(config, 0, torch.float32, torch.float32, 50)
    # A product with the keys and one with the values, each of 2 FLOPs a head dimension.
    assert cost.attention_flops * 50 == pytest.approx(2 * 2 * visible * 4 * 8)


def test_output_projection_is_recomputed_in_long_rows_only() -> None:
    config = DecoderConfig.from_hf(LLAMA_8B)
    assert not recomputes_o_proj(config, 0, 8192)
    assert recomputes_o_proj(config, 0, 65536)
    # 2 d^2 of 3 * 26 d^2 + 3.5 * 2 T d: 1.5 % from T = 7.9 d.
    first = next(length for length in range(1024, 10**5, 1024) if recomputes_o_proj(config, 0, length))
    assert first == math.ceil((2 / 0.015 - 3 * 26) / 7 * 4096 / 1024) * 1024
    mixed = decoder("qwen3_moe-mixed").config
    assert not recomputes_o_proj(mixed, 1, 10**9)


def test_8b_figures() -> None:
    """The table of the published shapes, in units of hidden_size, by hand."""
    config = DecoderConfig.from_hf(LLAMA_8B)
    plan = plan_memory(config, batch_size=1, sequence_length=8192, ranks=64)
    layer = {found.policy: found.layer_bytes / 4096 for found in plan.policies}
    statistics = 4 * 32 / 4096
    assert layer["selective"] == 34 + statistics
    assert layer["ssc"] == 23 + statistics
    assert layer["ssc8"] == 9 + 3.5 * (2 + 4 / 32) + statistics
    assert layer["full"] == 2
    assert layer["ssc8"] / layer["selective"] < 0.5
    assert plan.parameters == 8_030_261_248
    assert plan.state_bytes == 16 * plan.parameters // 64


def test_fastest_policy_that_fits_is_chosen() -> None:
    config = DecoderConfig.from_hf({**LLAMA_8B, "num_hidden_layers": 12})
    plan = plan_memory(config, batch_size=2, sequence_length=4096)
    assert plan.chosen is None
    totals = {found.policy: found.total_bytes for found in plan.policies}
    assert totals["none"] > totals["selective"] > totals["ssc"] > totals["ssc8"] > totals["full"]
    for policy, total in totals.items():
        limited = plan_memory(config, batch_size=2, sequence_length=4096, budget_bytes=total)
        assert limited.chosen == policy
        assert [found.policy for found in limited.policies if found.fits] == list(PLANNED[PLANNED.index(policy) :])
    assert plan_memory(config, batch_size=2, sequence_length=4096, budget_bytes=GIB).chosen is None


def test_muon_keeps_one_state_of_a_matrix() -> None:
    model = decoder("llama")
    matrices = sum(parameter.numel() for parameter in model.model.layers.parameters() if parameter.ndim == 2)
    kept = {
        name: plan_memory(model.config, batch_size=1, sequence_length=8, optimizer=name).state_bytes
        for name in ("adamw", "muon")
    }
    assert kept["adamw"] == 16 * model.num_parameters()
    assert kept["adamw"] - kept["muon"] == 4 * matrices
