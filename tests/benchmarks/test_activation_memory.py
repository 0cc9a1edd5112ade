"""`benchmarks/activation_memory.py` counts what the formulas say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "activation_memory.py"
# Llama's layer, in bytes a token / width, and four bytes for each of four heads.
KEPT = {"selective": 34, "full": 2, "ssc": 23, "ssc, o_proj again": 21, "ssc8": 9 + 3.5 * (2 + 4 / 32)}


def test_counts_are_those_of_the_formulas(tiny_micro_directory: Path) -> None:
    arguments = ["--width", "128", "--length", "32", "--error-length", "16", "--weights", str(tiny_micro_directory)]
    command = [sys.executable, str(SCRIPT), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for variant, expected in KEPT.items():
        statistics = 0 if variant == "full" else 4 * 4 / 128
        assert found["policies"][variant]["held"] / 128 == pytest.approx(expected + statistics), variant
        if variant != "full":
            # Its input is kept by the checkpoint itself.
            assert found["policies"][variant]["saved"] == found["policies"][variant]["held"]
    assert found["ssc_over_selective"] <= 0.5
    assert found["extra_flops"] == found["lossless_extra_flops"] == 0
    assert found["lossless_ssc_over_selective"] == pytest.approx((23 + 1 / 8) / (34 + 1 / 8))
    assert found["lossless_gradient_error"] < 1e-6 < found["gradient_error"] < 1e-2
    assert found["trained_error"]["ssc"]["all"] < 1e-6 < found["trained_error"]["ssc8"]["all"] < 2e-2
    flops = {variant: row["flops"] for variant, row in found["policies"].items()}
    # Of 26 d^2 a token: all but the down projection, and the output projection.
    assert flops["full"] / flops["none"] == pytest.approx(1 + (26 - 7) / (3 * 26))
    assert flops["ssc, o_proj again"] / flops["none"] == pytest.approx(1 + 2 / (3 * 26))
    # Plain: logits in bfloat16 and float32, and log-probabilities. By chunks: the gradient of hidden states.
    assert found["loss_bytes"]["plain"] / 4008 >= 10
    assert found["loss_bytes"]["chunked"] < 8 * 128
    assert found["whole_model_ssc_over_selective"] < found["lossless_whole_model_ssc_over_selective"] < 1
