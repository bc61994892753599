"""What holds for every endpoint: problem documents, guards, headers, the documentation."""

from __future__ import annotations

import re
import socket
import time

import pytest
from pydantic import ValidationError

from httpd.app import make_app
from httpd.config import Config
from httpd.problems import PROBLEMS
from tests.httpd.conftest import INSTRUMENTS, Api
from thor.runtime.settings import ROOT, Settings

DOCS = (ROOT / "docs" / "reference-api.md").read_text()
ENDPOINTS = {
    "/api/health": {},
    "/api/quotes": {},
    "/api/bars": {"symbol": "ES"},
    "/api/vwap/today": {},
    "/api/vwap/rolling": {},
    "/api/markets": {},
    "/api/markets/composite": {},
    "/api/session": {"market": "USA", "future": "ES"},
}


def test_every_route_is_in_the_reference(server_settings: Settings) -> None:
    app = make_app(server_settings, Config(), lambda: INSTRUMENTS)
    routes = {resource.canonical for resource in app.router.resources()}
    assert routes - {path for path in routes if f"`{path}`" in DOCS or f"### GET {path}\n" in DOCS} == set()
    assert ENDPOINTS.keys() == {path for path in routes if path.startswith("/api/")}


def test_every_problem_type_is_in_the_reference_with_its_status() -> None:
    told = dict(re.findall(r"\| `/problems/([a-z-]+)` \| (\d+) \|", DOCS))
    assert told == {kind: str(status) for kind, (status, _) in PROBLEMS.items()}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_an_unknown_parameter_is_refused_with_the_known_ones(alone: Api, path: str) -> None:
    answer = alone.get(path, **ENDPOINTS[path], colour="red")
    assert (answer.status, answer.json["type"]) == (400, "/problems/unknown-parameter")
    assert answer.json["parameter"] == "colour"
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    documented = DOCS.split(f"### GET {path}\n")[1].split("###")[0]
    assert all(f"`{name}`" in documented for name in answer.json["known"])


def test_a_parameter_given_twice_is_refused(alone: Api) -> None:
    answer = alone.get("/api/bars?symbol=ES&symbol=YM")
    assert (answer.status, answer.json["parameter"]) == (400, "symbol")


@pytest.mark.parametrize("path", ["/api/nothing", "/problems/nothing", "/static/nothing", "/static/..%2Fapp.py"])
def test_what_is_not_there_is_a_problem_document(alone: Api, path: str) -> None:
    answer = alone.get(path)
    assert (answer.status, answer.json["type"]) == (404, "/problems/not-found")


def test_another_method_is_a_problem_document(alone: Api) -> None:
    answer = alone.request("DELETE", "/api/quotes", {})
    assert (answer.status, answer.json["type"]) == (405, "/problems/method-not-allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


def test_without_servers_the_page_answers_and_the_rest_says_what_it_needs(alone: Api) -> None:
    page = alone.get("/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert alone.get("/favicon.ico").status == 204
    needs = {path: alone.get(path, **parameters).json.get("needs") for path, parameters in ENDPOINTS.items()}
    redis = dict.fromkeys(("/api/quotes", "/api/markets", "/api/markets/composite"), "redis")
    assert needs == dict.fromkeys(ENDPOINTS, "postgres") | {"/api/health": None} | redis


def test_the_page_asks_nobody_else(alone: Api) -> None:
    page = alone.get("/").body.decode()
    for path in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert path.startswith("/")
        if path.startswith("/static/"):
            assert alone.get(path).status == 200
    assert alone.get("/").headers["Content-Security-Policy"].startswith("default-src 'self'")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8001", "[::1]:8001", "LOCALHOST"])
def test_a_loopback_host_is_served(alone: Api, host: str) -> None:
    assert alone.request("GET", "/favicon.ico", {"Host": host}).status == 204


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "localhost.evil.example", "10.0.0.1", ""])
def test_another_host_is_refused(alone: Api, host: str) -> None:
    answer = alone.request("GET", "/api/quotes", {"Host": host})
    assert (answer.status, answer.json["type"]) == (421, "/problems/wrong-host")


def test_no_header_tells_versions_or_grants_other_origins(alone: Api) -> None:
    answer = alone.request("GET", "/favicon.ico", {"Origin": "https://evil.example"})
    assert answer.headers["Server"] == "thor"
    assert not any(name.startswith("Access-Control") for name in answer.headers)
    with socket.create_connection(("127.0.0.1", alone.port), timeout=10) as line:
        line.sendall(b"no http at all\r\n\r\n")
        assert b"Server: thor\r\n" in line.recv(4096)


def test_a_body_over_the_limit_is_refused_unread(alone: Api) -> None:
    with socket.create_connection(("127.0.0.1", alone.port), timeout=10) as line:
        line.sendall(b"GET /api/quotes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_never_ends_its_request_is_cut_off(alone: Api) -> None:
    with socket.create_connection(("127.0.0.1", alone.port), timeout=10) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: local")
        began = time.monotonic()
        assert line.recv(1) == b""
        assert time.monotonic() - began < 5


def test_a_header_without_end_is_refused(alone: Api) -> None:
    with socket.create_connection(("127.0.0.1", alone.port), timeout=10) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n")
        assert b" 400 Bad Request\r\n" in line.recv(4096)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_any_bind_but_loopback_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="loopback"):
        Config(host=host)
