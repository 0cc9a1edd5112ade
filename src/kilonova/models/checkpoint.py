"""Read and write decoders as Hugging Face checkpoint directories."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.core.files import atomic_directory
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.models.quantization.layout import is_unused, stored_tensors, written_tensors
from kilonova.models.quantization.scheme import place_quantized_layers, read_quantization, write_quantization
from kilonova.models.shards import MAX_SHARD_BYTES, listing, open_tensors, plan_shards, read_json
from kilonova.nn.lora import LoRALinear
from kilonova.nn.moe import SparseMoE
from kilonova.nn.quantized import QuantizedLinear, num_quantized_weights

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
_GENERATION_CONFIG = "generation_config.json"
_EMBEDDING = "model.embed_tokens.weight"
_OUTPUT = "lm_head.weight"
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class _Place:
    """Where a stored tensor goes: a whole parameter, or the expert and rows at `index` of a stacked one.

    With `read` it is a buffer of a quantised layer, which keeps what `read` makes of the tensor.
    """

    parameter: str
    shape: tuple[int, ...]
    index: tuple[int, slice] | None = None
    dtypes: tuple[str, ...] = tuple(_DTYPES)
    read: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class _Stored:
    """A tensor in a safetensors file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def load_config(directory: str | Path) -> DecoderConfig:
    """The configuration in `directory/config.json`; CheckpointError without one, ConfigError for a bad one."""
    path = Path(directory) / _CONFIG
    mapping = read_json(path)
    try:
        return DecoderConfig.from_hf(mapping)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def load_decoder(
    directory: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Decoder:
    """The decoder stored in a Hugging Face `directory`, in evaluation mode on `device`.

    Weights are one `model.safetensors` or shards with an index, and are read tensor by tensor into place: peak memory
    is the model plus its largest tensor. `dtype` None keeps the dtype the embedding is stored in. Layers quantised in
    the compressed-tensors layout become `QuantizedLinear` and stay quantised, with scales in `dtype`. A missing,
    unexpected or mis-shaped tensor, a kind of quantisation that is not read, or a damaged file, is a `CheckpointError`
    that names it; nothing is read before all names and shapes have been checked.
    """
    model = read_model(Path(directory), Decoder, dtype, device)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.to(device).eval()


def read_model(
    directory: Path, build: Callable[[DecoderConfig], Model], dtype: torch.dtype | None, device: str | torch.device
) -> Model:
    """As `load_decoder`, for whatever `build` makes of the configuration; weights are not tied."""
    model, places, stored = _inspect(directory, build)
    if dtype is None:
        dtype = _DTYPES[stored[_EMBEDDING if _EMBEDDING in stored else _OUTPUT].dtype]
    loaded: dict[str, Tensor] = {}
    for name, tensor in _read_tensors(stored):
        place = places[name]
        present = loaded.get(place.parameter)
        if place.index is not None:
            if present is None:
                shape = model.get_parameter(place.parameter).shape
                present = loaded[place.parameter] = torch.empty(shape, dtype=dtype, device=device)
            present[place.index].copy_(tensor)
        elif place.read is not None:
            found = place.read(tensor)
            loaded[place.parameter] = found.to(device=device, dtype=dtype if found.is_floating_point() else None)
        elif present is None:
            loaded[place.parameter] = tensor.to(device=device, dtype=dtype)
        elif not torch.equal(present, tensor.to(device=device, dtype=dtype)):
            raise CheckpointError(
                f"{directory}: {_CONFIG} says tie_word_embeddings, but {_OUTPUT} differs from {_EMBEDDING}; "
                "set tie_word_embeddings to false"
            )
    for name, tensor in loaded.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, leaf, tensor if leaf in module._buffers else nn.Parameter(tensor))
    return model


def verify_checkpoint(directory: str | Path) -> DecoderConfig:
    """Check that `load_decoder` would accept `directory`, reading configuration and headers but no weights."""
    model, _, _ = _inspect(Path(directory), Decoder)
    return model.config


