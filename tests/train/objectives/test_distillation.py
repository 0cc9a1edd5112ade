"""Training a student from a teacher's logits, whole or its likeliest tokens from disk."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy, kl_div

from kilonova.core.config import load_config
from kilonova.core.errors import ConfigError, DataError
from kilonova.core.types import IGNORE_INDEX
from kilonova.models.checkpoint import load_decoder
from kilonova.train.language_run import language_context, starting_decoder
from kilonova.train.objectives import teacher_targets
from kilonova.train.objectives.distillation import DistillationObjective
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe
from kilonova.train.run import train

VOCAB_SIZE = 512


def recipe(root: Path, tokenizer: Path, distill: dict[str, Any] | None, name: str = "run", **changes: Any) -> Path:
    words = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "wizards", "vex", "judges")
    generator = random.Random(0)
    rows = [{"text": " ".join(generator.choices(words, k=generator.randrange(5, 90)))} for _ in range(40)]
    if not (root / "rows.jsonl").exists():
        (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    tree = {
        "objective": "distill",
        "output": str(root / name),
        "model": {"tokenizer": str(tokenizer), "config": shape},
        "data": {
            "root": str(root),
            "cache": str(root / "cache"),
            "sequence_length": 64,
            "sources": [{"name": "rows", "path": "rows.jsonl"}],
            "validation": [{"name": "check", "path": "rows.jsonl"}],
        },
        "optimizer": {"name": "adamw", "lr": 0.003},
        "steps": 8,
        "batch_size": 4,
        "micro_batch_size": 2,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
        "threads": 1,
        "log_every": 1,
        "evaluate_every": 1000,
    }
    if distill is not None:
        tree["distill"] = distill
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return path


def objective_of(path: Path) -> DistillationObjective:
    context = language_context(load_config(TrainRecipe, path))
    return DistillationObjective(context, PlacedDecoder(starting_decoder(context), context.device, context.dtype))


def log_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def teacher(tiny_micro_directory: Path) -> dict[str, Any]:
    return {"teacher": str(tiny_micro_directory)}


def test_the_loss_is_that_of_the_two_models_logits(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any]
) -> None:
    section = {**teacher, "temperature": 2.0, "hard_weight": 0.25}
    objective = objective_of(recipe(tmp_path, tiny_tokenizer_directory, section))
    batch = objective.micro_batches(0)[0]
    loss = objective.loss(batch)

    with torch.no_grad():
        student = objective.model.decoder(batch.input_ids, document_ids=batch.document_ids).double()
        taught = load_decoder(teacher["teacher"])(batch.input_ids, document_ids=batch.document_ids).double()
    kept = batch.labels != IGNORE_INDEX
    student, taught, labels = student[kept], taught[kept], batch.labels[kept]
    soft = kl_div((student / 2).log_softmax(-1), (taught / 2).log_softmax(-1), reduction="sum", log_target=True)
    hard = cross_entropy(student, labels, reduction="sum")
    torch.testing.assert_close(loss.total.double(), 0.75 * 4 * soft + 0.25 * hard, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.metrics["divergence"].double(), soft, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.metrics["cross_entropy"].double(), hard, rtol=1e-5, atol=0)
    assert loss.metrics["agreement"] == (student.argmax(-1) == taught.argmax(-1)).sum()
    assert objective.num_items(batch) == len(labels)


def test_all_tokens_from_disk_are_the_whole_teacher(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any]
) -> None:
    whole = objective_of(recipe(tmp_path, tiny_tokenizer_directory, teacher, "whole"))
    stored = objective_of(recipe(tmp_path, tiny_tokenizer_directory, {**teacher, "top_k": VOCAB_SIZE}, "stored"))
    for batch in whole.micro_batches(3):
        expected, found = whole.loss(batch), stored.loss(batch)
        torch.testing.assert_close(found.total, expected.total, rtol=1e-3, atol=0)
        expected.total.backward()
        found.total.backward()
    for (name, found_parameter), expected_parameter in zip(
        stored.trained.named_parameters(), whole.trained.parameters(), strict=True
    ):
        assert found_parameter.grad is not None, name
        assert expected_parameter.grad is not None
        error = (found_parameter.grad - expected_parameter.grad).norm() / expected_parameter.grad.norm()
        assert error < 2e-3, name


def test_targets_are_computed_once(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, {**teacher, "top_k": 8})
    first = objective_of(path)
    batch = first.micro_batches(1)[0]
    loss = first.loss(batch).total
    assert first._teacher is None
    (directory,) = (tmp_path / "cache").glob("teacher-*")
    files = sorted(directory.iterdir())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the teacher was loaded again")

    with monkeypatch.context() as patch:
        patch.setattr(teacher_targets, "load_decoder", refuse)
        assert objective_of(path).loss(batch).total == loss
        with pytest.raises(AssertionError):
            objective_of(recipe(tmp_path, tiny_tokenizer_directory, {**teacher, "top_k": 9}, "other"))
    longer = objective_of(recipe(tmp_path, tiny_tokenizer_directory, {**teacher, "top_k": 8}, "longer", steps=40))
    assert set(files) < set(directory.iterdir())
    counts = [len(load_file(file)["keys"]) for file in directory.iterdir()]
    assert sum(counts) == longer.data_record()["rows_in_one_pass"], "rows that were there are not asked for again"
    files[0].write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        objective_of(path)


@pytest.mark.parametrize("changes", [{}, {"top_k": 16, "beta": 0.5}], ids=["whole", "top-k"])
def test_a_student_gets_closer_to_its_teacher(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any], changes: dict[str, Any]
) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, {**teacher, **changes}, steps=40, optimizer={"lr": 0.02})
    directory = train(path)
    steps = [record for record in log_of(tmp_path / "run") if "loss" in record]
    assert steps[-1]["divergence"] < 0.8 * steps[0]["divergence"]
    assert 0 <= steps[0]["agreement"] <= 1
    record = json.loads((directory / "training.json").read_text())
    assert record["objective"] == "distill"
    assert record["validation_loss"]["check"] > 0
    assert load_decoder(directory).config.num_hidden_layers == 1


def test_conversations_are_learnt_from_the_assistants_turns(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any]
) -> None:
    turns = [{"role": "user", "content": "count"}, {"role": "assistant", "content": "1 2 3"}]
    (tmp_path / "rows.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 40)
    section = {**teacher, "top_k": 4, "whole_documents": True}
    path = recipe(tmp_path, tiny_tokenizer_directory, section, steps=1)
    tree = yaml.safe_load(path.read_text())
    tree["data"]["sources"][0]["format"] = tree["data"]["validation"][0]["format"] = "chat"
    path.write_text(yaml.safe_dump(tree))
    objective = objective_of(path)
    (batch, _) = objective.micro_batches(0)
    assert 0 < objective.num_items(batch) < batch.labels.numel() / 2
    assert objective.loss(batch).total > 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, "distill.teacher"),
        ({"top_k": 0}, "distill.top_k: must be"),
        ({"top_k": VOCAB_SIZE + 1}, "distill.top_k: 513 is more"),
        ({"beta": 1.5}, "distill.beta"),
        ({"temperature": 0.0}, "distill.temperature"),
        ({"hard_weight": 1.0}, "distill.hard_weight"),
    ],
)
def test_impossible_sections_are_named(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any], section: dict | None, message: str
) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, None if section is None else {**teacher, **section})
    with pytest.raises(ConfigError, match=message):
        objective_of(path)


def test_a_teacher_of_another_vocabulary_is_refused(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any]
) -> None:
    from kilonova.text.bpe import save_tokenizer, train_tokenizer

    save_tokenizer(train_tokenizer(["other words entirely"] * 3, 285), tmp_path / "tokenizer", model_max_length=64)
    with pytest.raises(ConfigError, match="another vocabulary"):
        objective_of(recipe(tmp_path, tmp_path / "tokenizer", teacher))


def test_a_section_of_another_objective_is_refused(
    tiny_tokenizer_directory: Path, tmp_path: Path, teacher: dict[str, Any]
) -> None:
    path = recipe(tmp_path, tiny_tokenizer_directory, teacher, objective="pretrain")
    with pytest.raises(ConfigError, match="distill: belongs to objective distill"):
        load_config(TrainRecipe, path)
