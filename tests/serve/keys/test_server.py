"""Real clients, a real server process, and the keys that the command line makes while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import openai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ..conftest import Server, free_port, run_server

KILONOVA = str(Path(sys.executable).with_name("kilonova"))
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "OMP_NUM_THREADS": "1",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_EC2_METADATA_DISABLED": "true",
}
QUESTION = [{"role": "user", "content": [{"text": "hello"}]}]
SHORT = {"maxTokens": 2}


def kilonova(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KILONOVA, *arguments], capture_output=True, text=True, timeout=120, check=check, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys-server")


@pytest.fixture(scope="module")
def running(directory: Path, tiny_micro_directory: Path) -> Iterator[Server]:
    model = f"tiny={tiny_micro_directory}"
    with run_server(directory, "--model", model, "--model", f"other={tiny_micro_directory}") as server:
        wait_until_loaded(server.url)
        yield server


def wait_until_loaded(url: str, context: ssl.SSLContext | None = None) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/ready", context=context) as response:
            if response.status == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


Create = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def create(directory: Path, running: Server) -> Create:
    """Makes a key with the command line, and waits until the server knows it."""

    def make(name: str, *options: str) -> dict[str, Any]:
        made = kilonova("keys", "create", name, "--data", str(directory / "data"), "--json", *options)
        time.sleep(1.1)
        return json.loads(made.stdout)

    return make


def bedrock(url: str, key: dict[str, Any], service: str = "bedrock-runtime", **settings: Any) -> Any:
    return boto3.Session().client(
        service,
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=key["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}, **settings),
    )


def open_ai(url: str, key: dict[str, Any]) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key["openai_key"], max_retries=0)


def converse(client: Any, model: str = "tiny") -> Any:
    return client.converse(modelId=model, messages=QUESTION, inferenceConfig=SHORT)


def error_code(ask: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        ask()
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_a_key_opens_the_server_from_its_making_to_its_end(running: Server, create: Create, directory: Path) -> None:
    anyone = {"access_key_id": "local", "secret_access_key": "local", "openai_key": "local"}
    assert converse(bedrock(running.url, anyone))["usage"]["inputTokens"] > 0

    key = create("lifecycle", "--model", "tiny")
    assert error_code(lambda: converse(bedrock(running.url, anyone))) == (403, "UnrecognizedClientException")
    with pytest.raises(openai.AuthenticationError):
        open_ai(running.url, anyone).models.list()
    client = bedrock(running.url, key)
    assert converse(client)["usage"]["inputTokens"] > 0
    events = list(client.converse_stream(modelId="tiny", messages=QUESTION, inferenceConfig=SHORT)["stream"])
    assert "metadata" in events[-1]
    arn = "arn:aws:bedrock:us-east-1::foundation-model/tiny"
    assert converse(client, arn)["usage"]["inputTokens"] > 0
    answer = open_ai(running.url, key).chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=2
    )
    assert answer.usage is not None
    wrong = {**key, "secret_access_key": key["secret_access_key"][:-1] + "!"}
    assert error_code(lambda: converse(bedrock(running.url, wrong))) == (403, "InvalidSignatureException")

    listed = json.loads(kilonova("keys", "list", "--json", "--data", str(directory / "data")).stdout)
    (mine,) = (each for each in listed if each["name"] == "lifecycle")
    assert (mine["state"], mine["models"]) == ("active", ["tiny"])
    assert not {"openai_key", "bedrock_key", "secret_access_key"} & set(mine)

    assert "revoked" in kilonova("keys", "revoke", "lifecycle", "--data", str(directory / "data")).stdout
    time.sleep(1.1)
    assert error_code(lambda: converse(client)) == (403, "AccessDeniedException")
    with pytest.raises(openai.AuthenticationError, match="revoked"):
        open_ai(running.url, key).models.list()


def test_scopes(running: Server, create: Create) -> None:
    key = create("scoped", "--model", "tiny", "--operation", "Converse", "--operation", "openai")
    client = bedrock(running.url, key)
    assert converse(client)["usage"]["inputTokens"] > 0
    assert error_code(lambda: converse(client, "other")) == (403, "AccessDeniedException")
    denied = error_code(lambda: client.converse_stream(modelId="tiny", messages=QUESTION, inferenceConfig=SHORT))
    assert denied == (403, "AccessDeniedException")
    control = bedrock(running.url, key, "bedrock")
    assert error_code(control.list_foundation_models) == (403, "AccessDeniedException")
    models = open_ai(running.url, key)
    assert [model.id for model in models.models.list()] == ["tiny"]
    with pytest.raises(openai.PermissionDeniedError):
        models.completions.create(model="other", prompt="a", max_tokens=1)
    with pytest.raises(openai.PermissionDeniedError):
        models.models.retrieve("other")


def test_a_large_signed_body(running: Server, create: Create) -> None:
    """More than one read of the socket, and long enough to be hashed on a thread."""
    client = bedrock(running.url, create("large"))
    long = [{"role": "user", "content": [{"text": "a " * 800_000}]}]
    assert error_code(lambda: client.converse(modelId="tiny", messages=long)) == (400, "ValidationException")


def test_a_presigned_list(running: Server, create: Create) -> None:
    client = bedrock(running.url, create("presigner"), "bedrock")
    url = client.generate_presigned_url("list_foundation_models", {"byOutputModality": "TEXT"}, HttpMethod="GET")
    with urllib.request.urlopen(url, timeout=30) as response:
        assert "tiny" in response.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("TEXT", "IMAGE"), timeout=30)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_signs_and_the_aws_command_line_too(running: Server, create: Create, tmp_path: Path) -> None:
    key = create("shell")
    body = json.dumps({"messages": QUESTION, "inferenceConfig": SHORT})
    command = ["curl", "-sS", "-w", "%{http_code}", "--aws-sigv4", "aws:amz:us-east-1:bedrock"]
    command += ["--user", f"{key['access_key_id']}:{key['secret_access_key']}", "-d", body]
    for path in (
        "/model/tiny/converse",
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Ftiny/converse",
    ):
        arguments = [*command, "-H", "content-type: application/json", running.url + path]
        answer = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True).stdout
        assert answer.endswith("200"), (path, answer)


def test_printed_lines_work_when_pasted(running: Server, directory: Path, tmp_path: Path) -> None:
    made = kilonova("keys", "create", "pasted", "--data", str(directory / "data"), "--url", running.url)
    time.sleep(1.1)
    lines = made.stdout.splitlines()
    exports = [line for line in lines if line.startswith("export ")]
    (curl,) = (line for line in lines if line.startswith("curl "))
    assert len(exports) == 2
    boto3_code = f"import boto3; boto3.client('bedrock-runtime').converse(modelId='tiny', messages={QUESTION!r})"
    openai_code = "import openai; print(len(openai.OpenAI().models.list().data))"
    script = "\n".join([*exports, f'{sys.executable} -c "{boto3_code}"', f'{sys.executable} -c "{openai_code}"', curl])
    run = subprocess.run(
        ["bash", "-ec", script], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=ENVIRONMENT
    )
    assert run.returncode == 0, run.stderr
    assert '"tiny"' in run.stdout


def test_an_address_that_others_reach_needs_a_key(tmp_path: Path, tiny_micro_directory: Path) -> None:
    options = ["--host", "0.0.0.0", "--port", str(free_port()), "--model", f"tiny={tiny_micro_directory}"]
    refused = kilonova("serve", *options, "--data", str(tmp_path), check=False)
    assert refused.returncode == 2
    assert "kilonova keys create" in refused.stderr
    assert "Traceback" not in refused.stderr

    kilonova("keys", "create", "first", "--data", str(tmp_path))
    (tmp_path / "master.key").chmod(0o640)
    refused = kilonova("serve", *options, "--data", str(tmp_path), check=False)
    assert refused.returncode == 2
    assert "chmod 600" in refused.stderr

    (tmp_path / "master.key").chmod(0o600)
    with run_server(tmp_path, *options[:2], *options[4:], "--data", str(tmp_path)) as server:
        assert server.post("/v1/completions", {"model": "tiny", "prompt": "a"})[0] == 401
        wait_until_loaded(server.url)
        deadline = time.monotonic() + 10
        while "a key is needed" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_postgresql(new_postgres_database: Callable[[], str], tmp_path: Path, tiny_micro_directory: Path) -> None:
    url = new_postgres_database()
    data = tmp_path / "data"
    options = ["--data", str(data), "--database", url]
    key = json.loads(kilonova("keys", "create", "shared", *options, "--json").stdout)
    with run_server(tmp_path, "--model", f"tiny={tiny_micro_directory}", "--database", url) as server:
        wait_until_loaded(server.url)
        assert converse(bedrock(server.url, key))["usage"]["inputTokens"] > 0
        kilonova("keys", "revoke", "shared", *options)
        time.sleep(1.1)
        assert error_code(lambda: converse(bedrock(server.url, key))) == (403, "AccessDeniedException")
    (listed,) = json.loads(kilonova("keys", "list", *options, "--json").stdout)
    assert listed["last_used_at"] is not None
    assert not (data / "kilonova.db").exists()
    assert "word" not in (tmp_path / "log").read_text()


def test_https_with_a_certificate_of_its_own(tmp_path: Path, tiny_micro_directory: Path) -> None:
    data = tmp_path / "data"
    key = json.loads(kilonova("keys", "create", "tls", "--data", str(data), "--json").stdout)
    port = free_port()
    url = f"https://localhost:{port}"
    command = [KILONOVA, "serve", "--tls", "--port", str(port), "--data", str(data)]
    command += ["--model", f"tiny={tiny_micro_directory}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        assert server.stdout is not None
        try:
            banner = ""
            for line in server.stdout:
                banner += line
                if "Ctrl-C" in line:
                    break
            authority = data / "tls" / "ca.pem"
            assert str(authority) in banner
            assert "AWS_CA_BUNDLE" in banner
            code = f"""
