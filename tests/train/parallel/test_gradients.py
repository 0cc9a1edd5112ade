"""What objectives see of a decoder spread over ranks, and what each rank holds of it."""

from pathlib import Path

import pytest
import torch
from tests.train.parallel.conftest import launch, shape

from kilonova.data.packing import Batch
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder

WINDOWED = shape("llama") | {"model_type": "mistral", "sliding_window": 10}
# name: shape, parallel
CASES = {
    "sharded": (shape("qwen3"), {}),
    "tensor": (shape("qwen3"), {"tensor": 2}),
    "tensor_biases": (shape("llama") | {"attention_bias": True}, {"tensor": 2}),
    "tensor_experts": (shape("qwen3_moe"), {"tensor": 2}),
    "context": (shape("qwen3"), {"context": 2}),
    "context_windowed": (WINDOWED, {"context": 2}),
    "experts": (shape("qwen3_moe"), {"expert": 2}),
}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 64, (4, 24), generator=generator)
    documents = torch.cat((torch.zeros(4, 7), torch.ones(4, 9), torch.full((4, 8), 2)), dim=1).long()
    weight = torch.rand(64, generator=generator)
    path = tmp_path_factory.mktemp("batch") / "batch.pt"
    torch.save({"ids": ids, "labels": ids, "documents": documents, "weight": weight}, path)
    return path


@pytest.fixture(scope="module")
def found(batch: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("gradients")
    tasks = [
        {
            "kind": "gradients",
            "ranks": 2,
            "shape": model | {"vocab_size": 64},
            "parallel": parallel,
            "batch": str(batch),
            "output": str(folder / name),
        }
        for name, (model, parallel) in CASES.items()
    ]
    launch(folder, tasks)
    return {name: torch.load(folder / name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_any_loss_of_hidden_states_and_output_weight_has_the_gradients_of_one_rank(
    batch: Path, found: dict[str, dict], name: str
) -> None:
    saved = torch.load(batch)
    decoder = Decoder(DecoderConfig.from_hf(CASES[name][0] | {"vocab_size": 64}))
    decoder.init_weights(torch.Generator().manual_seed(0))
    whole = Batch(saved["ids"], saved["labels"], saved["documents"])
    hidden = decoder.hidden_states(whole.input_ids, document_ids=whole.document_ids)
    (hidden @ decoder.lm_head.weight.t() * saved["weight"]).square().sum().backward()
    gradients = dict(decoder.named_parameters())
    assert gradients.keys() == found[name]["gradients"].keys()
    for key, parameter in gradients.items():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name]["gradients"][key], parameter.grad, rtol=1e-4, atol=1e-4, msg=key)


def test_each_rank_holds_its_share(found: dict[str, dict]) -> None:
    layer = "model.layers.0."
    for rank in range(2):
        sharded, tensor, experts = (found[name]["held"][rank] for name in ("sharded", "tensor", "experts"))
        assert sharded[layer + "self_attn.q_proj.weight"] == [16, 32]
        assert tensor[layer + "self_attn.q_proj.weight"] == [16, 32]
        assert tensor[layer + "self_attn.o_proj.weight"] == [32, 16]
        assert tensor[layer + "self_attn.q_norm.weight"] == [8]
        assert tensor["model.embed_tokens.weight"] == [32, 32]
        assert experts[layer + "mlp.gate_up_proj"] == [2, 48, 32]
        assert experts[layer + "mlp.gate.weight"] == [2, 32]
