"""Pictures as sequences of patches, and back."""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """A linear layer over each patch of a picture (arXiv 2010.11929)."""

    def __init__(self, in_channels: int, patch_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(in_channels * patch_size**2, hidden_size, bias=bias)

    def forward(self, picture: Tensor) -> Tensor:
        """`[B, tokens, hidden]`, row by row, of `picture` `[B, C, h, w]`; h and w are multiples of the patch size."""
        return self.proj(patchify(picture, self.patch_size))


def patchify(picture: Tensor, patch_size: int) -> Tensor:
    """Patches `[B, h / p * w / p, C * p * p]`, row by row, of `picture` `[B, C, h, w]`."""
    return nn.functional.pixel_unshuffle(picture, patch_size).flatten(2).transpose(1, 2)


def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The picture `[B, C, height, width]` of `patchify`'s `patches`."""
    grid = patches.transpose(1, 2).unflatten(2, (height // patch_size, width // patch_size))
    return nn.functional.pixel_shuffle(grid, patch_size)
