import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from kilonova.train.checkpoint.checkpointer import Checkpointer
from kilonova.train.checkpoint.folder import CheckpointFolder
from kilonova.train.checkpoint.map import ObservedMap
from kilonova.train.checkpoint.observer import observing


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def mapped_step(directory: Path) -> int | None:
    found = ObservedMap.read(directory)
    return None if found is None else found.step


def test_the_map_follows_the_newest_intact_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    saver = Checkpointer(tmp_path, model, [optimizer], keep=3)
    with observing(tmp_path):
        saver.save(1, {}, {})
        saver.wait()
        wait_until(lambda: mapped_step(tmp_path) == 1)
        found = ObservedMap.read(tmp_path)
        assert found is not None
        assert {name: file.rank for name, file in found.files.items()} == {".metadata": None, "__0_0.distcp": 0}

        # What the observer has read is not read again, unless it was touched.
        read: list[str] = []
        damaged = CheckpointFolder.damaged
        monkeypatch.setattr(
            CheckpointFolder, "damaged", lambda self, step, names: read.extend(names) or damaged(self, step, names)
        )
        assert saver.load_newest() is not None
        assert read == []
        file = saver.folder.checkpoint(1) / "__0_0.distcp"
        file.write_bytes(file.read_bytes())
        assert saver.load_newest() is not None
        assert read == ["__0_0.distcp"]


def test_it_maps_no_corrupt_checkpoint(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    saver = Checkpointer(tmp_path, model, [torch.optim.AdamW(model.parameters())], keep=3)
    for step in (1, 2):
        saver.save(step, {}, {})
        saver.wait()
    (saver.folder.checkpoint(2) / "__0_0.distcp").write_bytes(b"other")
    assert ObservedMap.observe(saver.folder, 2) is None
    found = ObservedMap.observe(saver.folder, 1)
    assert found is not None
    assert found.unchanged("__0_0.distcp")
    assert not found.unchanged("unknown")


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from kilonova.train.checkpoint.observer import observing\n"
        "with observing(Path(sys.argv[1])) as observer: print(observer.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not running(pid))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
