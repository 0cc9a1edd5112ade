"""Tensors in one safetensors file, or in several with an index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kilonova.core.errors import CheckpointError

MAX_SHARD_BYTES = 16 * 2**20
_HEADER_BYTES_PER_TENSOR = 256
_NAMES_SHOWN = 5


def write_tensors(
    tensors: Mapping[str, Tensor], directory: Path, stem: str, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write `STEM.safetensors`, or shards of at most `max_shard_bytes` with `STEM.safetensors.index.json`.

    A tensor that alone exceeds the limit gets a shard to itself.
    """
    sizes = {name: tensor.numel() * tensor.dtype.itemsize for name, tensor in tensors.items()}
    shards = plan_shards(sizes, max_shard_bytes)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map.update(dict.fromkeys(names, file))
        contents = {name: tensors[name].detach().cpu().contiguous() for name in names}
        save_file(contents, directory / file, metadata={"format": "pt"})
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def tensor_shapes(directory: Path, stem: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor there, from the headers; CheckpointError for missing or damaged files."""
    shapes = {}
    for file, names in _files(directory, stem).items():
        with open_tensors(directory / file) as tensors:
            present = set(tensors.keys())
            for name in sorted(present if names is None else names):
                if name not in present:
                    raise CheckpointError(f"{directory / file}: the index promises {name}, which is not there")
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    return shapes


def read_tensors(
    directory: Path, stem: str, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor on `device`, in `dtype` (None: as stored), file after file; errors as `tensor_shapes`."""
    for file, names in _files(directory, stem).items():
        with open_tensors(directory / file) as tensors:
            for name in sorted(tensors.keys() if names is None else names):
                yield name, tensors.get_tensor(name).to(device=device, dtype=dtype)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError for a file that is missing or holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object is expected, not {type(value).__name__}")
    return value


def listing(what: str, names: Iterable[str]) -> list[str]:
    """A clause such as `missing: a, b and 3 more`, or nothing."""
    names = sorted(names)
    if not names:
        return []
    rest = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return [f"{what}: {', '.join(names[:_NAMES_SHOWN])}{rest}"]


def _files(directory: Path, stem: str) -> dict[str, list[str] | None]:
    """The files to read, each with the names it is to give; None for all it has."""
    if (directory / f"{stem}.safetensors").is_file():
        return {f"{stem}.safetensors": None}
    index = directory / f"{stem}.safetensors.index.json"
    if not index.is_file():
        raise CheckpointError(f"{directory}: neither {stem}.safetensors nor {index.name} is there")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: 'weight_map' is not a mapping of tensor names to file names")
    files: dict[str, list[str] | None] = {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise CheckpointError(f"{index}: shard {file!r} is not a plain file name")
        files[file] = [name for name, place in weight_map.items() if place == file]
    return files


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """A safetensors file, read rather than mapped, so that its pages do not add to the process's memory."""
    try:
        with safe_open(file, framework="pt", backend="pread") as opened:
            yield opened
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: the file is missing") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: truncated or not a safetensors file: {error}") from error


def plan_shards(sizes: Mapping[str, int], max_shard_bytes: int) -> list[list[str]]:
    """Tensor names in order, cut so that each file with its header stays within `max_shard_bytes` if it can."""
    shards: list[list[str]] = [[]]
    used = _HEADER_BYTES_PER_TENSOR
    for name, size in sizes.items():
        needed = size + _HEADER_BYTES_PER_TENSOR
        if shards[-1] and used + needed > max_shard_bytes:
            shards.append([])
            used = _HEADER_BYTES_PER_TENSOR
        shards[-1].append(name)
        used += needed
    return shards
