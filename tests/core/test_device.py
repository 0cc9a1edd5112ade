import pytest
import torch

from kilonova.core.device import choose_device, choose_dtype, has_fast_bfloat16
from kilonova.core.errors import ConfigError


def test_auto_dtype_is_bfloat16_only_where_it_is_fast() -> None:
    cpu = torch.device("cpu")
    expected = torch.bfloat16 if has_fast_bfloat16(cpu) else torch.float32
    assert choose_dtype("auto", cpu) is expected
    assert choose_dtype("float16", cpu) is torch.float16


def test_auto_device_exists() -> None:
    torch.zeros(1, device=choose_device())


@pytest.mark.parametrize("name", ["gpu", "cpu:x", ""])
def test_unknown_device(name: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="use cpu or auto"):
        choose_device("cuda")


def test_unknown_dtype() -> None:
    with pytest.raises(ConfigError, match="float32"):
        choose_dtype("fp8", torch.device("cpu"))
