"""Adapters of decoders, read and written as PEFT directories."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.core.files import atomic_directory, write_atomic
from kilonova.models.checkpoint import load_decoder, save_decoder, verify_checkpoint
from kilonova.models.companions import check_new, copy_companions
from kilonova.models.decoder.model import Decoder
from kilonova.nn.lora import LoRALinear
from kilonova.nn.moe import SparseMoE

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_EXPERT_TENSORS = ("gate", "gate_up_proj", "down_proj", *(f"experts.*.{leaf}" for leaf in _MLP))
_TENSOR_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?P<tensor>lora_A|lora_B|lora_magnitude_vector)(?:\.weight)?"
)
# What PEFT can do to a model beyond the adapters of this module; tensors of other names are refused anyway.
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
# Initialisations that leave the base's weights alone; others, such as PiSSA, change them as well.
_INITIALISATIONS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA or DoRA of some linear layers, in PEFT's terms; see `LoRALinear` for `rank`, `alpha` and `rslora`.

    `target_modules` are names of layers, whole or their last parts, such as `q_proj`; None means attention and dense
    feed-forward layers, in a mixture of experts attention alone.
    """

    kind: Literal["lora", "dora"] = "lora"
    rank: int = 8
    alpha: float = 16.0
    rslora: bool = False
    target_modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"adapter.rank: {self.rank} is less than 1")
        if self.alpha <= 0:
            raise ConfigError(f"adapter.alpha: {self.alpha} is not above 0")
        if self.target_modules is not None and not self.target_modules:
            raise ConfigError("adapter.target_modules: name at least one layer, or leave it out")

    @property
    def scaling(self) -> float:
        """What the product of `lora_B` and `lora_A` is multiplied with."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


def attach_adapter(decoder: Decoder, config: AdapterConfig, generator: torch.Generator | None = None) -> None:
    """Give the layers that `config` targets a fresh adapter, and freeze everything else.

    What the decoder computes stays the same until the adapter is trained. `ConfigError` for a target that is no linear
    layer of this decoder, and for one whose adapter would have no effect here: the tensors of a mixture's experts,
    which are stacked, and the output projection, which is fused with the loss.
    """
    _attach(decoder, config, _targets(decoder, config.target_modules), generator)


def adapter_layers(decoder: Decoder) -> dict[str, LoRALinear]:
    """The layers of `decoder` that have an adapter, by name."""
    return {name: module for name, module in decoder.named_modules() if isinstance(module, LoRALinear)}


def merge_adapter(decoder: Decoder) -> None:
    """Fold the adapter into the weights: plain linear layers again, which compute the same up to rounding."""
    for name, layer in adapter_layers(decoder).items():
        merged = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        merged.weight = nn.Parameter(layer.merged_weight(), requires_grad=False)
        merged.bias = layer.bias
        _replace(decoder, name, merged)


def save_adapter(decoder: Decoder, directory: str | Path, base: str, dtype: torch.dtype | None = None) -> None:
    """Write the decoder's adapter as a PEFT directory that `peft.PeftModel.from_pretrained` opens.

    `base` is the name or directory of the model it belongs to; `dtype` None keeps the adapter's. `CheckpointError` if
    the decoder has no adapter.
    """
    layers = adapter_layers(decoder)
    if not layers:
        raise CheckpointError("the model has no adapter to save")
    tensors = {
        f"base_model.model.{name}.{tensor}{'.weight' if parameter.ndim == 2 else ''}": parameter
        for name, layer in layers.items()
        for tensor, parameter in _adapter_tensors(layer)
    }
    first = next(iter(layers.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": first.rank,
        "lora_alpha": first.alpha,
        "lora_dropout": 0.0,
        "use_rslora": first.rslora,
        "use_dora": first.lora_magnitude_vector is not None,
        "target_modules": _shortest_names(decoder, layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    contents = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    write_atomic(Path(directory) / WEIGHTS_FILE, save(contents, metadata={"format": "pt"}))
    write_atomic(Path(directory) / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class AdapterTensors:
    """An adapter apart from any model: of each layer, by name, `lora_A` `[rank, in]` and `lora_B` `[out, rank]`, and
    with DoRA the `lora_magnitude_vector` `[out]`."""

    config: AdapterConfig
    layers: Mapping[str, Mapping[str, Tensor]]


def read_adapter(directory: str | Path, shapes: Mapping[str, tuple[int, int]]) -> AdapterTensors:
    """The LoRA or DoRA adapter that a PEFT `directory` holds, for a model whose linear layers have `shapes`.

    `shapes` are `(out_features, in_features)` by name of the layers that can have an adapter. PEFT's dropout concerns
    training alone and is not read. `CheckpointError` for a damaged directory, for tensors that do not fit the model,
    and for what PEFT can express and this cannot.
    """
    directory = Path(directory)
    config = _read_config(directory / CONFIG_FILE)
    try:
        stored = load_file(directory / WEIGHTS_FILE)
    except FileNotFoundError as error:
        raise CheckpointError(f"{directory / WEIGHTS_FILE}: the file is missing") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{directory / WEIGHTS_FILE}: truncated or not a safetensors file: {error}") from error
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        match = _TENSOR_NAME.fullmatch(key)
        if match is None:
            raise CheckpointError(f"{directory}: {key} is no tensor of a LoRA or DoRA adapter")
        found.setdefault(match["module"], {})[match["tensor"]] = tensor
    if strangers := sorted(found.keys() - shapes.keys()):
        raise CheckpointError(f"{directory}: {strangers[0]} is no linear layer of the model that can have an adapter")
    for name, tensors in found.items():
        _check_tensors(directory, name, tensors, config, shapes[name])
    return AdapterTensors(config, found)


def check_adapter(directory: str | Path, base: str | Path) -> None:
    """Check that `directory` holds an adapter that fits the checkpoint `base`. Raises CheckpointError."""
    with torch.device("meta"):
        decoder = Decoder(verify_checkpoint(base))
    read_adapter(directory, _shapes(decoder))


@torch.no_grad()
def load_adapter(decoder: Decoder, directory: str | Path) -> None:
    """Attach the adapter of a PEFT `directory`, in the dtype of the decoder's weights. Raises as `read_adapter`."""
    adapter = read_adapter(directory, _shapes(decoder))
    _attach(decoder, adapter.config, sorted(adapter.layers), None)
    for name, layer in adapter_layers(decoder).items():
        for leaf, parameter in _adapter_tensors(layer):
            parameter.copy_(adapter.layers[name][leaf])


