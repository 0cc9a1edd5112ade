"""`benchmarks/decode.py`, `prefill.py` and `concurrency.py`, and what they share, on a tiny model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMON = ["--rounds", "1", "--threads", "1", "--bits", "32", "--engine", "kilonova"]


def run(script: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return done


def run_python(code: str, *arguments: str) -> str:
    """Run code that imports from `benchmarks/`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_decode_reports_rows_of_both_engines(tiny_micro_directory: Path, tmp_path: Path) -> None:
    arguments = ["--prompt-tokens", "20", "--new-tokens", "16", "--models", str(tmp_path), "--json", *COMMON]
    arguments += ["--engine", "transformers"]
    report = json.loads(run("decode.py", "--model", str(tiny_micro_directory), *arguments).stdout)

    assert report["failed"] == {}
    assert [(row["engine"], row["name"], row["bits"]) for row in report["rows"]] == [
        ("kilonova", "float32", 32),
        ("transformers", "float32", 32),
    ]
    for row in report["rows"]:
        assert len(row["rounds"]) == 1
        assert row["least"] <= row["tokens_per_s"] <= row["most"]
        # 512 x 64 embeddings and two layers, 4 bytes each; the same for both.
        assert row["weight_mb"] == pytest.approx(report["rows"][0]["weight_mb"], rel=1e-2)
        assert row["weight_mb"] > 4 * 512 * 64 / 1e6
        fraction = row["tokens_per_s"] * row["weight_mb"] / 1000 / report["read_bandwidth_gb_s"]
        # Bandwidth is measured anew for each engine, on a machine that may be busy with something else.
        assert fraction / 10 < row["bandwidth_fraction"] < fraction * 10


@pytest.mark.slow
def test_prefill_reports_rows(tiny_micro_directory: Path, tmp_path: Path) -> None:
    model = ["--model", str(tiny_micro_directory), "--models", str(tmp_path), "--json", *COMMON]
    report = json.loads(run("prefill.py", "--prompt-tokens", "64", *model).stdout)
    assert report["failed"] == {}
    (row,) = report["rows"]
    flops = row["tokens_per_s"] * report["prefill_gflop"] / 64
    assert row["gemm_fraction"] == pytest.approx(flops / report["gemm_gflop_s"]["float32"])


@pytest.mark.slow
def test_streams_report_rows_and_an_arrival(tiny_micro_directory: Path, tmp_path: Path) -> None:
    model = ["--model", str(tiny_micro_directory), "--models", str(tmp_path), "--json", *COMMON]
    arguments = ["--prompt-tokens", "20", "--new-tokens", "24", "--arriving-tokens", "200"]
    report = json.loads(run("concurrency.py", "--streams", "1", "--streams", "4", *arguments, *model).stdout)
    assert report["failed"] == {}
    (row,) = report["rows"]
    assert row["tokens_per_s_1"] > 0
    assert row["tokens_per_s_4"] > 0
    (arrival,) = report["arrival"]["rows"]
    assert arrival["engine"] == "kilonova"
    assert all(math.isfinite(arrival[name]) for name in ("before_p95_ms", "during_p95_ms", "ratio"))


def test_missing_peers_are_named_and_unknown_ones_refused(tiny_micro_directory: Path, tmp_path: Path) -> None:
    code = """
import json, pathlib, sys
from peers import rounds
from peers.random_models import vocab_size
rounds.ENVIRONMENTS = pathlib.Path(sys.argv[2])
job = rounds.make_job("decode", sys.argv[1], pathlib.Path(sys.argv[2]), 1, prompt_tokens=8, new_tokens=4)
found = rounds.run_rounds(job, rounds.choose([8], ["ctranslate2"]), 1, pathlib.Path(sys.argv[2]), what="x", quiet=True)
print(json.dumps(found.head()))
"""
    head = json.loads(run_python(code, str(tiny_micro_directory), str(tmp_path)))
    assert head["missing"] == ["ctranslate2 (make bench-peers)"]
    assert head["read_bandwidth_gb_s"] is None
    assert "known" in run("decode.py", "--engine", "lama", code=1).stderr


def test_a_peer_that_fails_is_reported_and_the_others_go_on(tiny_micro_directory: Path, tmp_path: Path) -> None:
    # A weight format without its files: the run of that variant ends badly.
    code = """
import json, pathlib, sys
from dataclasses import replace
from peers import rounds
job = rounds.make_job("decode", sys.argv[1], pathlib.Path(sys.argv[2]), 1, prompt_tokens=8, new_tokens=4)
good = next(one for one in rounds.VARIANTS if (one.engine, one.bits) == ("kilonova", 32))
bad = replace(good, name="broken", runner="run_nothing")
found = rounds.run_rounds(job, [bad, good], 1, pathlib.Path(sys.argv[2]), what="x", quiet=True)
print(json.dumps([found.failed, [one.variant.name for one in found.measured], len(found.measured[0].rounds)]))
"""
    failed, names, count = json.loads(run_python(code, str(tiny_micro_directory), str(tmp_path)))
    assert list(failed) == ["kilonova broken"]
    assert "run_nothing" in failed["kilonova broken"]
    assert (names, count) == (["float32"], 1)


def test_random_models_are_what_they_say(tmp_path: Path) -> None:
    code = """
import json, pathlib, sys
from peers import random_models
from kilonova.models.checkpoint import load_config
shape = {**random_models.SHAPES["small"], "num_hidden_layers": 1, "vocab_size": 1500}
random_models.SHAPES["small"] = shape
first = random_models.find_model("small", pathlib.Path(sys.argv[1]))
assert random_models.find_model("small", pathlib.Path(sys.argv[1])) == first
print(json.dumps([str(first), random_models.vocab_size(first), load_config(first).tie_word_embeddings]))
"""
    directory, vocab_size, tied = json.loads(run_python(code, str(tmp_path)))
    assert (vocab_size, tied) == (1500, True)

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kilonova.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.vocab_size == 1500
    ids = list(range(300, 1400))
    # Every token is text, alone and in a row, and text comes back as it went in.
    assert all(tokenizer.token_text(token).isalpha() for token in ids)
    reference: Any = AutoTokenizer.from_pretrained(directory)
    text = "the quick brown fox, jumps 12 times"
    assert tokenizer.encode(text) == reference(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.config.model_type == "qwen3"


def test_prompts_differ_between_kinds_and_seeds() -> None:
    code = """
import json
from dataclasses import replace
from peers.job import Job
job = Job("decode", "", "", 8, 1, 1000, 0, 8, 4)
prompts = [job.prompts(2, 50, "a"), job.prompts(2, 50, "b"), replace(job, seed=1).prompts(2, 50, "a")]
assert job.prompts(2, 50, "a") == prompts[0]
print(json.dumps([prompt for pair in prompts for prompt in pair]))
"""
    prompts = json.loads(run_python(code))
    assert len({tuple(prompt) for prompt in prompts}) == 6
    assert all(300 <= token < 1000 for prompt in prompts for token in prompt)


def test_read_bandwidth_is_of_this_machine() -> None:
    code = "from peers import bandwidth; bandwidth.BUFFER_BYTES = 1 << 27; print(bandwidth.read_bandwidth(1))"
    # Between a tenth of one memory channel of the slowest kind and all channels of the fastest.
    assert 5e8 < float(run_python(code)) < 2e12
