"""The shipped Micro: what is in its folder, and that others read it as we do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import kilonova
from kilonova.core.types import GenerationRequest, Message, SamplingParams, TextBlock, TextDelta
from kilonova.engine.engine import Engine
from kilonova.models.checkpoint import load_decoder
from kilonova.models.registry import Registry
from kilonova.text.tokenizer import Tokenizer

MICRO = Path(kilonova.__file__).parent / "weights" / "micro"
PROMPTS = (
    "Who are you?",
    "Is this positive or negative? The film was a delight from start to finish.",
    "Translate to French: I live in a small house.",
    "Sort these words: pear, apple, fig",
    "Größe, 素早い, 🙂 and <|im_end|> are odd input.",
)

pytestmark = pytest.mark.skipif(not (MICRO / "config.json").is_file(), reason="the weights are not in this checkout")


def messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


@pytest.fixture(scope="module")
def engine():
    engine = Engine.from_directory(MICRO, dtype="float32", device="cpu")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference():
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(MICRO, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(MICRO)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_transformers_generates_the_same_greedy_text(engine: Engine, reference, prompt: str) -> None:
    model, tokenizer = reference
    prompt = prompt.replace("<|im_end|>", "")
    inputs = tokenizer.apply_chat_template(
        messages(prompt), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=48, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = tokenizer.decode(output, skip_special_tokens=True)

    request = GenerationRequest(
        model="micro",
        messages=(Message("user", (TextBlock(prompt),)),),
        sampling=SamplingParams(max_tokens=48, temperature=0),
    )
    text = "".join(event.text for event in engine.submit(request) if isinstance(event, TextDelta))

    assert text == expected
    assert engine.count_tokens(request) == inputs["input_ids"].shape[1]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_logits_agree_with_transformers(reference, prompt: str) -> None:
    model, _ = reference
    ids = torch.tensor([Tokenizer.from_directory(MICRO).encode_template_messages(messages(prompt))])
    with torch.no_grad():
        torch.testing.assert_close(load_decoder(MICRO, torch.float32)(ids), model(ids).logits, atol=1e-4, rtol=0)


def test_it_answers_to_its_names() -> None:
    registry = Registry()
    assert registry.get("micro") == registry.get("amazon.nova-micro-v1:0")
    assert registry.get("micro").bedrock_id == "amazon.nova-micro-v1:0"


def test_shards_are_small_and_the_card_is_made_from_its_records() -> None:
    shards = list(MICRO.glob("*.safetensors"))
    assert shards
    assert all(shard.stat().st_size <= 16 * 2**20 for shard in shards)
    training = json.loads((MICRO / "training.json").read_text())
    card = (MICRO / "README.md").read_text()
    assert f"{training['tokens'] / 1e6:.1f} M" in card
    assert f"{training['earlier']['tokens'] / 1e6:.1f} M" in card