def merge_directories(base: str | Path, adapter: str | Path, output: str | Path) -> None:
    """Write to `output`, which must not exist or be empty, the model of `base` with the PEFT directory `adapter`.

    Weights keep the dtype of `base`; tokenizer, chat template and records come from `adapter` where it has them.
    """
    output = Path(output)
    check_new(output)
    decoder = load_decoder(base)
    load_adapter(decoder, adapter)
    merge_adapter(decoder)
    with atomic_directory(output) as temporary:
        copy_companions(adapter, temporary, "training.json")
        copy_companions(base, temporary, "generation_config.json")
        save_decoder(decoder, temporary)


def _attach(decoder: Decoder, config: AdapterConfig, names: list[str], generator: torch.Generator | None) -> None:
    if adapter_layers(decoder):
        raise ConfigError("adapter: the model has one already; merge it first")
    decoder.requires_grad_(False)
    linears = _linears(decoder)
    for name in names:
        dora = config.kind == "dora"
        layer = LoRALinear(
            linears[name], config.rank, config.alpha, rslora=config.rslora, dora=dora, generator=generator
        )
        _replace(decoder, name, layer)


def _linears(decoder: Decoder) -> dict[str, nn.Linear]:
    """The linear layers that an adapter can change, by name."""
    routers = {f"{name}.gate" for name, module in decoder.named_modules() if isinstance(module, SparseMoE)}
    return {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head" and name not in routers
    }


