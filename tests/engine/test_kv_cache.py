import numpy as np
import psutil
import pytest
import torch

from kilonova.core.errors import ConfigError, EngineError
from kilonova.engine.kv_cache import KVCache, Segment
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
MIB = 2**20


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


def test_a_prompt_is_attended_to_in_pieces_where_its_mask_would_be_large(decoder, monkeypatch):
    monkeypatch.setattr("kilonova.engine.kv_cache._MASK_VALUES", 1)
    ids = random_ids(decoder, 100)
    cache = new_cache(decoder)
    parts = [read(decoder, cache, [(0, start, ids[start : start + 45])])[0] for start in range(0, 100, 45)]
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


def test_blocks_go_from_one_sequence_to_another(make_decoder):
    """Sequences whose blocks are those that others gave up, out of order."""
    model = make_decoder("qwen2")
    cache = new_cache(model)
    for slot in range(4):
        read(model, cache, [(slot, 0, random_ids(model, 70, seed=slot))])
    for slot in (2, 0, 3):
        cache.release(slot)
    ids = random_ids(model, 150, seed=9)
    first = read(model, cache, [(3, 0, ids[:130])])[0]
    rest = read(model, cache, [(1, 70, ids[:1]), (3, 130, ids[130:])])[1]
    assert list(cache.blocks.groups[0].table[3, :10]) != sorted(cache.blocks.groups[0].table[3, :10])
    with torch.no_grad():
        whole = model(ids[None])[0]
    torch.testing.assert_close(torch.cat((first, rest)), whole, **TOLERANCE)


