"""Read and write models as diffusers-style folders: one folder a component, and an index of them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kilonova.core.errors import CheckpointError, ConfigError, nearest
from kilonova.core.files import atomic_directory
from kilonova.models.autoencoder.config import ImageAutoencoderConfig
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.classifier.config import AttributeClassifierConfig
from kilonova.models.classifier.model import AttributeClassifier
from kilonova.models.component_config import ComponentConfig
from kilonova.models.dit.config import DiTConfig
from kilonova.models.dit.model import DiT
from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.models.segmenter.model import MixedQuerySegmenter
from kilonova.models.shards import MAX_SHARD_BYTES, listing, read_json, read_tensors, tensor_shapes, write_tensors
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.unet.config import UNetConfig
from kilonova.models.unet.model import UNet
from kilonova.models.uvit.config import UViTConfig
from kilonova.models.uvit.model import UViT
from kilonova.text.tokenizer import Tokenizer

INDEX_FILE = "model_index.json"
_STEM = "diffusion_pytorch_model"
_CONFIG = "config.json"
_SCHEDULER_CONFIG = "scheduler_config.json"
_CLASS_NAME = "_class_name"
_LIBRARY = "kilonova"

_COMPONENTS: dict[str, tuple[type[ComponentConfig], type[nn.Module]]] = {
    "UViT": (UViTConfig, UViT),
    "DiT": (DiTConfig, DiT),
    "UNet": (UNetConfig, UNet),
    "ImageAutoencoder": (ImageAutoencoderConfig, ImageAutoencoder),
    "TextTransformer": (TextTransformerConfig, TextTransformer),
    "AttributeClassifier": (AttributeClassifierConfig, AttributeClassifier),
    "MixedQuerySegmenter": (MixedQuerySegmenterConfig, MixedQuerySegmenter),
}


Component = nn.Module | Tokenizer | Mapping[str, Any]


def build_component(config: ComponentConfig) -> nn.Module:
    """The network that `config` describes, with weights yet to be drawn or read."""
    for config_type, model_type in _COMPONENTS.values():
        if type(config) is config_type:
            return model_type(config)
    raise ConfigError(f"{type(config).__name__} describes no component; allowed: {', '.join(_COMPONENTS)}")


def read_config(mapping: Mapping[str, Any], source: str) -> ComponentConfig:
    """The configuration in a parsed `config.json`, of the class it names; ConfigError, which names `source`."""
    name = mapping.get(_CLASS_NAME)
    if name not in _COMPONENTS:
        raise ConfigError(f"{source}: {_CLASS_NAME}: {name!r} is no component; {nearest(str(name), _COMPONENTS)}")
    try:
        return _COMPONENTS[name][0].from_dict(mapping)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def save_component(
    model: nn.Module,
    directory: str | Path,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    dtype: torch.dtype | None = None,
) -> None:
    """Write `config.json` and `diffusion_pytorch_model.safetensors`, or shards of it with an index.

    `dtype` None keeps each tensor's. The directory appears whole, in place of what it was before.
    """
    config = _config_of(model)
    tensors = {name: tensor.to(dtype) if dtype else tensor for name, tensor in model.state_dict().items()}
    with atomic_directory(_destination(directory)) as temporary:
        _write_json(temporary / _CONFIG, {_CLASS_NAME: type(model).__name__, **config.to_dict()})
        write_tensors(tensors, temporary, _STEM, max_shard_bytes)


def load_component(
    directory: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> nn.Module:
    """The network that `save_component` wrote, in evaluation mode on `device`, of the class that its config names.

    `dtype` None keeps each tensor's. CheckpointError names missing, unexpected and mis-shaped tensors before any is
    read, and files that are missing or damaged; ConfigError an unknown class or key.
    """
    directory = Path(directory)
    path = directory / _CONFIG
    mapping = read_json(path)
    config = read_config(mapping, str(path))
    with torch.device("meta"):
        model = build_component(config)
    _check_shapes(directory, model.state_dict(), tensor_shapes(directory, _STEM))
    model.load_state_dict(dict(read_tensors(directory, _STEM, dtype, device)), assign=True)
    return model.to(device).eval()


def save_folder(
    components: Mapping[str, Component], directory: str | Path, class_name: str, dtype: torch.dtype | None = None
) -> None:
    """Write a whole folder: `model_index.json`, which gives `class_name` and each component, and a folder for each.

    A component is a network, a tokenizer, or a mapping that a scheduler's configuration holds, with its
    `_class_name`. The folder appears whole, in place of what it was before.
    """
    with atomic_directory(_destination(directory)) as temporary:
        index: dict[str, Any] = {_CLASS_NAME: class_name}
        for name, component in components.items():
            folder = temporary / name
            if isinstance(component, nn.Module):
                save_component(component, folder, dtype=dtype)
                index[name] = [_LIBRARY, type(component).__name__]
            elif isinstance(component, Tokenizer):
                _save_tokenizer(component, folder)
                index[name] = [_LIBRARY, Tokenizer.__name__]
            else:
                folder.mkdir()
                _write_json(folder / _SCHEDULER_CONFIG, component)
                index[name] = [_LIBRARY, str(component[_CLASS_NAME])]
        _write_json(temporary / INDEX_FILE, index)


def is_own_folder(index: Mapping[str, Any]) -> bool:
    """Whether a parsed `model_index.json` is one that `save_folder` wrote, rather than another library's."""
    return all(entry[:1] == [_LIBRARY] for entry in index.values() if isinstance(entry, list))


