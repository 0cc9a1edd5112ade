from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from kilonova.core.errors import DataError
from kilonova.evals.comparison import compare
from kilonova.models.checkpoint import load_decoder
from kilonova.models.quantization.quantize import QuantizationConfig, quantize_directory
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer

TEXTS = ("seven wizards quietly vex a judge", "the quick brown fox")


@pytest.fixture
def quantised(tiny_micro_directory: Path, tmp_path: Path) -> Path:
    config = QuantizationConfig(number_format="int4", group_size=32)
    quantize_directory(tiny_micro_directory, tmp_path / "int4", config, quiet=True)
    return tmp_path / "int4"


def bits_per_byte(directory: Path) -> float:
    model, tokenizer = load_decoder(directory, dtype=torch.float32), Tokenizer.from_directory(directory)
    nats = 0.0
    for text in TEXTS:
        tokens = torch.tensor([tokenizer.token_id(END_OF_TEXT), *tokenizer.encode(text)])
        with torch.no_grad():
            log_probs = model(tokens[None, :-1])[0].double().log_softmax(dim=-1)
        nats -= float(log_probs.gather(1, tokens[1:, None]).sum())
    return nats / math.log(2) / sum(len(text.encode()) for text in TEXTS)


def test_both_models_are_measured_alike(tiny_micro_directory, quantised, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("kilonova.evals.comparison.choose_dtype", lambda *_: torch.float32)
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(f'{{"text": "{text}"}}' for text in TEXTS))

    found = compare(tiny_micro_directory, quantised, text=text, quiet=True)

    for directory, measured in ((tiny_micro_directory, found.before), (quantised, found.after)):
        assert measured.bits_per_byte == pytest.approx(bits_per_byte(directory), rel=1e-5)
        assert measured.weight_bytes == (directory / "model.safetensors").stat().st_size
    assert min(found.before.decode_tokens_per_s, found.after.decode_tokens_per_s) > 0
    assert found.before.parameters == found.after.parameters
    assert found.after.weight_bytes < 0.7 * found.before.weight_bytes
    assert found.text_bytes == sum(map(len, TEXTS))
    console = Console(width=160, record=True)
    console.print(found.table())
    change = 100 * (found.after.bits_per_byte / found.before.bits_per_byte - 1)
    assert f"{change:+.2f} %" in console.export_text()


def test_tasks_are_measured_where_there_is_data(tiny_micro_directory, quantised, monkeypatch, tmp_path) -> None:
    from kilonova.evals.run import Report, Score

    def evaluated(directory, data_root, tasks, limit):
        score = Score("sst2", "classification", "accuracy", 0.5 + 0.1 * (directory == quantised), 0, 1, 9, {}, "", "")
        return Report(directory.name, 1, limit, 0, "", 1, scores=[score])

    monkeypatch.setattr("kilonova.evals.comparison.evaluate", evaluated)
    text = tmp_path / "text.txt"
    text.write_text(TEXTS[0])
    found = compare(tiny_micro_directory, quantised, text=text, data_root=tmp_path, quiet=True)
    assert found.before.scores == {"sst2 accuracy": 0.5}
    assert found.after.scores == {"sst2 accuracy": 0.6}


def test_text_is_needed(tiny_micro_directory, tmp_path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="no text in it"):
        compare(tiny_micro_directory, tiny_micro_directory, text=tmp_path / "empty.txt", quiet=True)