def test_blocks_hold_nothing_of_their_last_owner(make_decoder):
    """Values that are not numbers must not reach the next owner through masked positions."""
    model = make_decoder("qwen3-mixed-windows")
    cache = new_cache(model)
    read(model, cache, [(0, 0, random_ids(model, 60)), (1, 0, random_ids(model, 60))])
    for layer, group in enumerate(cache.group_of_layer):
        blocks = [block for block in cache.blocks.groups[group].table[0].tolist() if block]
        for tensor in (cache.keys[layer], cache.values[layer]):
            tensor[blocks] = float("nan")
    cache.release(0)
    for slot in (0, 2):
        ids = random_ids(model, 21, seed=9)
        read(model, cache, [(slot, 0, ids[:20])])
        logits, _ = read(model, cache, [(slot, 20, ids[20:]), (1, 60 + slot // 2, ids[:1])])
        with torch.no_grad():
            whole = model(ids[None])[0, -1:]
        torch.testing.assert_close(logits, whole, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_over_blocks_is_plain_attention(make_decoder, dtype):
    """Against the formula, in float64, on the values that the dtype holds."""
    config = make_decoder("qwen3-mixed-windows").config
    cache = KVCache(config, dtype, "cpu")
    generator = torch.Generator().manual_seed(0)
    lengths = [40, 33, 7]
    shapes = ((config.num_attention_heads, 3), (config.num_key_value_heads, 3), (config.num_key_value_heads, 3))
    data = [
        [torch.randn(length, heads, config.head_dim, generator=generator).to(dtype) for heads, _ in shapes]
        for length in lengths
    ]
    for slot, (query, key, value) in enumerate(data):
        attend = cache.attend([Segment(slot, 0, lengths[slot] - 1)])
        for layer in range(3):
            attend.attend_flat(query[:-1], key[:-1], value[:-1], layer, config.window(layer))
    attend = cache.attend([Segment(slot, length - 1, 1) for slot, length in enumerate(lengths)])
    query, key, value = (torch.stack([one[part][-1] for one in data]) for part in range(3))
    for layer in range(3):
        window = config.window(layer) or 1000
        actual = attend.attend_flat(query, key, value, layer, config.window(layer))
        for row, (_, keys, values) in enumerate(data):
            keys, values = (part[-window:].double().repeat_interleave(2, dim=1) for part in (keys, values))
            scores = torch.einsum("hd,thd->ht", query[row].double(), keys) / config.head_dim**0.5
            expected = torch.einsum("ht,thd->hd", scores.softmax(dim=-1), values)
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2
            torch.testing.assert_close(actual[row].double(), expected, rtol=tolerance, atol=tolerance)


def config_of(context: int, **changes: object) -> DecoderConfig:
    shape = {"model_type": "qwen3", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "head_dim": 64}
    heads = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4}
    return DecoderConfig.from_hf({**shape, **heads, "max_position_embeddings": context, **changes})


def test_the_default_size_is_every_sequence_at_full_context_within_a_quarter_of_memory():
    small = KVCache(config_of(1024), torch.float32, "cpu", max_num_seqs=3)
    token = 2 * 4 * 4 * 64 * 4
    assert small.num_bytes == (3 * 1024 + 16) * token
    assert small.max_length == 1024
    assert sum(tensor.nbytes for tensor in (*small.keys, *small.values)) == small.num_bytes
    large = KVCache(config_of(2**24), torch.bfloat16, "cpu", max_num_seqs=300)
    quarter = psutil.virtual_memory().total // 4
    assert quarter - token * 16 < large.num_bytes <= quarter
    assert large.max_length == (large.num_bytes // (token * 8) - 1) * 16


def test_a_size_in_bytes_bounds_the_longest_sequence():
    block = 16 * 2 * 4 * 4 * 64 * 4
    cache = KVCache(config_of(1024), torch.float32, "cpu", num_bytes=10 * block + 100)
    assert (cache.num_bytes, cache.max_length) == (10 * block, 144)
    with pytest.raises(EngineError, match="full"):
        cache.reserve([Segment(0, 0, 100), Segment(1, 0, 100)])
    with pytest.raises(ConfigError, match="kv_cache_bytes"):
        KVCache(config_of(1024), torch.float32, "cpu", num_bytes=block)


def test_windowed_layers_take_what_their_window_needs():
    config = config_of(
        65_536, use_sliding_window=True, sliding_window=128, layer_types=["sliding_attention"] * 3 + ["full_attention"]
    )
    cache = KVCache(config, torch.float32, "cpu", max_num_seqs=2)
    windowed, full = (group.pool.num_blocks for group in cache.blocks.groups)
    assert full == 2 * 65_536 // 16 + 1
    assert windowed == 2 * 2 * ((128 + 512) // 16 + 1) + 1
    assert cache.group_of_layer == [0, 0, 0, 1]
    limited = KVCache(config, torch.float32, "cpu", max_num_seqs=2, num_bytes=20 * MIB)
    assert limited.num_bytes <= 20 * MIB
    assert limited.max_length < 65_536


def test_memory_follows_use_at_a_long_context():
    config = config_of(131_072)
    process = psutil.Process()
    before = process.memory_info().rss
    cache = KVCache(config, torch.float32, "cpu", max_num_seqs=4)
    assert cache.max_length == 131_072
    assert cache.num_bytes > 4000 * MIB
    assert process.memory_info().rss - before < 40 * MIB
    token = 2 * 4 * 4 * 64 * 4
    query, key, value = (torch.ones(512, heads, 64) for heads in (8, 4, 4))
    tokens = 8192
    for start in range(0, tokens, 512):
        cache.reserve([Segment(0, start, 512)])
        blocks = cache.blocks.groups[0].table[0, start // 16 : (start + 512) // 16].astype(np.int64)
        for tensor in (*cache.keys, *cache.values):
            tensor[torch.from_numpy(blocks)] = 1.0
    used = process.memory_info().rss - before
    assert tokens * token <= used < tokens * token + 60 * MIB
    attend = cache.attend([Segment(0, tokens, 1)])
    out = attend.attend_flat(query[:1], key[:1], value[:1], 0, None)
    torch.testing.assert_close(out, torch.ones(1, 8, 64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_attends_as_the_cpu_does(make_decoder):
    model = make_decoder("qwen3-mixed-windows")
    ids = random_ids(model, 60)
    results = []
    for device in ("cpu", "cuda"):
        model.to(device)
        cache = KVCache(model.config, torch.float32, device, num_bytes=16 * MIB)
        read(model, cache, [(0, 0, ids[:40].to(device)), (1, 0, ids[:7].to(device))])
        parts = read(model, cache, [(0, 40, ids[40:41].to(device)), (1, 7, ids[7:].to(device))])
        results.append(torch.cat(parts).cpu())
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
