from __future__ import annotations

import pytest
import torch

from kilonova.nn.norm import RMSNorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_that_of_transformers(dtype):
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(4, 7, 24, generator=generator)).to(dtype)
    ours, theirs = RMSNorm(24, eps=1e-3), LlamaRMSNorm(24, eps=1e-3)
    with torch.no_grad():
        ours.weight.normal_(1, 0.2, generator=generator)
        theirs.weight.copy_(ours.weight)
    tolerance = 1e-6 if dtype == torch.float32 else 0
    torch.testing.assert_close(ours.to(dtype)(x), theirs.to(dtype)(x), rtol=tolerance, atol=tolerance)
