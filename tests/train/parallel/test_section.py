import pytest
import torch
from tests.train.parallel.conftest import shape

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.train.parallel.context import local_positions
from kilonova.train.parallel.gradients import clip_grad_norm
from kilonova.train.parallel.section import ParallelSection
from kilonova.train.parallel.sharding import layer_groups
from kilonova.train.run import train


def test_the_rest_of_the_ranks_shard() -> None:
    section = ParallelSection(data_parallel_replicate=2, tensor=4)
    assert section.shape(64) == {"replicate": 2, "shard": 8, "expert": 1, "context": 1, "tensor": 4}


@pytest.mark.parametrize(
    ("keys", "world_size"), [({"tensor": 3}, 4), ({"data_parallel_shard": 2}, 4), ({"tensor": 2}, 1)]
)
def test_sizes_must_multiply_to_the_number_of_ranks(keys: dict, world_size: int) -> None:
    with pytest.raises(ConfigError, match=f"parallel.*{world_size}, the number of ranks"):
        ParallelSection(**keys).shape(world_size)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"tensor": 0}, "parallel.tensor"),
        ({"data_parallel_shard": 0}, "data_parallel_shard"),
        ({"forward_prefetch": -1}, "forward_prefetch"),
        ({"reduction": {"dtype": "float16"}}, "dtype"),
        ({"reduction": {"bucket_megabytes": -1.0}}, "bucket_megabytes"),
        ({"tensr": 2}, "did you mean 'tensor'"),
    ],
)
def test_bad_sections_are_refused(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(ParallelSection, tree)


def test_a_run_of_one_process_takes_no_other_plan(recipe) -> None:
    with pytest.raises(ConfigError, match="torchrun"):
        train(recipe("alone", "qwen3", parallel={"tensor": 2}))


def test_layers_are_grouped_by_size() -> None:
    decoder = Decoder(DecoderConfig.from_hf(shape("llama") | {"vocab_size": 64, "num_hidden_layers": 5}))
    layers = list(decoder.model.layers)
    megabytes = sum(parameter.numel() * 2 for parameter in layers[0].parameters()) / 2**20

    def sizes(limit: float) -> list[int]:
        return [len(group) for group in layer_groups(layers, limit, torch.bfloat16)]

    assert sizes(0) == [1, 1, 1, 1, 1]
    assert sizes(1.5 * megabytes) == [2, 2, 1]
    assert sizes(1000) == [5]


def test_ranks_of_a_context_share_a_row_fairly() -> None:
    parts = [local_positions(48, rank, 3) for rank in range(3)]
    assert torch.cat(parts).sort().values.tolist() == list(range(48))
    pairs = {int((part + 1).sum()) for part in parts}
    assert len(pairs) == 1
    with pytest.raises(ConfigError, match=r"data\.sequence_length: 50"):
        local_positions(50, 0, 3)


@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clip_grad_norm_is_that_of_torch(max_norm: float) -> None:
    mine = [torch.nn.Parameter(torch.zeros(size)) for size in ((4, 3), (5,), (1,))]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in mine]
    for left, right in zip(mine[:2], theirs[:2], strict=True):
        left.grad = torch.randn_like(left)
        right.grad = left.grad.clone()
    assert torch.equal(clip_grad_norm(mine, max_norm), torch.nn.utils.clip_grad_norm_(theirs, max_norm))
    assert all(torch.equal(left.grad, right.grad) for left, right in zip(mine[:2], theirs[:2], strict=True))
