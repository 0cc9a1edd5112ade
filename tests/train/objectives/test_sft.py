"""Supervised fine-tuning against TRL's trainer: multi-turn conversations, packed, the assistant's turns alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch

from kilonova.core.config import parse_config
from kilonova.data.packing import make_batch
from kilonova.text.chat_template import CHATML
from kilonova.train.language_run import language_context, starting_decoder
from kilonova.train.objectives.language_model import LanguageModelObjective
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe

WORDS = ("fox", "dog", "judge", "cat", "house", "river", "seven", "north")


def conversations(count: int) -> list[dict[str, list[dict[str, str]]]]:
    generator = random.Random(0)

    def said(longest: int) -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(1, longest)))

    rows = []
    for number in range(count):
        turns = [{"role": "system", "content": said(3)}] if number % 2 else []
        for _ in range(generator.randint(1, 3)):
            turns += [{"role": "user", "content": said(4)}, {"role": "assistant", "content": said(6)}]
        rows.append({"messages": turns})
    return rows


def with_generation_markers(template: str) -> str:
    """Micro's template, in which transformers can tell what the assistant wrote."""
    start = "{{- '<|im_start|>assistant\\n' }}\n        {%- if message.content"
    end = "        {{- '<|im_end|>\\n' }}\n    {%- elif"
    assert template.count(start) == 1
    before, rest = template.split(start)
    inside, after = rest.split(end, 1)
    opened = start.replace("\n        {%- if", "\n        {%- generation %}\n        {%- if")
    newline = "\n        {%- endgeneration %}\n        {{- '\\n' }}"
    closed = end.replace("{{- '<|im_end|>\\n' }}", "{{- '<|im_end|>' }}" + newline)
    return before + opened + inside + closed + after


def test_loss_and_gradients_are_trl_s(tiny_micro_directory: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = conversations(6)
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "objective": "sft",
        "output": str(tmp_path / "run"),
        "model": {"init_from": str(tiny_micro_directory)},
        "data": {
            "root": str(tmp_path),
            "cache": str(tmp_path / "cache"),
            "sequence_length": 400,
            "sources": [{"name": "chat", "path": "chat.jsonl", "format": "chat"}],
        },
        "optimizer": {"lr": 0.001},
        "steps": 1,
        "batch_size": 2,
        "micro_batch_size": 2,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
    }
    context = language_context(parse_config(TrainRecipe, tree))
    model = PlacedDecoder(starting_decoder(context), context.device, context.dtype)
    objective = LanguageModelObjective(context, model, whole_documents=True)
    packed = context.rows(context.recipe.data.sources, whole_documents=True)

    tokenizer = AutoTokenizer.from_pretrained(tiny_micro_directory)
    tokenizer.chat_template = with_generation_markers(CHATML)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_micro_directory, dtype=torch.float32),
        SFTConfig(
            str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to=[], assistant_only_loss=True, max_length=None,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    inputs = trainer.data_collator(list(trainer.train_dataset))
    trainer.model.train()
    expected = trainer.compute_loss(trainer.model, inputs)
    expected.backward()

    batch = make_batch(packed, range(len(packed)))
    found = objective.loss(batch)
    items = objective.num_items(batch)
    (found.total / items).backward()

    assert len(packed) < len(rows)
    assert items == int((inputs["labels"] != -100).sum())
    torch.testing.assert_close(found.total.detach() / items, expected.detach(), rtol=1e-4, atol=1e-5)
    gradients = {name: p.grad for name, p in trainer.model.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert largest > 1e-3
    for name, parameter in objective.trained.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.pop(name), rtol=1e-4, atol=1e-4 * largest, msg=name)
    assert not gradients
