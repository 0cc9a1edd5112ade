"""Quantise a decoder's linear layers, in place or from directory to directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from kilonova.core.device import choose_device
from kilonova.core.errors import ConfigError
from kilonova.core.files import atomic_directory
from kilonova.core.progress import ProgressReporter
from kilonova.models.calibration import SEQUENCE_LENGTH, SEQUENCES, LayerInputs, calibration_tokens
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.models.companions import check_new, copy_companions
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.models.quantization.gptq import InputStatistics, round_weight
from kilonova.nn.quantized import (
    GROUP_SIZES,
    NumberFormat,
    QuantizedLinear,
    num_quantized_weights,
    unsupported_size,
)
from kilonova.text.tokenizer import Tokenizer

# Layers that share their input, in the order of computation.
_SHARED_INPUTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """How weights are quantised.

    `int8` and `fp8` have one scale a row, `int4` one for every `group_size` neighbouring inputs (32, 64 or 128). `rtn`
    rounds every weight to nearest; `gptq` makes up for each rounding in the weights still to come, by the inputs that
    calibration text brings about, with `activation_order` the largest inputs first.
    """

    number_format: NumberFormat = "int8"
    method: Literal["rtn", "gptq"] = "rtn"
    group_size: int | None = None
    activation_order: bool = True

    def __post_init__(self) -> None:
        if self.number_format not in ("int8", "int4", "fp8"):
            raise ConfigError(f"number_format: {self.number_format!r} is not one of int8, int4, fp8")
        if self.method not in ("rtn", "gptq"):
            raise ConfigError(f"method: {self.method!r} is not one of rtn, gptq")
        if self.number_format == "int4" and self.group_size not in GROUP_SIZES:
            raise ConfigError(f"group_size: {self.group_size} is not one of {', '.join(map(str, GROUP_SIZES))}")
        if self.number_format != "int4" and self.group_size is not None:
            raise ConfigError(f"group_size: {self.number_format} has one scale a row; leave group_size out")


def quantize_decoder(
    decoder: Decoder, config: QuantizationConfig, tokens: Tensor | None = None, *, quiet: bool = True
) -> None:
    """Replace the linear layers of attention and dense feed-forwards with quantised ones, one decoder layer at a time.

    Embedding, output projection, and a mixture's router and experts keep their precision. `tokens` `[N, T]` is the
    calibration text that `gptq` needs; a layer is rounded for the inputs that the layers before it, rounded already,
    bring about. `ConfigError` for sizes that do not fit, before anything is changed.
    """
    if config.method == "gptq" and tokens is None:
        raise ConfigError("method: gptq needs calibration text")
    if num_quantized_weights(decoder):
        raise ConfigError("the model is quantised already; start from the one it was made from")
    layers = [layer for layer in decoder.model.layers if isinstance(layer, DecoderLayer)]
    for number, layer in enumerate(layers):
        for name, linear in _linears(layer):
            if problem := unsupported_size(linear.in_features, config.number_format, config.group_size):
                raise ConfigError(f"group_size: model.layers.{number}.{name}: {problem}")
    inputs = LayerInputs(decoder, tokens) if config.method == "gptq" and tokens is not None else None
    with ProgressReporter("quantize: layers", len(layers), quiet=quiet) as progress:
        for number, layer in enumerate(layers, start=1):
            if inputs is None:
                for name, linear in _linears(layer):
                    rounded = QuantizedLinear.from_linear(linear, config.number_format, config.group_size)
                    _replace(layer, name, rounded)
            else:
                with inputs.computing(layer):
                    _round_layer(layer, inputs, config, decoder.model.embed_tokens.weight.dtype)
            progress.update(number)


def quantize_directory(
    source: str | Path,
    output: str | Path,
    config: QuantizationConfig,
    *,
    calibration: Path | None = None,
    sequences: int = SEQUENCES,
    length: int = SEQUENCE_LENGTH,
    quiet: bool = False,
) -> Decoder:
    """Write to `output`, which must not exist or be empty, the model of `source` quantised; returns it.

    The layout is that of compressed-tensors, which transformers and vLLM open. Layers are replaced one by one, so that
    memory holds the unquantised model and a layer at most. See `calibration_tokens` for `calibration`.
    """
    output = Path(output)
    check_new(output)
    decoder = load_decoder(source, device=choose_device())
    tokens = None
    if config.method == "gptq":
        length = min(length, decoder.config.max_position_embeddings)
        tokens = calibration_tokens(Tokenizer.from_directory(source), calibration, sequences, length)
    quantize_decoder(decoder, config, tokens, quiet=quiet)
    with atomic_directory(output) as temporary:
        copy_companions(source, temporary, "generation_config.json", "training.json")
        save_decoder(decoder, temporary)
    return decoder


def unquantized_part(decoder: Decoder) -> str:
    """A sentence on the experts that stay as they are; empty for a dense model."""
    if not decoder.config.moe_layers:
        return ""
    return f"the experts of {len(decoder.config.moe_layers)} layers stay unquantised"


@torch.no_grad()
def _round_layer(layer: DecoderLayer, inputs: LayerInputs, config: QuantizationConfig, dtype: torch.dtype) -> None:
    present = dict(_linears(layer))
    for names in _SHARED_INPUTS:
        if names[0] not in present:
            continue
        statistics = InputStatistics.from_hessian(_hessian(layer, names[0], inputs), config.activation_order)
        for name in names:
            linear = present[name]
            values, scale = round_weight(linear.weight, statistics, config.number_format, config.group_size, dtype)
            rounded = QuantizedLinear.from_values(linear, values, scale, config.number_format, config.group_size)
            _replace(layer, name, rounded)
    inputs.advance(layer)


def _hessian(layer: DecoderLayer, name: str, inputs: LayerInputs) -> Tensor:
    """The mean of `x x^T` over the inputs of a linear layer, float32 `[in, in]`."""
    linear = layer.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    total = torch.zeros(linear.in_features, linear.in_features, device=linear.weight.device)
    rows = 0

    def add(x: Tensor) -> None:
        nonlocal rows
        flat = x.flatten(0, -2).float()
        total.addmm_(flat.t(), flat)
        rows += len(flat)

    inputs.observe(layer, name, add)
    return total / rows


def _linears(layer: DecoderLayer) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that are quantised, by name within the layer."""
    modules = dict(layer.named_modules())
    for name in (name for names in _SHARED_INPUTS for name in names):
        module = modules.get(name)
        if isinstance(module, nn.Linear):
            yield name, module


def _replace(layer: DecoderLayer, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(layer.get_submodule(owner), leaf, module)
