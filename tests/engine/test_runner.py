import pytest
import torch

from kilonova.engine.kv_cache import KVCache
from kilonova.engine.runner import ModelRunner, StepTokens
from kilonova.models.checkpoint import load_decoder, save_decoder


def random_ids(vocab: int, length: int, seed: int = 0) -> list[int]:
    return torch.randint(vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_steps_equal_the_decoder(decoder, chunk):
    ids = random_ids(decoder.config.vocab_size, 40)
    with torch.no_grad():
        expected = decoder(torch.tensor([ids]))[0]
    runner = ModelRunner(decoder)
    hidden = [runner.step([StepTokens(0, start, ids[start : start + chunk])]) for start in range(0, 40, chunk)]
    torch.testing.assert_close(runner.logits(torch.cat(hidden)), expected, rtol=1e-4, atol=1e-4)


def test_a_mixed_step_equals_separate_ones(decoder):
    vocab = decoder.config.vocab_size
    long, short = random_ids(vocab, 30), random_ids(vocab, 10, seed=1)
    with torch.no_grad():
        expected = [decoder(torch.tensor([ids]))[0] for ids in (short, long)]
    runner = ModelRunner(decoder)
    runner.step([StepTokens(1, 0, short[:9])])
    mixed = runner.logits(runner.step([StepTokens(1, 9, short[9:]), StepTokens(0, 0, long)]))
    torch.testing.assert_close(mixed, torch.cat((expected[0][9:], expected[1])), rtol=1e-4, atol=1e-4)


def test_joined_weights_stay_the_models_own(decoder, tmp_path):
    names = list(decoder.state_dict())
    ids = torch.tensor([random_ids(decoder.config.vocab_size, 12)])
    with torch.no_grad():
        before = decoder(ids)
        runner = ModelRunner(decoder)
        after = decoder(ids)
    assert list(decoder.state_dict()) == names
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    save_decoder(decoder, tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(load_decoder(tmp_path / "model")(ids), before)
    q_proj = decoder.model.layers[0].self_attn.q_proj.weight
    assert q_proj.data_ptr() == runner._layers[0].qkv._matrix(torch.float32).data_ptr()


def test_rotary_positions_grow_on_demand(make_decoder):
    model = make_decoder("llama-biased")
    ids = random_ids(model.config.vocab_size, 1100)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0, -1]
    runner = ModelRunner(model, KVCache(model.config, torch.float32, "cpu", max_context=1100))
    for start in range(0, 1100, 500):
        hidden = runner.step([StepTokens(0, start, ids[start : start + 500])])
    torch.testing.assert_close(runner.logits(hidden[-1:])[0], expected, rtol=1e-3, atol=1e-3)


def test_prompt_logprobs_are_those_of_the_full_log_softmax(make_decoder, monkeypatch):
    monkeypatch.setattr("kilonova.engine.runner._PROMPT_LOGIT_VALUES", 97 * 8)
    model = make_decoder("qwen2")
    ids = random_ids(97, 30)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0].log_softmax(dim=-1)
    runner = ModelRunner(model)
    hidden = runner.step([StepTokens(0, 0, ids)])
    report = runner.prompt_logprobs(hidden[:-1], ids[1:], top=3)
    assert [entry.token_id for entry in report] == ids[1:]
    for position, entry in enumerate(report):
        assert entry.logprob == pytest.approx(expected[position, ids[position + 1]].item(), abs=1e-4)
        values, indices = expected[position].topk(3)
        assert entry.top_ids == indices.tolist()
        assert entry.top_logprobs == pytest.approx(values.tolist(), abs=1e-4)


def test_bfloat16_runs_close_to_the_decoder(make_decoder):
    model = make_decoder("qwen3-yarn").to(torch.bfloat16)
    ids = random_ids(97, 24)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0].float().softmax(dim=-1)
    runner = ModelRunner(model)
    hidden = [runner.step([StepTokens(0, position, [token])]) for position, token in enumerate(ids)]
    actual = runner.logits(torch.cat(hidden)).float().softmax(dim=-1)
    assert (actual - expected).abs().sum(dim=-1).mean() < 0.2
