"""Keys and what a thief of the database, or of the master key alone, could do with them."""

from __future__ import annotations

import base64
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kilonova.core.errors import ConfigError, InvalidRequest
from kilonova.serve.keys.master import MasterKey
from kilonova.serve.keys.operations import expand, summarise
from kilonova.serve.keys.store import KeyStore


def test_keys_have_the_forms_that_clients_know(store: KeyStore, master: MasterKey) -> None:
    key, secrets = store.create(master, "web")
    assert re.fullmatch(r"AKKN[A-Z2-7]{16}", secrets.access_key_id)
    assert key.id == secrets.access_key_id
    assert re.fullmatch(r"[A-Za-z0-9+/]{40}", secrets.secret_access_key)
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", secrets.openai_key)
    inner = base64.b64decode(secrets.bedrock_key.removeprefix("ABSK"), validate=True).decode()
    assert re.fullmatch(rf"BedrockAPIKey-{key.id.lower()}-at-\d{{12}}:[A-Za-z0-9+/=]{{44}}", inner)


def test_a_stolen_database_holds_no_secret(store: KeyStore, master: MasterKey, tmp_path: Path) -> None:
    made = [store.create(master, f"key {number}")[1] for number in range(3)]
    stolen = b"".join(path.read_bytes() for path in tmp_path.glob("kilonova.db*"))
    for secrets in made:
        assert secrets.access_key_id.encode() in stolen
        # The random parts, whole and in the piece that the database's pages could have split off.
        for secret in (secrets.openai_key[3:], secrets.bedrock_key[60:], secrets.secret_access_key):
            assert secret.encode() not in stolen
            assert secret[:16].encode() not in stolen
    assert (tmp_path / "master.key").read_bytes().strip() not in stolen


def test_secrets_do_not_show_in_logs(store: KeyStore, master: MasterKey) -> None:
    _, secrets = store.create(master, "web")
    for shown in (repr(secrets), repr(master), str(master)):
        assert secrets.openai_key not in shown
        assert secrets.secret_access_key not in shown


def test_secrets_follow_from_the_master_key_and_the_id_alone(tmp_path: Path) -> None:
    master, other = MasterKey(bytes(32)), MasterKey(bytes(31) + b"\1")
    # HMAC-SHA256 of the text "kilonova secret access key", a zero byte and the id, by hashlib's definition.
    import hashlib

    inner = hashlib.sha256(b"\x36" * 64 + b"kilonova secret access key\0AKKNA").digest()
    expected = hashlib.sha256(b"\x5c" * 64 + inner).digest()[:30]
    assert base64.b64decode(master.secret_access_key("AKKNA")) == expected
    assert master.secret_access_key("AKKNA") != master.secret_access_key("AKKNB")
    assert master.secret_access_key("AKKNA") != other.secret_access_key("AKKNA")
    assert master.id != other.id


def test_the_master_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "master.key"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(MasterKey.open(path).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_master_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    MasterKey.open(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}.*chmod 600"):
        MasterKey.open(path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33, "é" * 64])
def test_another_file_is_no_master_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        MasterKey.open(path)


def test_keys_are_revoked_by_id_or_by_a_name_that_is_one_keys(store: KeyStore, master: MasterKey) -> None:
    first, _ = store.create(master, "web")
    second, _ = store.create(master, "web")
    with pytest.raises(InvalidRequest, match=f"several keys.*{min(first.id, second.id)}"):
        store.revoke("web")
    store.revoke(first.id)
    assert store.revoke("web").id == second.id
    assert [key.state(datetime.now(UTC)) for key in store.list()] == ["revoked", "revoked"]
    for gone in ("web", first.id, "nobody"):
        with pytest.raises(InvalidRequest, match=f"no key {gone!r}.*known: none"):
            store.revoke(gone)


def test_keys_expire(store: KeyStore, master: MasterKey) -> None:
    now = datetime.now(UTC)
    key, _ = store.create(master, "web", expires_at=now + timedelta(hours=1))
    assert key.state(now) == "active"
    assert key.state(now + timedelta(hours=1)) == "expired"


def test_every_operation_of_the_server_can_be_named() -> None:
    import inspect

    from kilonova.serve.app import create_app
    from kilonova.serve.keys.operations import OPERATIONS

    class NoModels:
        down: tuple[str, ...] = ()

        def entries(self) -> list[object]:
            return []

    named = set()
    for route in create_app(NoModels()).routes:  # type: ignore[arg-type]
        names = inspect.getclosurevars(route.endpoint).nonlocals  # type: ignore[attr-defined]
        if "operation" in names:
            named.add(names["operation"])
    assert {"Converse", "chat.completions"} <= named
    assert named - {""} <= set(OPERATIONS)


def test_operations_may_be_given_in_groups() -> None:
    assert expand(["Converse", "chat.completions"]) == {"Converse", "chat.completions"}
    assert {"Converse", "InvokeModel"} < expand(["bedrock"])
    assert "usage.all" not in expand(["bedrock", "openai", "usage"])
    assert summarise(expand(["bedrock", "models"])) == ["bedrock", "models"]
    for wrong in ("converse", "Everything", ""):
        with pytest.raises(InvalidRequest, match="no operation"):
            expand([wrong])
