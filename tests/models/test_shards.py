from __future__ import annotations

import json

import pytest
import torch

from kilonova.core.errors import CheckpointError
from kilonova.models.shards import read_tensors, tensor_shapes, write_tensors

TENSORS = {
    "a": torch.arange(300, dtype=torch.float32),
    "b.weight": torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).bfloat16().T,
    "b.bias": torch.ones(3, dtype=torch.float16),
    "c": torch.randn(40, 40, generator=torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("limit", [10**6, 3000])
def test_tensors_come_back_as_they_were(tmp_path, limit):
    write_tensors(TENSORS, tmp_path, "weights", limit)
    files = sorted(path.name for path in tmp_path.iterdir())
    if limit == 3000:
        assert files == [
            "weights-00001-of-00003.safetensors",
            "weights-00002-of-00003.safetensors",
            "weights-00003-of-00003.safetensors",
            "weights.safetensors.index.json",
        ]
        assert all((tmp_path / file).stat().st_size <= limit for file in files[:2])
    else:
        assert files == ["weights.safetensors"]
    assert tensor_shapes(tmp_path, "weights") == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    found = dict(read_tensors(tmp_path, "weights"))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_damage_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither weights\.safetensors nor"):
        tensor_shapes(tmp_path, "weights")
    write_tensors(TENSORS, tmp_path, "weights", 3000)
    index = tmp_path / "weights.safetensors.index.json"
    good = index.read_text()

    def written(**changes):
        tree = json.loads(good)
        tree["weight_map"].update(changes)
        index.write_text(json.dumps(tree))

    written(d="weights-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match="the index promises d"):
        tensor_shapes(tmp_path, "weights")
    written(a="../a.safetensors")
    with pytest.raises(CheckpointError, match="not a plain file name"):
        tensor_shapes(tmp_path, "weights")
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="a JSON object is expected, not list"):
        tensor_shapes(tmp_path, "weights")
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map"):
        tensor_shapes(tmp_path, "weights")
    index.write_text(good)
    shard = tmp_path / "weights-00003-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"00003-of-00003\.safetensors: truncated"):
        dict(read_tensors(tmp_path, "weights"))
    shard.unlink()
    with pytest.raises(CheckpointError, match="the file is missing"):
        tensor_shapes(tmp_path, "weights")
