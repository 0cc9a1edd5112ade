import struct
import sys
from pathlib import Path

import pytest

from kilonova.core.errors import ConfigError
from kilonova.train.trackers import open_trackers


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_one_that_is_not_installed_says_what_to_install(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'kilonova\[{name}\]'"):
        open_trackers([name], tmp_path, {})  # type: ignore[list-item]


def test_tensorboard_gets_every_number_by_step(tmp_path: Path) -> None:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    (tracker,) = open_trackers(["tensorboard"], tmp_path, {})
    for step in (10, 20):
        tracker.log(step, {"loss": 1 / step, "validation/news": 2.0})
    tracker.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, found = file.read_bytes(), []
    while data:
        # A TFRecord: length, its checksum, the event, its checksum.
        (length,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert found == [
        (10, "loss", pytest.approx(0.1)),
        (10, "validation/news", 2.0),
        (20, "loss", pytest.approx(0.05)),
        (20, "validation/news", 2.0),
    ]
