"""What the page asks of the server, and who may not."""

import http.client
import json

import pytest

OWN = {"x-kilonova-console": "1"}


def call(server, method, path, *, body=None, key=None, headers=OWN):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    authorization = {"authorization": f"Bearer {key}"} if key else {}
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {**authorization, **headers})
    response = connection.getresponse()
    content = response.read()
    return response.status, json.loads(content) if content else None


def test_info_describes_models_and_their_prices(family):
    status, info = call(family, "GET", "/kilonova/info", headers={})
    models = {model["name"]: model for model in info["models"]}
    assert status == 200
    assert info["open"] is True
    assert info["key"] is None
    assert info["manages_keys"] is True
    assert models["micro"]["price"]["input"] == 0.035
    assert models["micro"]["price"]["cache_read"] == 0.00875
    assert models["tiny"]["price"] is None
    assert models["tiny"]["context_length"] == 512


# What a page of another site can make a browser send; `HOST` stands for the server's own.
HOSTILE = {
    "no header of our own": {},
    "another origin": {**OWN, "origin": "http://evil.example"},
    "another port": {**OWN, "origin": "http://127.0.0.1:1"},
    "an opaque origin": {**OWN, "origin": "null"},
    "another site by fetch metadata": {**OWN, "sec-fetch-site": "cross-site"},
    "another port by fetch metadata": {**OWN, "sec-fetch-site": "same-site"},
    "a name bound to this machine": {**OWN, "host": "evil.example", "origin": "http://evil.example"},
    "the same, as same-origin": {**OWN, "host": "evil.example:80", "sec-fetch-site": "same-origin"},
    "a name that begins like ours": {**OWN, "host": "localhost.evil.example"},
    "a broken origin": {**OWN, "origin": "http://["},
    "a broken host": {**OWN, "host": "[::1"},
    "no host": {**OWN, "host": ""},
    "through a proxy": {**OWN, "x-forwarded-for": "203.0.113.9"},
}


@pytest.mark.parametrize("headers", HOSTILE.values(), ids=HOSTILE)
def test_other_sites_cannot_manage_the_keys_of_an_open_server(family, headers):
    for method, path, body in (
        ("GET", "/kilonova/keys", None),
        ("POST", "/kilonova/keys", {"name": "evil"}),
        ("DELETE", "/kilonova/keys/any", None),
    ):
        status, answer = call(family, method, path, body=body, headers=headers)
        assert status == 403, (method, answer)
        assert answer["error"]["code"] == "insufficient_permissions"
    assert call(family, "GET", "/kilonova/keys") == (200, {"keys": []})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_own_page_may(family, host):
    own = f"{host}:{family.url.rpartition(':')[2]}"
    headers = {**OWN, "host": own, "origin": f"http://{own}", "sec-fetch-site": "same-origin"}
    assert call(family, "GET", "/kilonova/keys", headers=headers) == (200, {"keys": []})


def test_a_keyed_server_tells_nothing_without_a_key(keyed):
    for method, path in (("GET", "/kilonova/info"), ("GET", "/kilonova/keys"), ("POST", "/kilonova/keys")):
        for key in (None, "sk-wrong"):
            status, answer = call(keyed, method, path, key=key)
            assert status == 401
            assert answer["error"]["code"] == "invalid_api_key"


def test_managing_keys_takes_a_key_that_says_so(keyed):
    status, made = call(keyed, "POST", "/kilonova/keys", key=keyed.admin, body={"name": "unlimited"})
    assert status == 201
    unlimited = made["secrets"]["openai_key"]
    assert made["operations"] is None
    assert call(keyed, "GET", "/kilonova/info", key=unlimited)[1]["manages_keys"] is False
    for method, path in (
        ("GET", "/kilonova/keys"),
        ("POST", "/kilonova/keys"),
        ("DELETE", f"/kilonova/keys/{made['id']}"),
    ):
        assert call(keyed, method, path, key=unlimited, body={"name": "more"})[0] == 403

    known = call(keyed, "GET", "/kilonova/keys", key=keyed.admin)[1]["keys"]
    assert [key["name"] for key in known][-1] == "unlimited"
    assert not any("secret" in name or "hash" in name for key in known for name in key)

    assert call(keyed, "DELETE", f"/kilonova/keys/{made['id']}", key=keyed.admin) == (204, None)
    assert call(keyed, "DELETE", f"/kilonova/keys/{made['id']}", key=keyed.admin) == (204, None)
    assert call(keyed, "GET", "/kilonova/info", key=unlimited)[0] == 401


def test_a_keys_models_operations_and_limits_are_kept(keyed):
    wanted = {
        "name": "limited",
        "models": ["amazon.nova-micro-v1:0"],
        "operations": ["openai"],
        "requests_per_minute": 5,
        "tokens_per_day": 1000,
        "budget_usd": "0.50",
        "budget_period": "day",
        "expires_in_days": 3,
    }
    status, made = call(keyed, "POST", "/kilonova/keys", key=keyed.admin, body=wanted)
    assert status == 201
    assert made["models"] == ["micro"]
    assert "chat.completions" in made["operations"]
    assert (made["requests_per_minute"], made["tokens_per_minute"], made["tokens_per_day"]) == (5, None, 1000)
    assert (made["budget_usd"], made["budget_period"]) == ("0.50", "day")
    info = call(keyed, "GET", "/kilonova/info", key=made["secrets"]["bedrock_key"])[1]
    assert info["key"] == {"id": made["id"], "name": "limited"}
    assert [model["name"] for model in info["models"]] == ["micro"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a", "colour": "red"}, "colour"),
        ({"name": "a", "operations": ["fly"]}, "operations"),
        ({"name": "a", "budget_usd": "-1"}, "budget_usd"),
        ({"name": "a", "budget_usd": "NaN"}, "budget_usd"),
        ({"name": "a", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "a", "expires_in_days": 10**9}, "expires_in_days"),
    ],
)
def test_what_a_key_cannot_be_is_refused_by_name(keyed, body, field):
    status, answer = call(keyed, "POST", "/kilonova/keys", key=keyed.admin, body=body)
    assert status == 400
    assert answer["error"]["param"] == field


def test_an_unknown_model_or_key_is_refused(keyed):
    assert call(keyed, "POST", "/kilonova/keys", key=keyed.admin, body={"name": "a", "models": ["x"]})[0] == 404
    assert call(keyed, "DELETE", "/kilonova/keys/AKKNNOTHING", key=keyed.admin)[0] == 404
