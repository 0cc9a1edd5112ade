import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.train.optimizer import OptimizerSet
from kilonova.train.run_recipe import OptimizerSection


@pytest.fixture
def model() -> Decoder:
    config = DecoderConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return Decoder(config)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer_and_vectors_no_decay(model: Decoder, name: str) -> None:
    optimizers = OptimizerSet(model, OptimizerSection(name=name, lr=1e-3, muon_lr=1e-3)).optimizers
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    owned = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in model.parameters() if p.ndim >= 2}
    if name == "muon":
        assert len(optimizers[1].param_groups[0]["params"]) == 2 * 7
        assert all(p is not model.model.embed_tokens.weight for p in optimizers[1].param_groups[0]["params"])


def test_muon_update_has_the_size_of_adamw(model: Decoder) -> None:
    torch.manual_seed(0)
    optimizer = OptimizerSet(model, OptimizerSection(name="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.0))
    weight = model.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.set_learning_rate_factor(0.5)
    optimizer.step()
    # A full-rank update of root-mean-square 0.2 times the learning rate (arXiv 2502.16982, equation 4).
    assert (weight - before).pow(2).mean().sqrt().item() == pytest.approx(0.2 * 0.5e-2, rel=0.2)


def test_muon_needs_its_learning_rate(model: Decoder) -> None:
    with pytest.raises(ConfigError, match="muon_lr"):
        OptimizerSet(model, OptimizerSection(name="muon", lr=1e-3))
