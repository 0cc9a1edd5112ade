from __future__ import annotations

import pytest
import torch

from kilonova.engine.kv_cache import KVCache, Segment
from kilonova.engine.runner import ModelRunner, StepTokens
from kilonova.models.checkpoint import load_decoder

CHUNKS = {"token by token": [1] * 40, "in chunks": [9, 1, 1, 14, 2, 13]}


@pytest.mark.parametrize("lengths", CHUNKS.values(), ids=CHUNKS)
@torch.inference_mode()
def test_the_decoder_over_the_cache_agrees_with_transformers(reference, lengths):
    model = load_decoder(reference.directory)
    cache = KVCache(model.config, torch.float32, "cpu")
    logits, start = [], 0
    for part in reference.input_ids.split(lengths, dim=1):
        positions = torch.arange(start, start + part.shape[1])[None]
        attend = cache.attend([Segment(slot=0, start=start, length=part.shape[1])])
        logits.append(model(part, position_ids=positions, attend=attend))
        start += part.shape[1]
    torch.testing.assert_close(torch.cat(logits, dim=1), reference.logits, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_runner_agrees_with_transformers_on_interleaved_sequences(reference):
    runner = ModelRunner(load_decoder(reference.directory))
    tokens = reference.input_ids[0].tolist()
    done, logits = [0, 0], [[], []]
    plan = [(6, 0), (1, 11), (1, 1), (20, 1), (1, 5), (1, 1), (4, 1), (1, 20), (5, 0)]
    for lengths in plan:
        step = [
            StepTokens(slot, done[slot], tokens[done[slot] : done[slot] + length])
            for slot, length in enumerate(lengths)
            if length
        ]
        rows = runner.logits(runner.step(step)).split([len(one.token_ids) for one in step])
        for one, part in zip(step, rows, strict=True):
            logits[one.slot].append(part)
            done[one.slot] += len(one.token_ids)
    assert done == [40, 40]
    for parts in logits:
        torch.testing.assert_close(torch.cat(parts)[None], reference.logits, atol=1e-4, rtol=0)
