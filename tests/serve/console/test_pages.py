"""The page's files and what is sent with them."""

import http.client
import re
import urllib.request
from pathlib import Path

import pytest

import kilonova.serve.console as console

STATIC = Path(console.__file__).with_name("static")
FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
ALLOWED_ADDRESSES = ("http://www.w3.org/2000/svg", "http://127.0.0.1")


def get(server, path, **headers):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def test_the_page_allows_nothing_but_its_own_parts(family):
    status, headers, body = get(family, "/")
    policy = headers["content-security-policy"].split("; ")
    assert status == 200
    assert b'src="/console/main.js"' in body
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    # Nothing in the page itself is a script or a style, which the policy would stop.
    assert not re.search(rb"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", body)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_every_file_is_served_with_its_type_and_kept_by_browsers(family, path):
    address = f"/console/{path.relative_to(STATIC).as_posix()}"
    status, headers, body = get(family, address)
    types = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    assert (status, body) == (200, path.read_bytes())
    assert headers["content-type"].split(";")[0] == types[path.suffix]
    assert get(family, address, if_none_match=headers["etag"])[0] == 304
    assert get(family, address, if_none_match='"another"')[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/console/../routes.py", "/console/%2e%2e/routes.py", "/console/lib/../../routes.py", "/console/nothing.js"],
)
def test_nothing_else_is_served(family, path):
    assert get(family, path)[0] == 404


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_files_are_short_and_name_no_other_place(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    addresses = re.findall(r"https?://[\w.-]+[\w./-]*", text)
    assert [each for each in addresses if not each.startswith(ALLOWED_ADDRESSES)] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_no_script_turns_text_into_markup_or_code(path):
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\(|new Function"
    assert not re.search(forbidden, path.read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_every_import_of_a_script_is_there(path):
    for name in re.findall(r'^import .*?from "(.+?)";$|^import "(.+?)";$', path.read_text(), re.MULTILINE):
        assert (path.parent / (name[0] or name[1])).resolve() in FILES


def test_the_page_is_there_while_a_key_is_asked_for(keyed):
    for path in ("/", "/console/main.js"):
        assert urllib.request.urlopen(keyed.url + path, timeout=30).status == 200