def save_decoder(
    model: Decoder, directory: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES, dtype: torch.dtype | None = None
) -> None:
    """Write `model` to `directory` in the Hugging Face layout of its configuration.

    One `model.safetensors` if it fits into `max_shard_bytes`, else shards of at most that size with an index (a
    tensor that alone exceeds it gets a shard to itself); `config.json`; and `generation_config.json`, whose other
    keys are kept if it exists. `dtype` None keeps the embedding's. The directory appears whole: what it held before
    stays until then, and files that are not the model's, such as the tokenizer's, stay for good. An adapter is written
    as merged into the weights, quantised layers in the compressed-tensors layout.
    """
    dtype = dtype or model.model.embed_tokens.weight.dtype
    write_model(model, directory, model.config.to_hf(), model.config.token_ids_to_hf(), max_shard_bytes, dtype)


def write_model(
    model: nn.Module,
    directory: str | Path,
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    max_shard_bytes: int,
    dtype: torch.dtype,
) -> None:
    """As `save_decoder`, for any model, with what its two files of settings hold (an empty one is not written)."""
    directory = Path(directory).resolve()
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory}: is a file, not a directory")
    quantized = dict(written_tensors(model))
    tensors = {**dict(_stored_views(model)), **quantized}
    dtypes = {name: quantized[name].dtype if name in quantized else dtype for name in tensors}
    sizes = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in tensors.items()}
    shards = plan_shards(sizes, max_shard_bytes)
    with atomic_directory(directory) as temporary:
        if directory.is_dir():
            _keep_foreign_files(directory, temporary)
        weight_map = {}
        for number, names in enumerate(shards, start=1):
            file = _WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            weight_map.update(dict.fromkeys(names, file))
            contents = {name: tensors[name].detach().to("cpu", dtypes[name]).contiguous() for name in names}
            save_file(contents, temporary / file, metadata={"format": "pt"})
        if len(shards) > 1:
            parameters = sum(parameter.numel() for parameter in model.parameters())
            total = {"total_parameters": parameters + num_quantized_weights(model), "total_size": sum(sizes.values())}
            _write_json(temporary / _INDEX, {"metadata": total, "weight_map": dict(sorted(weight_map.items()))})
        name = str(dtype).removeprefix("torch.")
        written = {**config, "dtype": name, "torch_dtype": name}
        if quantized:
            written["quantization_config"] = write_quantization(model)
        _write_json(temporary / _CONFIG, written)
        if generation_config:
            generation = temporary / _GENERATION_CONFIG
            kept = read_json(generation) if generation.exists() else {}
            _write_json(generation, {**kept, **generation_config})


def _inspect(
    directory: Path, build: Callable[[DecoderConfig], Model]
) -> tuple[Model, dict[str, _Place], dict[str, _Stored]]:
    """A checkpoint's model on the meta device, its tensors, and where in the model each belongs.

    A tied embedding may be stored under its own name, that of the output projection, or both.
    """
    config = load_config(directory)
    stored = {name: tensor for name, tensor in _stored_tensors(directory) if not name.endswith("rotary_emb.inv_freq")}
    with torch.device("meta"):
        model = build(config)
    quantized = _quantized_places(directory, model, stored)
    places = {**_places(model), **quantized}
    if config.tie_word_embeddings and _OUTPUT in stored and hasattr(model, "lm_head"):
        places[_OUTPUT] = places[_EMBEDDING]
        if _EMBEDDING not in stored:
            del places[_EMBEDDING]
    problems = [
        *listing("missing", places.keys() - stored.keys()),
        *listing("unexpected", stored.keys() - places.keys()),
        *listing(
            "of the wrong shape",
            (
                f"{name} (is {list(stored[name].shape)}, config.json asks for {list(place.shape)})"
                for name, place in places.items()
                if name in stored and stored[name].shape != place.shape
            ),
        ),
        *listing(
            "of the wrong type",
            (
                f"{name} (is {tensor.dtype}, not {' or '.join(places[name].dtypes)})"
                for name, tensor in stored.items()
                if name in places and tensor.dtype not in places[name].dtypes
            ),
        ),
    ]
    if problems:
        raise CheckpointError(f"{directory}: tensors do not fit {_CONFIG}: {'; '.join(problems)}")
    return model, places, stored


