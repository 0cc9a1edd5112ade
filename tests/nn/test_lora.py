"""LoRA and DoRA layers against PEFT's and against the papers' formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kilonova.nn.lora import LoRALinear


def made(*, bias: bool, dora: bool, rslora: bool = False, dtype: torch.dtype = torch.float32) -> LoRALinear:
    """A layer whose adapter is not its initial one."""
    generator = torch.Generator().manual_seed(0)
    base = nn.Linear(24, 16, bias=bias).to(dtype)
    layer = LoRALinear(base, 4, 8.0, rslora=rslora, dora=dora, generator=generator)
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
        layer.lora_B.normal_(generator=generator)
        if layer.lora_magnitude_vector is not None:
            layer.lora_magnitude_vector.uniform_(0.5, 2.0, generator=generator)
    return layer


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_forward_gradients_and_merge_equal_pefts(dora: bool, bias: bool, rslora: bool) -> None:
    from peft import LoraConfig
    from peft.tuners.lora.layer import Linear as PeftLinear

    layer = made(bias=bias, dora=dora, rslora=rslora)
    base = nn.Linear(24, 16, bias=bias)
    base.load_state_dict({name: value for name, value in layer.state_dict().items() if "lora" not in name})
    options = {"r": 4, "lora_alpha": 8, "use_dora": dora, "use_rslora": rslora}
    peft = PeftLinear(base, adapter_name="default", config=LoraConfig(**options), **options)
    with torch.no_grad():
        peft.lora_A["default"].weight.copy_(layer.lora_A)
        peft.lora_B["default"].weight.copy_(layer.lora_B)
        if layer.lora_magnitude_vector is not None:
            peft.lora_magnitude_vector["default"].weight.copy_(layer.lora_magnitude_vector)
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1))
    ours_x, peft_x = x.clone().requires_grad_(), x.clone().requires_grad_()

    ours, theirs = layer(ours_x), peft(peft_x)
    ours.square().sum().backward()
    theirs.square().sum().backward()

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours_x.grad, peft_x.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.lora_A.grad, peft.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(layer.lora_B.grad, peft.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-3)
    assert layer.weight.grad is None
    if layer.lora_magnitude_vector is not None:
        theirs_grad = peft.lora_magnitude_vector["default"].weight.grad
        torch.testing.assert_close(layer.lora_magnitude_vector.grad, theirs_grad, rtol=1e-4, atol=1e-3)

    peft.merge()
    torch.testing.assert_close(layer.merged_weight(), peft.get_base_layer().weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nn.functional.linear(x, layer.merged_weight(), layer.bias), ours, rtol=1e-5, atol=1e-5)


def test_dora_is_the_papers_formula() -> None:
    layer = made(bias=True, dora=True)
    assert layer.lora_magnitude_vector is not None
    direction = layer.weight.double() + 2.0 * layer.lora_B.double() @ layer.lora_A.double()
    weight = layer.lora_magnitude_vector.double()[:, None] * direction / direction.norm(dim=1, keepdim=True)
    x = torch.randn(7, 24, dtype=torch.float64)
    expected = x @ weight.t() + layer.bias.double()
    torch.testing.assert_close(layer(x.float()), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_a_fresh_adapter_changes_nothing_and_trains_alone(dora: bool) -> None:
    base = nn.Linear(24, 16)
    x = torch.randn(5, 24)
    before = base(x)
    layer = LoRALinear(base, 4, 8.0, dora=dora)
    torch.testing.assert_close(layer(x), before, rtol=1e-6, atol=1e-6)
    trained = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
    assert trained == {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if dora else set())
    assert set(base.state_dict()) <= set(layer.state_dict())


@pytest.mark.parametrize("dora", [False, True])
def test_autocast_keeps_the_run_s_number_format(dora: bool) -> None:
    layer = made(bias=True, dora=dora)
    x = torch.randn(5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x), rtol=0.05, atol=0.5)


def test_equal_seeds_draw_equal_adapters() -> None:
    layers = [LoRALinear(nn.Linear(8, 4), 2, 4.0, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(layers[0].lora_A, layers[1].lora_A)
    assert layers[0].lora_A.abs().max() <= 8**-0.5
