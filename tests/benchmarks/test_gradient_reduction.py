import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gradient_reduction.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gradient_reduction", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_exposed_communication_is_what_no_computation_covers(benchmark: ModuleType) -> None:
    def intervals(*pairs: tuple[int, int]) -> list:
        return [benchmark.Interval(*pair) for pair in pairs]

    communication = intervals((0, 10), (5, 20), (30, 40), (50, 60))
    compute = intervals((8, 15), (12, 18), (25, 45))
    assert benchmark.exposed(communication, compute) == 8 + 2 + 10
    assert benchmark.exposed(communication, []) == 20 + 10 + 10
    assert benchmark.exposed([], compute) == 0


def test_counts_are_those_of_the_formulas(benchmark: ModuleType) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--ranks", "2", "--length", "8", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = {found["setting"]: found for found in json.loads(done.stdout)["results"]}
    size = 4 * Decoder(DecoderConfig.from_hf(benchmark.SHAPE)).num_parameters()
    layers, micro_batches = 8, benchmark.MICRO_BATCHES

    each = results["each layer, each micro-batch"]
    # A group a layer, and the root's, which is not gathered again in the backward pass.
    gathers, scatters = 2 * layers + 1, layers + 1
    assert each["calls"] == {"all_gather": micro_batches * gathers, "reduce_scatter": micro_batches * scatters}
    assert each["bytes"]["reduce_scatter"] == micro_batches * size / 2
    once = results["4 layers, once"]
    assert once["calls"] == {"all_gather": micro_batches * 5, "reduce_scatter": 3}
    assert once["bytes"]["reduce_scatter"] == size / 2
    assert results["4 layers, once, bfloat16"]["bytes"]["reduce_scatter"] == size / 4
    assert results["4 layers, once, kept gathered"]["calls"] == {"all_gather": 3, "reduce_scatter": 3}
    assert results["4 layers, once, kept gathered"]["bytes"]["all_gather"] == size / 2
