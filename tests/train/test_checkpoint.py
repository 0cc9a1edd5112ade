from pathlib import Path

import pytest
import torch

from kilonova.core.errors import CheckpointError
from kilonova.train.checkpoint import load_newest_training_state, save_training_state


def test_the_newest_is_loaded_and_old_and_unfinished_ones_go(tmp_path: Path) -> None:
    assert load_newest_training_state(tmp_path / "none") is None
    (tmp_path / ".step-00000002.abc").mkdir()
    for step in (2, 9, 10):
        save_training_state(tmp_path, step, {"step": step, "weight": torch.full((3,), float(step))}, keep=2)
    state = load_newest_training_state(tmp_path)
    assert state is not None
    assert state["step"] == 10
    assert state["weight"].tolist() == [10.0] * 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000009", "step-00000010"]


def test_a_broken_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    save_training_state(tmp_path, 1, {"step": 1}, keep=1)
    (tmp_path / "step-00000001" / "training_state.pt").write_bytes(b"PK broken")
    with pytest.raises(CheckpointError, match="resume from the one before"):
        load_newest_training_state(tmp_path)