def load_folder(
    directory: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> dict[str, Component]:
    """The components of a folder that `save_folder` wrote, by name; errors as `load_component`.

    CheckpointError for a component of another library, which has a reader of its own.
    """
    directory = Path(directory)
    components: dict[str, Component] = {}
    for name, entry in read_json(directory / INDEX_FILE).items():
        if name.startswith("_"):
            continue
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] != _LIBRARY:
            raise CheckpointError(f"{directory / INDEX_FILE}: {name}: {entry!r} is not a component of {_LIBRARY}")
        folder = directory / name
        if entry[1] in _COMPONENTS:
            components[name] = load_component(folder, dtype, device)
        elif entry[1] == Tokenizer.__name__:
            components[name] = Tokenizer.from_directory(folder)
        else:
            components[name] = read_json(folder / _SCHEDULER_CONFIG)
    return components


def _destination(directory: str | Path) -> Path:
    path = Path(directory).resolve()
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: is a file, not a directory")
    return path


def _config_of(model: nn.Module) -> ComponentConfig:
    for config_type, model_type in _COMPONENTS.values():
        if type(model) is model_type and isinstance(model.config, config_type):
            return model.config
    raise ConfigError(f"{type(model).__name__} is no component; allowed: {', '.join(_COMPONENTS)}")


def _check_shapes(directory: Path, expected: Mapping[str, Tensor], stored: Mapping[str, tuple[int, ...]]) -> None:
    mis_shaped = [
        f"{name} (is {list(stored[name])}, {_CONFIG} asks for {list(tensor.shape)})"
        for name, tensor in expected.items()
        if name in stored and stored[name] != tuple(tensor.shape)
    ]
    problems = [
        *listing("missing", expected.keys() - stored.keys()),
        *listing("unexpected", stored.keys() - expected.keys()),
        *listing("of the wrong shape", mis_shaped),
    ]
    if problems:
        raise CheckpointError(f"{directory}: tensors do not fit {_CONFIG}: {'; '.join(problems)}")


def _save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    directory.mkdir()
    (directory / "tokenizer.json").write_text(tokenizer.backend.to_str(pretty=False), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.token_text(tokenizer.eos_token_id),
        "clean_up_tokenization_spaces": False,
    }
    _write_json(directory / "tokenizer_config.json", settings)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
