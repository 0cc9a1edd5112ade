"""Pictures encoded once, to be trained on many times."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kilonova.core.errors import DataError
from kilonova.core.files import atomic_directory
from kilonova.data.pictures.batches import Pictures
from kilonova.data.pictures.examples import ConditionsSection, draw_example
from kilonova.data.pictures.sources import ParquetPictures
from kilonova.data.sources import resolve
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.train.pictures.conditions import Prepared, collate, prepare
from kilonova.train.pictures.context import PictureContext
from kilonova.train.pictures.recipe import PictureRecipe

Size = tuple[int, int]

_LATENTS_FILE = "latents.float16"
_INDEX_FILE = "examples.safetensors"
_CAPTIONS_FILE = "captions.json"
# Part of every hash: another form of files, or other draws, are another cache.
_VERSION = 1
# Examples that are drawn at a time.
_CHUNK = 64
# Fewer examples are not worth starting processes.
_WORTH_PROCESSES = 4096


def views_at(size: Size, recipe: PictureRecipe) -> int:
    """How many of the `flow.views` of a picture are at a size: it may be named several times."""
    sizes = recipe.pictures.sizes
    return (recipe.flow.views or 0) // len(sizes) * sizes.count(size)


def draw_view(
    pictures: Pictures, row: tuple[int, int, int], size: Size, conditions: ConditionsSection, seed: int
) -> Prepared:
    """One of the views of a picture: `row` are the number of the source, the index in it, and that of the view."""
    generator = np.random.default_rng([seed, 2, *row, *size])
    return prepare(draw_example(pictures, row[1], size, conditions, generator))


class LatentCache:
    """Latents, in float16, of the `flow.views` views of every picture of a recipe.

    They are in folders below `flow.cache`, named by a hash of all that they depend on: the autoencoder's weights, the
    source with its file, the size, the conditions, the number of views and the seed. What is not there is made, on the
    main rank, with a process a core to draw pictures; the other ranks wait.
    """

    def __init__(self, context: PictureContext, sources: Sequence[Pictures], autoencoder: ImageAutoencoder) -> None:
        section, recipe = context.recipe.flow, context.recipe
        self._views = {size: views_at(size, recipe) for size in recipe.pictures.sizes}
        weights = _hash_of_weights(autoencoder)
        folders = {
            (number, size): Path(section.cache or "") / _folder_name(pictures, number, size, context, weights)
            for number, pictures in enumerate(sources)
            for size in dict.fromkeys(recipe.pictures.sizes)
        }
        if context.mesh is None or context.mesh.is_main:
            for (number, size), folder in folders.items():
                if not folder.is_dir():
                    _build(folder, sources[number], number, size, context, autoencoder)
        if context.mesh is not None:
            dist.barrier()
        self._stores = {key: _Store(folder) for key, folder in folders.items()}

    def example(self, row: tuple[int, int, int], size: Size) -> Prepared:
        """What `draw_view` would draw, with latents in place of pictures."""
        number, index, view = row
        return self._stores[number, size].example(index * self._views[size] + view)


class _Store:
    """The examples of one folder; DataError if it is not whole."""

    def __init__(self, folder: Path) -> None:
        try:
            self._columns = load_file(folder / _INDEX_FILE)
            self._captions = json.loads((folder / _CAPTIONS_FILE).read_text(encoding="utf-8"))
            shape = tuple(self._columns["shape"].tolist())
            self._latents = np.memmap(folder / _LATENTS_FILE, np.float16, "r", shape=shape)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DataError(
                f"{folder}: not a whole cache of latents; remove it, and it is made anew: {error}"
            ) from error

    def example(self, row: int) -> Prepared:
        columns = self._columns
        first, last = columns["first_picture"][row : row + 2]
        first_colour, last_colour = columns["first_colour"][row : row + 2]
        mask = int(columns["mask_row"][row])
        return Prepared(
            pictures=np.array(self._latents[first:last]),
            caption=self._captions[row],
            needs_caption=bool(columns["needs_caption"][row]),
            mask=None if mask < 0 else columns["masks"][mask],
            control_type=int(columns["control_type"][row]),
            control_strength=float(columns["control_strength"][row]),
            num_references=int(columns["num_references"][row]),
            similarity=float(columns["similarity"][row]),
            palette=columns["palette"][first_colour:last_colour],
        )


@torch.no_grad()
def _build(
    folder: Path, pictures: Pictures, number: int, size: Size, context: PictureContext, autoencoder: ImageAutoencoder
) -> None:
    recipe = context.recipe
    rows = [(number, index, view) for index in range(len(pictures)) for view in range(views_at(size, recipe))]
    drawing = _Drawing(pictures, size, recipe.flow.conditions, recipe.seed)
    examples: list[Prepared] = []
    shape: tuple[int, ...] = ()
    with atomic_directory(folder) as temporary:
        with (temporary / _LATENTS_FILE).open("wb") as file:
            for drawn in _drawn(drawing, rows):
                latents = autoencoder.encode(collate(drawn).pictures.to(context.device))
                latents.half().cpu().numpy().tofile(file)
                shape = tuple(latents.shape[1:])
                examples += [replace(example, pictures=np.empty((len(example.pictures), 0))) for example in drawn]
        save_file(_columns(examples, shape), temporary / _INDEX_FILE)
        captions = json.dumps([example.caption for example in examples], ensure_ascii=False)
        (temporary / _CAPTIONS_FILE).write_text(captions, encoding="utf-8")


def _columns(examples: Sequence[Prepared], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What is known of examples beside pictures and captions, one array a member."""
    masks = [example.mask for example in examples if example.mask is not None]
    has_mask = np.array([example.mask is not None for example in examples])
    first_picture = np.cumsum([0, *(len(example.pictures) for example in examples)])
    columns = {
        name: np.array([getattr(example, name) for example in examples])
        for name in ("needs_caption", "control_type", "control_strength", "num_references", "similarity")
    }
    return columns | {
        "shape": np.array([first_picture[-1], *shape]),
        "first_picture": first_picture,
        "masks": np.stack(masks) if masks else np.zeros((0, *shape[1:]), np.float32),
        "mask_row": np.where(has_mask, np.cumsum(has_mask) - 1, -1),
        "first_colour": np.cumsum([0, *(len(example.palette) for example in examples)]),
        "palette": np.concatenate([example.palette for example in examples]),
    }


