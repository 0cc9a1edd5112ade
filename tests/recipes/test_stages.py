"""The shipped recipes as they are, but for the sizes: every stage after the one it starts from, on texts made here."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import zstandard

from kilonova.core.config import load_config
from kilonova.data.verifiable import write_verifiable
from kilonova.recipes import find_recipe, shipped_recipes
from kilonova.train.recipe import TrainRecipe
from kilonova.train.run import train
from kilonova.train.tokenizer import TokenizerRecipe, train_from_recipe

SIZE = ("steps=2", "batch_size=4", "micro_batch_size=2", "data.sequence_length=160", "schedule.warmup_steps=1")
MACHINE = ("device=cpu", "dtype=float32", "compile=false", "threads=1", "evaluate_every=2")
SHAPE = tuple(
    f"model.config.{name}={value}"
    for name, value in {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }.items()
)
STAGES = {
    "micro/pretrain": SHAPE,
    "micro/pretrain-gpu": SHAPE,
    "micro/distill": (*SHAPE, "distill.top_k=8"),
    "micro/sft": (),
    "micro/reward": (),
    "micro/dpo": (),
    "micro/ppo": ("ppo.rollout.prompts=4", "ppo.rollout.max_new_tokens=8"),
    "micro/grpo": ("grpo.rollout.prompts=2", "grpo.rollout.max_new_tokens=8", "grpo.group_size=2"),
    "micro/lora": (),
}
ELSEWHERE = {
    "scaling/micro",
    "canvas/autoencoder",
    "canvas/classifier",
    "canvas/compare",
    "canvas/flow",
    "canvas/flow-gpu",
    "canvas/segmenter",
    "canvas/segmenter-gpu",
}
TEXT = "the quick brown fox jumps over a lazy dog while wizards vex judges and sphinx of black quartz"


def test_every_recipe_is_run_by_some_test() -> None:
    assert {"micro/tokenizer"} | STAGES.keys() | ELSEWHERE == set(shipped_recipes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder that holds what the recipes read, under the names that they give."""
    folder = tmp_path_factory.mktemp("stages")
    recipes = [load_config(TrainRecipe, find_recipe(name)).data for name in STAGES]
    needed = [(data.root, source) for data in recipes for source in (*data.sources, *data.validation)]
    tokenizer = load_config(TokenizerRecipe, find_recipe("micro/tokenizer"))
    needed += [(tokenizer.data_root, source) for source in tokenizer.sources]
    generator = random.Random(0)
    for root, source in needed:
        path = folder / root / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.format == "verifiable":
            write_verifiable(path, 20, 0, ("copying",))
            continue
        lines = "".join(json.dumps(row(source.format, generator)) + "\n" for _ in range(30)).encode()
        path.write_bytes(zstandard.compress(lines) if path.suffix == ".zst" else lines)
    return folder


def row(kind: str, generator: random.Random) -> dict[str, object]:
    def words() -> str:
        return " ".join(generator.choices(TEXT.split(), k=8))

    prompt = {"role": "user", "content": words()}
    if kind == "preference":
        chosen, rejected = ([{"role": "assistant", "content": words()}] for _ in range(2))
        return {"prompt": [prompt], "chosen": chosen, "rejected": rejected}
    if kind == "chat":
        return {"messages": [prompt, {"role": "assistant", "content": words()}]}
    text = " ".join(words() for _ in range(8))
    return {"title": "Foxes", "text": text, "pages": [text, text], "english": text, "source": text}


def test_the_stages_run_one_after_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    train_from_recipe("micro/tokenizer", ["vocab_size=380"])
    for name, overrides in STAGES.items():
        if name == "micro/lora":
            shutil.copytree("runs/micro/sft/model", "runs/micro/base")
        model = train(name, [*SIZE, *MACHINE, *overrides])
        record = json.loads((model / "training.json").read_text())
        assert record["steps"] == 2, name
        assert record["validation_loss"] or not load_config(TrainRecipe, find_recipe(name)).data.validation, name
    assert (model / "adapter_config.json").exists()
