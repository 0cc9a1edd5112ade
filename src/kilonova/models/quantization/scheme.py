"""The `quantization_config` of a checkpoint in the compressed-tensors layout: which layers are stored in which way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from torch import nn

from kilonova.core.errors import CheckpointError
from kilonova.nn.moe import SparseMoE
from kilonova.nn.quantized import NumberFormat, QuantizedLinear, unsupported_size

SUPPORTED = (
    "symmetric weights of compressed-tensors: int-quantized (8 bits), pack-quantized (4 or 8 bits) and "
    "float-quantized (8 bits, e4m3), one scale a tensor, a row or a group"
)
_NUMBER_FORMATS: Mapping[tuple[str, str, int], NumberFormat] = {
    ("int-quantized", "int", 8): "int8",
    ("pack-quantized", "int", 8): "int8",
    ("pack-quantized", "int", 4): "int4",
    ("float-quantized", "float", 8): "fp8",
}
_ROUTERS, _EXPERTS = r"re:.*\.mlp\.gate$", r"re:.*\.mlp\.experts.*"


@dataclass(frozen=True)
class StoredScheme:
    """How some layers are stored; `per_tensor` is whether a layer has a single scale."""

    number_format: NumberFormat
    group_size: int | None = None
    packed: bool = False
    per_tensor: bool = False


@dataclass(frozen=True)
class _Group:
    targets: tuple[str, ...]
    scheme: StoredScheme


@dataclass(frozen=True)
class StoredQuantization:
    """What a `quantization_config` says: the first group that targets a linear layer applies, unless it is ignored."""

    groups: tuple[_Group, ...]
    ignore: tuple[str, ...]

    def scheme_of(self, name: str) -> StoredScheme | None:
        """How the linear layer `name` is stored; None for an unquantised one."""
        if any(_means(pattern, name) for pattern in self.ignore):
            return None
        return next((group.scheme for group in self.groups if any(_means(at, name) for at in group.targets)), None)


class _Weights(msgspec.Struct):
    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    strategy: str | None = None
    group_size: int | None = None
    dynamic: Any = False
    actorder: Any = None


class _ConfigGroup(msgspec.Struct):
    targets: list[str]
    weights: _Weights | None = None
    format: str | None = None


class _QuantizationConfig(msgspec.Struct):
    config_groups: dict[str, _ConfigGroup]
    quant_method: str = ""
    format: str = ""
    ignore: list[str] | None = None
    transform_config: dict[str, Any] | None = None
    sparsity_config: dict[str, Any] | None = None


def read_quantization(config: Mapping[str, Any]) -> StoredQuantization | None:
    """What the parsed `config.json` says about quantised weights, None for none.

    `CheckpointError` for a kind that is not read here. Declared quantisation of activations is left out: activations
    keep their precision.
    """
    given = config.get("quantization_config")
    if given is None:
        return None
    method = given.get("quant_method") if isinstance(given, Mapping) else given
    if method != "compressed-tensors":
        raise CheckpointError(f"quantization_config: quant_method {method!r} is not supported; allowed: {SUPPORTED}")
    try:
        parsed = msgspec.convert(given, _QuantizationConfig)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"quantization_config: {error}; allowed: {SUPPORTED}") from error
    if parsed.transform_config:
        raise CheckpointError(f"quantization_config.transform_config: is not supported; allowed: {SUPPORTED}")
    if (sparse := (parsed.sparsity_config or {}).get("format", "dense")) != "dense":
        raise CheckpointError(f"quantization_config.sparsity_config: {sparse!r} is not supported; allowed: dense")
    groups = tuple(
        _Group(tuple(group.targets), _read_scheme(name, group, group.format or parsed.format))
        for name, group in parsed.config_groups.items()
        if group.weights is not None
    )
    return StoredQuantization(groups, tuple(parsed.ignore or ()))


def _read_scheme(name: str, group: _ConfigGroup, layout: str) -> StoredScheme:
    weights = group.weights or _Weights()
    where = f"quantization_config.config_groups.{name}"
    number_format = _NUMBER_FORMATS.get((layout, weights.type, weights.num_bits))
    if number_format is None:
        raise CheckpointError(
            f"{where}: {layout or 'no format'} with {weights.num_bits} {weights.type} bits is not supported; "
            f"allowed: {SUPPORTED}"
        )
    for key, refused in (
        ("symmetric", not weights.symmetric),
        ("dynamic", bool(weights.dynamic)),
        ("actorder", weights.actorder not in (None, False, "weight", "static")),
    ):
        if refused:
            value = getattr(weights, key)
            raise CheckpointError(f"{where}: {key} {value!r} of weights is not supported; allowed: {SUPPORTED}")
    grouped = weights.group_size is not None and weights.group_size > 0
    strategy = weights.strategy or ("group" if grouped else "channel" if weights.group_size == -1 else "tensor")
    if strategy not in ("tensor", "channel", "group") or (strategy == "group") != grouped:
        raise CheckpointError(
            f"{where}: strategy {strategy!r} with group_size {weights.group_size} is not supported; "
            f"allowed: {SUPPORTED}"
        )
    group_size = weights.group_size if grouped else None
    return StoredScheme(number_format, group_size, layout == "pack-quantized", strategy == "tensor")


def write_quantization(model: nn.Module) -> dict[str, Any] | None:
    """The `quantization_config` of a model that has quantised layers, None for one that has none.

    Weights alone are quantised. Integers go into `pack-quantized`, of eight bits too: for weights without quantised
    activations that is the layout which vLLM opens.
    """
    quantised: dict[tuple[NumberFormat, int | None], list[str]] = {}
    mixture = any(isinstance(module, SparseMoE) for module in model.modules())
    plain = [_ROUTERS, _EXPERTS] if mixture else []
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            quantised.setdefault((module.number_format, module.group_size), []).append(name)
        elif isinstance(module, nn.Linear) and not name.endswith(".mlp.gate"):
            plain.append(name)
    if not quantised:
        return None
    groups = {
        f"group_{number}": _written_group(["Linear"] if len(quantised) == 1 else names, number_format, group_size)
        for number, ((number_format, group_size), names) in enumerate(quantised.items())
    }
    layouts = {group["format"] for group in groups.values()}
    if mixture:
        # transformers reads experts as the group says whose targets name them, ignored or not, and integer groups drop
        # experts that are not quantised. A float group lets them through; as all of them are ignored, it means nothing.
        groups["experts"] = _written_group([_EXPERTS], "fp8", None)
    return {
        "quant_method": "compressed-tensors",
        "format": layouts.pop() if len(layouts) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "config_groups": groups,
        "ignore": sorted(plain),
    }


def _written_group(targets: list[str], number_format: NumberFormat, group_size: int | None) -> dict[str, Any]:
    return {
        "targets": targets,
        "weights": {
            "num_bits": 4 if number_format == "int4" else 8,
            "type": "float" if number_format == "fp8" else "int",
            "symmetric": True,
            "dynamic": False,
            "strategy": "channel" if group_size is None else "group",
            "group_size": group_size,
        },
        "input_activations": None,
        "output_activations": None,
        "format": "float-quantized" if number_format == "fp8" else "pack-quantized",
    }


def place_quantized_layers(model: nn.Module, stored: StoredQuantization) -> dict[str, StoredScheme]:
    """Put an empty quantised layer where `model`, on the meta device, has a linear layer that is stored so.

    Returns how each is stored. `CheckpointError` for an output projection, experts or routers stored so, and for sizes
    that do not fit.
    """
    found = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, SparseMoE):
            for part in (f"{name}.experts.0.gate_proj", f"{name}.gate"):
                if stored.scheme_of(part) is not None:
                    raise CheckpointError(
                        f"{part}: quantised experts and routers are not supported; put them in ignore"
                    )
        if not isinstance(module, nn.Linear) or (scheme := stored.scheme_of(name)) is None:
            continue
        if name == "lm_head":
            raise CheckpointError(f"{name}: a quantised output projection is not supported; put it in ignore")
        if problem := unsupported_size(module.in_features, scheme.number_format, scheme.group_size):
            raise CheckpointError(f"{name}: {problem}")
        layer = QuantizedLinear(
            module.in_features, module.out_features, scheme.number_format, scheme.group_size, device="meta"
        )
        layer.bias = module.bias
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, layer)
        found[name] = scheme
    return found


def _means(pattern: str, name: str) -> bool:
    """compressed-tensors' rule: a regular expression after `re:`, a class of layers, or a layer's whole name."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return pattern in ("Linear", name)