def _shapes(decoder: Decoder) -> dict[str, tuple[int, int]]:
    return {name: (layer.out_features, layer.in_features) for name, layer in _linears(decoder).items()}


def _targets(decoder: Decoder, target_modules: tuple[str, ...] | None) -> list[str]:
    """Names of the layers that `target_modules` mean, in the decoder's order."""
    if target_modules is None:
        target_modules = _ATTENTION if decoder.config.moe_layers else (*_ATTENTION, *_MLP)
    linears = _linears(decoder)
    chosen: set[str] = set()
    for target in target_modules:
        for name, module in decoder.named_modules():
            if isinstance(module, SparseMoE) and any(_means(target, f"{name}.{leaf}") for leaf in _EXPERT_TENSORS):
                raise ConfigError(
                    f"adapter.target_modules: {target!r} names experts or router of {name}; a mixture of experts takes "
                    f"adapters in attention only ({', '.join(_ATTENTION)})"
                )
        found = {name for name in linears if _means(target, name)}
        if not found:
            known = sorted({name.rpartition(".")[2] for name in linears})
            raise ConfigError(f"adapter.target_modules: {target!r} is none of {', '.join(known)}")
        chosen |= found
    return [name for name in linears if name in chosen]


def _means(target: str, name: str) -> bool:
    """PEFT's rule: a target is a whole name or its end at a dot."""
    return name == target or name.endswith(f".{target}")


def _shortest_names(decoder: Decoder, layers: Mapping[str, LoRALinear]) -> list[str]:
    """Last parts of the layers' names where they mean these layers and no others, else whole names."""
    chosen = {name.rpartition(".")[2] for name in layers}
    meant = {name for name in _linears(decoder) if name.rpartition(".")[2] in chosen}
    return sorted(chosen if meant == layers.keys() else layers)


def _adapter_tensors(layer: LoRALinear) -> Iterator[tuple[str, nn.Parameter]]:
    for name in ("lora_A", "lora_B", "lora_magnitude_vector"):
        if (parameter := getattr(layer, name)) is not None:
            yield name, parameter


def _check_tensors(
    directory: Path, name: str, tensors: Mapping[str, Tensor], config: AdapterConfig, shape: tuple[int, int]
) -> None:
    out_features, in_features = shape
    expected = {"lora_A": [config.rank, in_features], "lora_B": [out_features, config.rank]}
    if config.kind == "dora":
        expected["lora_magnitude_vector"] = [out_features]
    if tensors.keys() != expected.keys():
        raise CheckpointError(
            f"{directory}: {name} has {', '.join(sorted(tensors))}, not {', '.join(sorted(expected))}"
        )
    for leaf, wanted in expected.items():
        if (found := list(tensors[leaf].shape)) != wanted:
            raise CheckpointError(
                f"{directory}: {name}.{leaf} is {found}, the model and {CONFIG_FILE} ask for {wanted}"
            )


def _replace(decoder: Decoder, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(decoder.get_submodule(owner), leaf, module)


def _read_config(path: Path) -> AdapterConfig:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type is {config.get('peft_type')!r}; LORA, DoRA included, is what is read")
    unsupported = [key for key in _UNSUPPORTED if config.get(key)]
    unsupported += ["bias"] if config.get("bias", "none") != "none" else []
    unsupported += ["init_lora_weights"] if config.get("init_lora_weights", True) not in _INITIALISATIONS else []
    if unsupported:
        key = unsupported[0]
        raise CheckpointError(f"{path}: {key} is {config[key]!r}, which adapters here do not have")
    try:
        kind: Literal["lora", "dora"] = "dora" if config.get("use_dora") else "lora"
        return AdapterConfig(
            kind=kind, rank=config["r"], alpha=config["lora_alpha"], rslora=bool(config.get("use_rslora"))
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error}") from error
