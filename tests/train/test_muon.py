import pytest
import torch

from kilonova.train.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 40, 8)])
def test_orthogonalize_keeps_singular_vectors_and_flattens_singular_values(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrices, steps=5)
    u, _, v = torch.linalg.svd(matrices.double(), full_matrices=False)
    values = u.mT @ found.double() @ v.mT
    diagonal = torch.diagonal(values, dim1=1, dim2=2)
    assert (values - torch.diag_embed(diagonal)).abs().max() < 0.05
    assert diagonal.min() > 0.3
    assert diagonal.max() < 1.3


def test_steps_agree_with_torch_optim() -> None:
    """torch iterates in bfloat16, hence the tolerance."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(24, 16, generator=generator), torch.randn(24, 16, generator=generator), torch.randn(8, 8)]
    ours = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    theirs = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    first = Muon(ours, lr=0.02, weight_decay=0.1)
    second = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        first.step()
        second.step()
    for before, mine, other in zip(start, ours, theirs, strict=True):
        moved = (other - before).norm()
        assert (mine - other).norm() < 0.02 * moved


def test_only_matrices() -> None:
    with pytest.raises(ValueError, match="two-dimensional"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)