def _places(model: nn.Module) -> dict[str, _Place]:
    """Where each tensor of the Hugging Face layout belongs in `model`; a tied output projection is left out."""
    places = {}
    stacked = {name for name, module in model.named_modules() if isinstance(module, SparseMoE)}
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if leaf.startswith("lora_"):
            continue
        if owner not in stacked or leaf not in ("gate_up_proj", "down_proj"):
            places[name] = _Place(name, tuple(parameter.shape))
            continue
        for stored_name, index in _expert_slices(owner, leaf, parameter):
            places[stored_name] = _Place(name, tuple(parameter[index].shape), index)
    return places


def _quantized_places(directory: Path, model: nn.Module, stored: dict[str, _Stored]) -> dict[str, _Place]:
    """Where the tensors of quantised layers belong, which `model` now has; those without a use leave `stored`."""
    try:
        quantization = read_quantization(read_json(directory / _CONFIG))
        schemes = {} if quantization is None else place_quantized_layers(model, quantization)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error
    places = {}
    for name, scheme in schemes.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, QuantizedLinear)
        for leaf, tensor in stored_tensors(layer, scheme).items():
            places[f"{name}.{leaf}"] = _Place(
                f"{name}.{tensor.buffer}", tensor.shape, dtypes=tensor.dtypes, read=tensor.read
            )
    for name in list(stored):
        owner, _, leaf = name.rpartition(".")
        if owner in schemes and is_unused(leaf):
            del stored[name]
    return places


def _stored_views(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the Hugging Face layout, as a view of the model's parameters; adapters are merged."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            parameters[f"{name}.weight"] = module.merged_weight()
    for name, place in _places(model).items():
        parameter = parameters[place.parameter]
        yield name, parameter if place.index is None else parameter[place.index]


def _expert_slices(owner: str, leaf: str, parameter: Tensor) -> Iterator[tuple[str, tuple[int, slice]]]:
    """Stored name, and expert and rows, of each matrix that a stacked parameter holds."""
    for expert in range(parameter.shape[0]):
        if leaf == "down_proj":
            yield f"{owner}.experts.{expert}.down_proj.weight", (expert, slice(None))
        else:
            half = parameter.shape[1] // 2
            yield f"{owner}.experts.{expert}.gate_proj.weight", (expert, slice(0, half))
            yield f"{owner}.experts.{expert}.up_proj.weight", (expert, slice(half, 2 * half))


def _stored_tensors(directory: Path) -> Iterator[tuple[str, _Stored]]:
    """Every tensor that the safetensors headers of a directory announce."""
    if (directory / _WEIGHTS).is_file():
        weight_map = None
        files = [_WEIGHTS]
    elif (directory / _INDEX).is_file():
        weight_map = read_json(directory / _INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise CheckpointError(f"{directory / _INDEX}: 'weight_map' is not a mapping of tensor names to file names")
        files = sorted(set(weight_map.values()))
    else:
        raise CheckpointError(f"{directory}: neither {_WEIGHTS} nor {_INDEX} is there")
    for file in files:
        if Path(file).name != file:
            raise CheckpointError(f"{directory / _INDEX}: shard {file!r} is not a plain file name")
        with open_tensors(directory / file) as opened:
            names = set(opened.keys())
            announced = names if weight_map is None else {name for name, at in weight_map.items() if at == file}
            if absent := listing("missing", announced - names):
                raise CheckpointError(f"{directory / file}: {_INDEX} promises tensors it lacks; {absent[0]}")
            for name in sorted(announced):
                header = opened.get_slice(name)
                yield name, _Stored(directory / file, tuple(header.get_shape()), header.get_dtype())


def _read_tensors(stored: Mapping[str, _Stored]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor, reading file after file."""
    by_file: dict[Path, list[str]] = {}
    for name, tensor in stored.items():
        by_file.setdefault(tensor.file, []).append(name)
    for file, names in by_file.items():
        with open_tensors(file) as opened:
            for name in names:
                yield name, opened.get_tensor(name)


def _keep_foreign_files(old: Path, new: Path) -> None:
    """Give `new` what `old` holds beside the model, by hard link where the file system has them."""
    for entry in old.iterdir():
        if entry.name in (_WEIGHTS, _INDEX, _CONFIG) or _SHARD.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=_link_or_copy)
        else:
            _link_or_copy(entry, new / entry.name)


def _link_or_copy(source: str | Path, destination: str | Path) -> None:
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, destination, follow_symlinks=False)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path`, which may be a hard link to a file still in use, with `value` as JSON."""
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
