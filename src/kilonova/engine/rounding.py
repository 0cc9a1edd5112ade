"""Rounding a model's weights to eight or four bits when it is loaded."""

from __future__ import annotations

from typing import get_args

from torch import nn

from kilonova.core.errors import ConfigError
from kilonova.engine.config import Quantization
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.nn.mlp import GatedMLP
from kilonova.nn.quantized import QuantizedLinear, unsupported_size

_GROUP_SIZES = (64, 32)


def round_weights(model: Decoder, quantization: Quantization) -> None:
    """Round the linear layers to the nearest of 8 bits with a scale a row, or 4 bits with one for each 64 (32) inputs.

    The output projection always takes 8. Layers that are quantised already stay as they are. Raises ConfigError for
    another number format, for layers of experts and for sizes that no group divides.
    """
    if quantization not in get_args(Quantization):
        raise ConfigError(f"quantization: {quantization!r} is not one of {', '.join(get_args(Quantization))}")
    for index, layer in enumerate(model.model.layers):
        if not isinstance(layer, DecoderLayer):
            continue
        if not isinstance(layer.mlp, GatedMLP):
            raise ConfigError(f"quantization: layer {index} has experts, which are not rounded; serve it unquantised")
        for block in (layer.self_attn, layer.mlp):
            for name, child in list(block.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(block, name, _rounded(child, quantization))
    round_output_projection(model)


def round_output_projection(model: Decoder) -> None:
    """Round the output projection to 8 bits; a tied embedding stays as it is, for look-ups."""
    if isinstance(model.lm_head, nn.Linear):
        model.add_module("lm_head", _rounded(model.lm_head, "int8"))


def _rounded(layer: nn.Linear, quantization: Quantization) -> QuantizedLinear:
    if quantization == "int8":
        return QuantizedLinear.from_linear(layer, "int8")
    for group_size in _GROUP_SIZES:
        if not unsupported_size(layer.in_features, "int4", group_size):
            return QuantizedLinear.from_linear(layer, "int4", group_size)
    raise ConfigError(f"quantization: int4 needs a multiple of 32 inputs; a layer has {layer.in_features}")
