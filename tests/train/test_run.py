import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kilonova.core.errors import ConfigError, DataError
from kilonova.models.checkpoint import load_decoder
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.run import train

STEPS = 24


def recipe(root: Path, tokenizer: Path, name: str, **changes) -> Path:
    words = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "wizards", "vex", "judges")
    generator = random.Random(0)
    rows = [{"text": " ".join(generator.choices(words, k=generator.randrange(5, 90)))} for _ in range(60)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    tree = {
        "objective": "pretrain",
        "output": str(root / name),
        "model": {"tokenizer": str(tokenizer), "config": shape},
        "data": {
            "root": str(root),
            "cache": str(root / "cache"),
            "sequence_length": 64,
            "sources": [{"name": "rows", "path": "rows.jsonl"}],
            "validation": [{"name": "check", "path": "rows.jsonl"}],
        },
        "optimizer": {"name": "muon", "lr": 0.003, "muon_lr": 0.01},
        "schedule": {"warmup_steps": 2, "decay_fraction": 0.25},
        "steps": STEPS,
        "batch_size": 4,
        "micro_batch_size": 2,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
        "threads": 1,
        "log_every": 1,
        "evaluate_every": STEPS,
        "checkpoint_every": 5,
    }
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return path


def losses(output: Path) -> dict[int, list[float]]:
    """Every logged loss of every step; a step that was replayed has several."""
    found: dict[int, list[float]] = {}
    for line in (output / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "loss" in record:
            found.setdefault(record["step"], []).append(record["loss"])
    return found


def start(path: Path) -> subprocess.Popen:
    code = "import sys; from kilonova.train.run import train; train(sys.argv[1])"
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.DEVNULL)


def wait_for_step(process: subprocess.Popen, output: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (output / "log.jsonl").exists() and max(losses(output), default=0) >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"training ended with {process.poll()} before step {step}")


def test_kill_at_a_random_step_and_resume_is_bit_exact(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    whole = recipe(tmp_path, tiny_tokenizer_directory, "whole")
    assert start(whole).wait(timeout=180) == 0
    expected = losses(tmp_path / "whole")
    assert sorted(expected) == list(range(1, STEPS + 1))
    assert expected[STEPS][0] < expected[1][0]

    killed = recipe(tmp_path, tiny_tokenizer_directory, "killed")
    process = start(killed)
    step = random.randrange(2, STEPS - 2)
    wait_for_step(process, tmp_path / "killed", step)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert start(killed).wait(timeout=180) == 0

    found = losses(tmp_path / "killed")
    assert {number: set(values) for number, values in found.items()} == {
        number: set(values) for number, values in expected.items()
    }
    left = load_file(tmp_path / "whole/model/model.safetensors")
    right = load_file(tmp_path / "killed/model/model.safetensors")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_stop_signal_saves_the_step_it_is_at(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, "stopped", steps=4000, checkpoint_every=100_000)
    process = start(path)
    wait_for_step(process, tmp_path / "stopped", 3)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) != 0
    last = max(losses(tmp_path / "stopped"))
    assert [file.name for file in (tmp_path / "stopped/checkpoints").glob("step-*")] == [f"step-{last:08d}"]


def test_the_model_learns_and_opens_in_transformers(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    directory = train(recipe(tmp_path, tiny_tokenizer_directory, "run"), ["steps=40"])
    found = losses(tmp_path / "run")
    assert sum(found[40]) < 0.7 * sum(found[1])
    model = load_decoder(directory)
    tokenizer = Tokenizer.from_directory(directory)
    ids = torch.tensor([tokenizer.encode("the quick brown fox")])
    reference = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference(ids).logits, atol=1e-4, rtol=0)
    assert reference.generation_config.eos_token_id == sorted(tokenizer.stop_token_ids, reverse=True)
    record = json.loads((directory / "training.json").read_text())
    assert record["tokens"] == 40 * 4 * 64
    assert record["parameters"] == model.num_parameters()


def test_sft_starts_from_a_checkpoint_and_learns_the_answer(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    base = train(recipe(tmp_path, tiny_tokenizer_directory, "base"), ["steps=2"])
    rows = [
        {"messages": [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": f"{word}!"}]}
        for word in ("fox", "dog", "judge")
    ]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 30))
    path = recipe(
        tmp_path,
        tiny_tokenizer_directory,
        "sft",
        objective="sft",
        model={"init_from": str(base)},
        data={
            "root": str(tmp_path),
            "cache": str(tmp_path / "cache"),
            "sequence_length": 64,
            "sources": [{"name": "chat", "path": "chat.jsonl", "format": "chat"}],
        },
        steps=60,
    )
    directory = train(path)
    model, tokenizer = load_decoder(directory), Tokenizer.from_directory(directory)
    for row in rows:
        ids = tokenizer.encode_template_messages(row["messages"][:1])
        answer = []
        while len(answer) < 12 and (not answer or answer[-1] not in tokenizer.stop_token_ids):
            with torch.no_grad():
                answer.append(int(model(torch.tensor([ids + answer]))[0, -1].argmax()))
        assert tokenizer.decode(answer) == row["messages"][1]["content"]
    record = json.loads((directory / "training.json").read_text())
    assert record["earlier"]["objective"] == "pretrain"


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["stepz=1"], ConfigError, "did you mean 'steps'"),
        (["steps=0"], ConfigError, "steps"),
        (["micro_batch_size=3"], ConfigError, "micro_batch_size"),
        (["model.init_from=x"], ConfigError, "exactly one"),
        (["model.config.num_key_value_heads=3"], ConfigError, "num_key_value_heads"),
        (["data.root=nowhere"], DataError, "data.root"),
        (["optimizer.name=sgd"], ConfigError, "optimizer.name"),
    ],
)
def test_bad_recipes_are_refused(tiny_tokenizer_directory: Path, tmp_path: Path, overrides, error, message) -> None:
    with pytest.raises(error, match=message):
        train(recipe(tmp_path, tiny_tokenizer_directory, "bad"), overrides)