@dataclass(frozen=True)
class _Drawing:
    pictures: Pictures
    size: Size
    conditions: ConditionsSection
    seed: int

    def __call__(self, rows: Sequence[tuple[int, int, int]]) -> list[Prepared]:
        return [draw_view(self.pictures, row, self.size, self.conditions, self.seed) for row in rows]


# Set in each process that draws, as sources are too large to be sent along with every piece of work.
_drawing: _Drawing | None = None


def _begin(drawing: _Drawing) -> None:
    global _drawing
    torch.set_num_threads(1)
    _drawing = drawing


def _draw(rows: Sequence[tuple[int, int, int]]) -> list[Prepared]:
    assert _drawing is not None
    return _drawing(rows)


def _drawn(drawing: _Drawing, rows: Sequence[tuple[int, int, int]]) -> Iterator[list[Prepared]]:
    """The examples of `rows`, in order, some at a time."""
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(rows) < _WORTH_PROCESSES or processes == 1:
        yield from map(drawing, chunks)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (drawing,)) as pool:
        for start in range(0, len(chunks), 8 * processes):
            yield from pool.map(_draw, chunks[start : start + 8 * processes])


def _folder_name(pictures: Pictures, number: int, size: Size, context: PictureContext, weights: str) -> str:
    """A name that changes with all that the latents of a source depend on."""
    recipe, source = context.recipe, pictures.source
    file = ""
    if isinstance(pictures, ParquetPictures):
        with resolve(pictures.source, recipe.pictures.root).open("rb") as opened:
            file = hashlib.file_digest(opened, "sha256").hexdigest()
    parts = [weights, file, asdict(source), number, size, asdict(recipe.flow.conditions), views_at(size, recipe)]
    digest = hashlib.sha256(json.dumps([_VERSION, *parts, recipe.seed]).encode()).hexdigest()
    return f"{source.name}-{size[0]}x{size[1]}-{digest[:16]}"


def _hash_of_weights(autoencoder: ImageAutoencoder) -> str:
    digest = hashlib.sha256(json.dumps(autoencoder.config.to_dict()).encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
