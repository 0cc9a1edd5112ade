"""Starting and stopping a server process."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

PROGRAM = """
import sys
from kilonova.engine.config import EngineConfig
from kilonova.serve.run import serve
from kilonova.serve.settings import ServerSection, Settings

directory, data, port = sys.argv[1:]
serve(
    Settings(
        server=ServerSection(port=int(port), data=data),
        models={"tiny": directory},
        engine=EngineConfig(max_context=64),
    ),
    on_ready=lambda running: print(
        running.url, "torchvision" in sys.modules, "transformers" in sys.modules, flush=True
    ),
)
"""


@pytest.fixture
def start(tmp_path):
    processes = []

    def launch(directory, port=0):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(directory), str(tmp_path / "data"), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        processes.append(process)
        return process

    yield launch
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_running_answers_finish_when_the_server_is_stopped(start, tiny_micro_directory):
    process = start(tiny_micro_directory)
    url, *heavy = process.stdout.readline().split()
    assert heavy == ["False", "False"]
    body = {"model": "tiny", "prompt": "the quick", "max_tokens": 50, "temperature": 1, "stream": True}
    request = urllib.request.Request(
        f"{url}/v1/completions", data=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        response.readline()
        process.send_signal(signal.SIGTERM)
        rest = response.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"' in rest
    assert process.wait(timeout=30) == 0
    log = process.stderr.read()
    assert "POST /v1/completions 200" in log
    assert "Traceback" not in log


def test_a_context_below_the_models_own(start, tiny_micro_directory):
    process = start(tiny_micro_directory)
    url = process.stdout.readline().split()[0]
    body = {"messages": [{"role": "user", "content": [{"text": "a " * 100}]}]}
    request = urllib.request.Request(f"{url}/model/tiny/converse", data=json.dumps(body).encode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as error:
        assert "Input is too long" in json.load(error)["message"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


def test_a_broken_checkpoint_stops_the_start(start, tiny_micro_directory, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((tiny_micro_directory / "config.json").read_bytes())
    process = start(broken)
    assert process.wait(timeout=60) != 0
    assert "CheckpointError" in process.stderr.read()


def test_a_taken_port_stops_the_start(start, server, tiny_micro_directory):
    process = start(tiny_micro_directory, port=int(server.url.rsplit(":", 1)[1]))
    assert process.wait(timeout=60) != 0
    assert "Address already in use" in process.stderr.read()