def test_a_run_is_not_continued_with_other_data(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, "run")
    train(path, ["steps=2"])
    with pytest.raises(ConfigError, match="another order"):
        train(path, ["steps=3", "seed=9"])
    with pytest.raises(ConfigError, match="temperature"):
        train(path, ["steps=3", "data.temperature=2"])
    train(path, ["steps=3"])


def test_a_mixture_by_temperature_is_drawn_and_continued_exactly(
    tiny_tokenizer_directory: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, "mixed")
    (tmp_path / "few.jsonl").write_text(json.dumps({"text": "sphinx of black quartz " * 30}) + "\n")
    both = [{"name": name, "path": f"{name}.jsonl"} for name in ("rows", "few")]
    overrides = [f"data.sources={json.dumps(both)}", "data.validation=[]", "steps=12", "data.temperature=50"]
    train(path, overrides)
    expected = losses(tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed/checkpoints/step-00000012")
    train(path, overrides)
    assert losses(tmp_path / "mixed") == {step: values * (2 if step > 10 else 1) for step, values in expected.items()}
    train(path, [*overrides[:3], f"output={tmp_path / 'proportional'}"])
    assert losses(tmp_path / "proportional")[12] != expected[12]
    with pytest.raises(ConfigError, match=r"data\.temperature"):
        train(path, [*overrides, "objective=dpo", f"output={tmp_path / 'refused'}"])


def test_compiled_training_follows_eager_training(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    eager = recipe(tmp_path, tiny_tokenizer_directory, "eager")
    train(eager, ["steps=6"])
    train(eager, ["steps=6", "compile=true", f"output={tmp_path / 'compiled'}"])
    first, second = losses(tmp_path / "eager"), losses(tmp_path / "compiled")
    assert [second[step][0] for step in range(1, 7)] == pytest.approx(
        [first[step][0] for step in range(1, 7)], abs=1e-3
    )


def test_bfloat16_follows_float32(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, "float32")
    train(path, ["steps=6"])
    train(path, ["steps=6", "dtype=bfloat16", f"output={tmp_path / 'bfloat16'}"])
    first, second = losses(tmp_path / "float32"), losses(tmp_path / "bfloat16")
    assert [second[step][0] for step in first] == pytest.approx([values[0] for values in first.values()], abs=0.03)
    assert first != second


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_follows_the_cpu(tiny_tokenizer_directory: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, "cpu")
    train(path, ["steps=6"])
    train(path, ["steps=6", "device=cuda", f"output={tmp_path / 'cuda'}"])
    first, second = losses(tmp_path / "cpu"), losses(tmp_path / "cuda")
    assert [second[step][0] for step in first] == pytest.approx([values[0] for values in first.values()], abs=0.03)
