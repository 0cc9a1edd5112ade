"""The command as it is launched."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def test_torchrun_trains_and_one_rank_speaks(recipe: Callable[..., Path]) -> None:
    path = recipe("torchrun", "llama", steps=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "kilonova", "train", str(path)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    output = path.with_suffix("")
    assert done.stdout.strip() == str(output / "model")
    assert sum(line.startswith("pretrain") for line in done.stderr.splitlines()) == 2
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 2]
