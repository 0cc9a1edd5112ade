from __future__ import annotations

import torch

from kilonova.nn.patches import PatchEmbedding, patchify, unpatchify


def test_patches_are_rows_of_the_picture_and_come_back():
    picture = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    patches = patchify(picture, 2)
    assert patches.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            block = picture[1, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[1, 3 * row + column], block.flatten())
    assert torch.equal(unpatchify(patches, 2, 4, 6), picture)


def test_the_embedding_is_a_convolution_of_that_stride():
    picture = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    layer = PatchEmbedding(3, 2, 5)
    weight = layer.proj.weight.view(5, 3, 2, 2)
    expected = torch.nn.functional.conv2d(picture, weight, layer.proj.bias, stride=2)
    torch.testing.assert_close(layer(picture), expected.flatten(2).transpose(1, 2))
