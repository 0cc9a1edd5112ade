"""A compiled graph keeps what eager mode keeps.

The graphs are cut in two by the compiler's own rules; what it would then make of each half changes nothing about that.
"""

from __future__ import annotations

import pytest
import torch
from tests.train.memory.conftest import decoder, packed_rows
from tests.train.memory.test_gradients import difference
from torch import Tensor

from kilonova.train.memory.layer_cost import LayerCost
from kilonova.train.memory.policy import apply_memory_policy
from kilonova.train.memory.section import MemoryPolicy

BACKEND = "aot_eager_decomp_partition"
LENGTH = 64


def kept_and_gradients(layers: int, policy: MemoryPolicy, *, compiled: bool) -> tuple[int, dict[str, Tensor | None]]:
    """Bytes of the tensors that autograd saves besides parameters, and the gradients of a bfloat16 model."""
    torch._dynamo.reset()
    model = decoder("qwen3", num_hidden_layers=layers).bfloat16()
    apply_memory_policy(model, policy)
    run = torch.compile(model.hidden_states, dynamic=False, backend=BACKEND) if compiled else model.hidden_states
    ids, documents = packed_rows(LENGTH)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    # Looking at storages is not for the compiler to trace.
    @torch.compiler.disable
    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        hidden = run(ids, document_ids=documents)
        hidden.float().square().sum().backward()
    return sum(storages.values()), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("policy", ["ssc8", pytest.param("ssc", marks=pytest.mark.slow)])
def test_compiled_layers_keep_what_is_planned(policy: MemoryPolicy) -> None:
    one, _ = kept_and_gradients(1, policy, compiled=True)
    two, found = kept_and_gradients(2, policy, compiled=True)
    config = decoder("qwen3").config
    planned = LayerCost(config, 0, torch.bfloat16, torch.bfloat16, LENGTH, compiled=True).kept_bytes(policy)
    assert (two - one) / (2 * LENGTH) == pytest.approx(planned, rel=0.01)
    _, expected = kept_and_gradients(2, "none", compiled=False)
    assert difference(found, expected) < 3e-2