import boto3, openai
client = boto3.client("bedrock-runtime", endpoint_url={url!r}, region_name="us-east-1")
print(client.converse(modelId="tiny", messages={QUESTION!r}, inferenceConfig={SHORT!r})["usage"]["outputTokens"])
print(openai.OpenAI(base_url={url + "/v1"!r}).models.retrieve("tiny").id)
"""
            environment = {
                **ENVIRONMENT,
                "AWS_CA_BUNDLE": str(authority),
                "SSL_CERT_FILE": str(authority),
                "AWS_BEARER_TOKEN_BEDROCK": key["bedrock_key"],
                "OPENAI_API_KEY": key["openai_key"],
            }
            run = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
            )
            assert run.returncode == 0, run.stderr
            assert run.stdout.splitlines() == ["2", "tiny"]
            context = ssl.create_default_context(cafile=authority)
            assert converse(bedrock_over_tls(url, key, authority))["usage"]["inputTokens"] > 0
            for name in ("localhost", "127.0.0.1"):
                wait_until_loaded(f"https://{name}:{port}", context)
            with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
                urllib.request.urlopen(f"{url}/health", timeout=10)
        finally:
            server.terminate()
            server.stdout.read()


def bedrock_over_tls(url: str, key: dict[str, Any], authority: Path) -> Any:
    return boto3.Session().client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=key["secret_access_key"],
        verify=str(authority),
        config=Config(retries={"total_max_attempts": 1}),
    )
