"""Log-probabilities under the model that a run starts from, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kilonova.core.errors import DataError
from kilonova.core.files import write_atomic
from kilonova.core.progress import ProgressReporter
from kilonova.data.preferences import TokenizedPairs
from kilonova.train.language_context import LanguageContext
from kilonova.train.objectives.pairs import PairData, completion_log_probs, reshard
from kilonova.train.placed import PlacedDecoder


def reference_log_probs(
    context: LanguageContext, model: PlacedDecoder, digest: str, data: PairData, name: str, pairs: TokenizedPairs
) -> Tensor:
    """Log-probabilities `[P, 2]` of the completions of one source under `model` as it is now, float32 on the CPU.

    They are read from the recipe's cache when the same weights were asked about the same pairs before: the file's name
    is a digest of both (`digest` is the model's, see `model_digest`), of the row length and of the number format. Pairs
    that fit no row get NaN. Raises DataError for a damaged file.
    """
    rows = data.packed(pairs)
    identity = [pairs.digest, digest, rows.sequence_length, str(model.dtype)]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    path = Path(context.recipe.data.cache) / f"{name}-reference-{key}.npy"
    is_missing = not path.exists()
    if context.mesh is not None:
        (is_missing,) = context.mesh.any_rank(is_missing)
    if not is_missing:
        return _read(path, len(pairs))
    found = torch.full((len(pairs), 2), torch.nan)
    with torch.no_grad(), ProgressReporter(f"reference of {name}: pairs", rows.num_pairs) as progress:
        done = 0
        for batch in data.batches(rows):
            found[batch.pairs[batch.pairs >= 0]] = completion_log_probs(model, batch.to(model.device)).cpu()
            done += batch.num_pairs
            progress.update(done)
    reshard(model)
    if context.mesh is None or context.mesh.is_main:
        buffer = io.BytesIO()
        np.save(buffer, found.numpy())
        write_atomic(path, buffer.getvalue())
    return found


def _read(path: Path, num_pairs: int) -> Tensor:
    try:
        stored = torch.from_numpy(np.load(path))
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it, and it is made again") from error
    if stored.shape != (num_pairs, 2):
        raise DataError(f"{path} holds {tuple(stored.shape)} numbers, not {(num_pairs, 2)}; remove it")
    return stored


@torch.no_grad()
def model_digest(model: nn.Module) -> str:
    """A digest of the names, shapes and values of all parameters, before the model's first forward pass."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        # A copy, as memory that NumPy has seen cannot be freed by FSDP2 any more.
        copied = whole.detach().to("cpu", copy=True).flatten()
        digest.update(copied.view(torch.uint8).numpy().data)
    return digest.hexdigest()
