import pytest
import torch

from kilonova.engine.kv_cache import KVCache, Segment
from kilonova.models.decoder.model import Decoder

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def read(model: Decoder, cache: KVCache, parts: list[tuple[int, int, torch.Tensor]]) -> list[torch.Tensor]:
    """Logits of one step over `(slot, start, token ids)` parts, one tensor `[length, vocab]` a part."""
    attend = cache.attend([Segment(slot, start, len(ids)) for slot, start, ids in parts])
    input_ids = torch.cat([ids for _, _, ids in parts])[None]
    positions = torch.cat([torch.arange(start, start + len(ids)) for _, start, ids in parts])[None]
    with torch.no_grad():
        logits = model(input_ids, position_ids=positions, attend=attend)[0]
    return list(logits.split([len(ids) for _, _, ids in parts]))


def new_cache(model: Decoder) -> KVCache:
    return KVCache(model.config, torch.float32, "cpu")


def random_ids(model: Decoder, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(model.config.vocab_size, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 2, 5, 16, 40])
def test_chunks_equal_the_whole_sequence(decoder, chunk):
    ids = random_ids(decoder, 40)
    cache = new_cache(decoder)
    parts = [read(decoder, cache, [(0, start, ids[start : start + chunk])])[0] for start in range(0, 40, chunk)]
    with torch.no_grad():
        whole = decoder(ids[None])[0]
    torch.testing.assert_close(torch.cat(parts), whole, **TOLERANCE)


def test_sequences_of_different_lengths_share_steps(decoder):
    """Sequences join at different steps, some in gaps between slots, and decode beside each other's prompts."""
    lengths = {0: 30, 1: 12, 2: 25, 4: 33, 7: 9}
    joins = {0: 0, 1: 2, 2: 2, 4: 5, 7: 6}
    prompt = {0: 11, 1: 1, 2: 8, 4: 20, 7: 3}
    ids = {slot: random_ids(decoder, length, seed=slot) for slot, length in lengths.items()}
    cache = new_cache(decoder)
    done = dict.fromkeys(lengths, 0)
    seen: dict[int, list[torch.Tensor]] = {slot: [] for slot in lengths}
    step = 0
    while any(done[slot] < lengths[slot] for slot in lengths):
        parts = []
        for slot in lengths:
            if step >= joins[slot] and done[slot] < lengths[slot]:
                length = prompt[slot] if done[slot] == 0 else 1
                parts.append((slot, done[slot], ids[slot][done[slot] : done[slot] + length]))
        parts.sort(key=lambda part: len(part[2]) > 1)
        for (slot, start, part), logits in zip(parts, read(decoder, cache, parts), strict=True):
            seen[slot].append(logits)
            done[slot] = start + len(part)
        step += 1
    for slot in lengths:
        with torch.no_grad():
            whole = decoder(ids[slot][None])[0]
        torch.testing.assert_close(torch.cat(seen[slot]), whole, **TOLERANCE)


def test_a_long_sequence_beside_short_ones(make_decoder):
    """Lengths so far apart that one padded call would be wasteful."""
    model = make_decoder("qwen3-mixed-windows")
    lengths = [3, 590, 4, 5]
    ids = [random_ids(model, length, seed=length) for length in lengths]
    cache = new_cache(model)
    for slot, prompt in enumerate(ids):
        read(model, cache, [(slot, 0, prompt[:-1])])
    last = read(model, cache, [(slot, len(prompt) - 1, prompt[-1:]) for slot, prompt in enumerate(ids)])
    for prompt, logits in zip(ids, last, strict=True):
        with torch.no_grad():
            whole = model(prompt[None])[0, -1:]
        torch.testing.assert_close(logits, whole, **TOLERANCE)


def test_memory_follows_use(make_decoder):
    model = make_decoder("qwen2")
    cache = new_cache(model)
    assert (cache.num_slots, cache.num_tokens) == (0, 0)
    read(model, cache, [(0, 0, random_ids(model, 10)), (1, 0, random_ids(model, 20))])
    assert (cache.num_slots, cache.capacity, cache.num_tokens) == (2, 256, 30)
    read(model, cache, [(2, 0, random_ids(model, 300))])
    assert (cache.num_slots, cache.capacity, cache.num_tokens) == (4, 512, 330)
    cache.release(2)
    assert cache.num_tokens == 30


def test_growth_keeps_what_was_written(make_decoder):
    model = make_decoder("qwen2")
    cache = new_cache(model)
    ids = random_ids(model, 20)
    first = read(model, cache, [(0, 0, ids[:10])])[0]
    read(model, cache, [(5, 0, random_ids(model, 400))])
    rest = read(model, cache, [(0, 10, ids[10:])])[0]
    with torch.no_grad():
        whole = model(ids[None])[0]
    torch.testing.assert_close(torch.cat((first, rest)), whole, **TOLERANCE)


def test_a_released_slot_holds_nothing_of_its_owner(make_decoder):
    """Values that are not numbers must not reach the next owner through masked positions."""
    model = make_decoder("qwen2")
    cache = new_cache(model)
    read(model, cache, [(0, 0, random_ids(model, 60)), (1, 0, random_ids(model, 60))])
    for tensor in (*cache.keys, *cache.values):
        tensor[0, :, :60] = float("nan")
    cache.release(0)
    ids = random_ids(model, 5, seed=9)
    read(model, cache, [(0, 0, ids[:4])])
    logits, _ = read(model, cache, [(0, 4, ids[4:]), (1, 60, ids[:1])])
    with torch.no_grad():
        whole = model(ids[None])[0, -1:]
    torch.testing.assert_close(logits, whole, **TOLERANCE)


def test_storage_is_given_back_when_idle(make_decoder):
    model = make_decoder("llama-multi-head")
    cache = new_cache(model)
    cache.reserve([Segment(slot, 0, 2000) for slot in range(64)])
    assert sum(tensor.nbytes for tensor in cache.keys) > 64 * 2**20
    for slot in range(64):
        cache.release(slot)
    assert cache.num_slots == 0
