import hashlib
import struct
from pathlib import Path

import pytest
import torch

from kilonova.data.prompts import Prompt
from kilonova.engine.sampling import uniform
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.train.experience import make_rollout
from kilonova.train.placed import PlacedDecoder
from kilonova.train.rollout import Completion, EngineGenerator, completion_seed

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [9], list(range(20, 60)), [5, 6, 7], [100, 200]]
STOP = frozenset({3, 4})


def policy(directory: Path, dtype: torch.dtype = torch.float32) -> PlacedDecoder:
    return PlacedDecoder(load_decoder(directory), CPU, dtype)


def expected_log_probs(model: PlacedDecoder, prompt: list[int], answer: tuple[int, ...], temperature: float) -> list:
    with torch.no_grad(), model.autocast():
        logits = model.decoder(torch.tensor([[*prompt, *answer]]))[0, len(prompt) - 1 : -1]
    table = (logits.double() / temperature).log_softmax(dim=-1)
    return table[range(len(answer)), list(answer)].tolist()


@pytest.mark.parametrize(("temperature", "max_num_seqs"), [(1.0, 64), (0.7, 2)])
def test_log_probabilities_and_draws_are_those_of_the_policy(tiny_micro_directory, temperature, max_num_seqs):
    model = policy(tiny_micro_directory)
    seeds = [completion_seed(0, 0, index) for index in range(len(PROMPTS))]
    generator = EngineGenerator(model, STOP, max_num_seqs)
    completions = generator.generate(PROMPTS, seeds, max_new_tokens=12, temperature=temperature)
    for prompt, seed, completion in zip(PROMPTS, seeds, completions, strict=True):
        expected = expected_log_probs(model, prompt, completion.token_ids, temperature)
        assert completion.log_probs == pytest.approx(expected, abs=1e-4)
        assert completion.is_complete == (completion.token_ids[-1] in STOP)
        assert completion.is_complete or len(completion.token_ids) == 12
        assert not STOP & set(completion.token_ids[:-1])
        with torch.no_grad():
            logits = model.decoder(torch.tensor([[*prompt, *completion.token_ids]]))[0, len(prompt) - 1 : -1]
        for index, token in enumerate(completion.token_ids):
            below = (logits[index].double() / temperature).softmax(0).cumsum(0)
            low = below[token - 1].item() if token else 0.0
            assert low - 1e-5 <= uniform(seed, index) <= below[token].item() + 1e-5
    assert completions[0].token_ids != completions[3].token_ids


def test_completions_depend_on_weights_prompts_and_seeds_alone(tiny_micro_directory: Path):
    seeds = list(range(len(PROMPTS)))
    model = policy(tiny_micro_directory)
    first = EngineGenerator(model, STOP).generate(PROMPTS, seeds, max_new_tokens=12, temperature=1.0)
    assert EngineGenerator(model, STOP).generate(PROMPTS, seeds, max_new_tokens=12, temperature=1.0) == first
    other = EngineGenerator(model, STOP).generate(PROMPTS, seeds[::-1], max_new_tokens=12, temperature=1.0)
    assert other[0] != first[0]


def test_greedy_completions_are_those_of_the_model(tiny_micro_directory: Path):
    model = policy(tiny_micro_directory)
    (completion,) = EngineGenerator(model, STOP).generate([PROMPTS[2]], [0], max_new_tokens=6, temperature=0.0)
    ids = list(PROMPTS[2])
    for token in completion.token_ids:
        with torch.no_grad():
            assert token == int(model.decoder(torch.tensor([ids]))[0, -1].argmax())
        ids.append(token)


def test_the_next_completions_come_from_the_new_weights(tiny_micro_directory: Path):
    """An optimiser's step is seen at once, for every kind of parameter, and nothing is stored twice."""
    model = policy(tiny_micro_directory)
    generator = EngineGenerator(model, STOP)
    pointers = {name: parameter.data_ptr() for name, parameter in model.decoder.named_parameters()}
    generator.generate(PROMPTS, [0] * 5, max_new_tokens=4, temperature=1.0)
    for name, parameter in model.decoder.named_parameters():
        optimizer = torch.optim.AdamW([parameter], lr=0.2)
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        completions = generator.generate(PROMPTS, [1] * 5, max_new_tokens=4, temperature=1.0)
        for prompt, completion in zip(PROMPTS, completions, strict=True):
            expected = expected_log_probs(model, prompt, completion.token_ids, 1.0)
            assert completion.log_probs == pytest.approx(expected, abs=1e-4), name
    assert {name: parameter.data_ptr() for name, parameter in model.decoder.named_parameters()} == pointers
    assert all(parameter.is_contiguous() for parameter in model.decoder.parameters())


def test_bfloat16_completions_have_the_log_probabilities_of_bfloat16_training(tiny_micro_directory: Path):
    model = policy(tiny_micro_directory, torch.bfloat16)
    model.decoder.train()
    completions = EngineGenerator(model, STOP).generate(PROMPTS, [0] * 5, max_new_tokens=8, temperature=1.0)
    assert model.decoder.training
    errors = []
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        expected = expected_log_probs(model, prompt, completion.token_ids, 1.0)
        errors += [abs(a - b) for a, b in zip(completion.log_probs, expected, strict=True)]
    assert sum(errors) / len(errors) < 0.05


@pytest.mark.parametrize("variant", ["moe", "windows", "biases"])
def test_other_layouts(variant: str):
    shapes = {
        "moe": {
            "model_type": "qwen3_moe",
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "norm_topk_prob": True,
        },
        "windows": {"model_type": "mistral", "sliding_window": 5},
        "biases": {"model_type": "llama", "attention_bias": True},
    }
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64} | shapes[variant]
    decoder = Decoder(DecoderConfig.from_hf(shape))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(0.3, 0.3, generator=generator)
    model = PlacedDecoder(decoder, CPU, torch.float32)
    prompts = [[5, 6, 7], list(range(20, 40)), [1]]
    for prompt, completion in zip(
        prompts,
        EngineGenerator(model, STOP).generate(prompts, [1, 2, 3], max_new_tokens=9, temperature=1.0),
        strict=True,
    ):
        expected = expected_log_probs(model, prompt, completion.token_ids, 1.0)
        assert completion.log_probs == pytest.approx(expected, abs=1e-4)


def test_seeds_differ_between_completions_and_rollouts():
    seeds = {completion_seed(*key) for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]}
    assert len(seeds) == 4
    digest = hashlib.blake2b(struct.pack("<qqq", 7, 8, 9), digest_size=8).digest()
    assert completion_seed(7, 8, 9) == int.from_bytes(digest, "little")


def test_rollout_tensors():
    prompts = [Prompt((11, 12, 13)), Prompt((14,))]
    completions = [Completion((21, 22), (-0.1, -0.2), False), Completion((23, 24, 3), (-0.3, -0.4, -0.5), True)]
    rollout = make_rollout(prompts, completions, ["a", "b"], 5)
    batch = rollout.batch()
    assert batch.input_ids.tolist() == [[11, 12, 13, 21, 22], [14, 23, 24, 3, 0]]
    assert batch.labels.tolist() == [[-100, -100, 21, 22, -100], [23, 24, 3, -100, -100]]
    assert batch.document_ids.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, -1]]
    assert rollout.log_probs.tolist() == [
        pytest.approx([0, 0, -0.1, -0.2, 0]),
        pytest.approx([-0.3, -0.4, -0.5, 0, 0]),
    ]
    assert rollout.last_positions().tolist() == [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]
    assert rollout.lengths.tolist() == [2, 3]
    assert rollout.is_complete.tolist() == [False, True]
