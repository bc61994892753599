"""Postgres away, frozen, slow or restarted: what a request meets, and when it is over."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.conftest import Server
from tests.httpd.conftest import Api, add_bar


def test_without_postgres_bars_are_unavailable_until_it_is_back(
    api: Api, database: psycopg.Connection, postgres: Server
) -> None:
    add_bar(database, "ES", "2013-10-08 12:00", "1650")
    assert len(api.get("/api/bars", symbol="ES").json["bars"]) == 1
    postgres.stop()
    try:
        answer = api.get("/api/bars", symbol="ES")
        assert (answer.status, answer.json["type"], answer.json["needs"]) == (503, "/problems/unavailable", "postgres")
        assert api.get("/api/quotes").status == 200
    finally:
        postgres.start()
    assert len(api.get("/api/bars", symbol="ES").json["bars"]) == 1


def together(api: Api, requests: int) -> list[int]:
    with ThreadPoolExecutor(requests) as threads:
        answers = threads.map(lambda _: api.get("/api/bars", symbol="ES"), range(requests))
        return [answer.status for answer in answers]


def test_an_outage_is_told_at_once_and_over_with_the_first_request(
    api: Api, database: psycopg.Connection, postgres: Server
) -> None:
    assert set(together(api, 8)) == {200}  # every connection was made
    postgres.kill()
    try:
        began = time.perf_counter()
        assert set(together(api, 8)) == {503}
        assert "refused" in api.get("/api/bars", symbol="ES").json["detail"]
        assert time.perf_counter() - began < 1
    finally:
        postgres.start()
    assert set(together(api, 8)) == {200}


def test_connections_that_all_died_while_they_lay_idle_delay_nobody(api: Api, database: psycopg.Connection) -> None:
    assert set(together(api, 8)) == {200}
    database.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'thor httpd' AND datname = current_database()"
    )
    began = time.perf_counter()
    assert api.get("/api/bars", symbol="ES").status == 200
    assert time.perf_counter() - began < 0.5


def test_a_query_that_waits_too_long_is_ended(api: Api, database: psycopg.Connection) -> None:
    with database.transaction():
        database.execute("LOCK TABLE bars IN ACCESS EXCLUSIVE MODE")
        answer = api.get("/api/bars", symbol="ES")
    assert (answer.status, answer.json["needs"]) == (503, "postgres")
    assert api.get("/api/bars", symbol="ES").status == 200


def test_a_frozen_backend_costs_one_answer_and_one_connection(api: Api, database: psycopg.Connection) -> None:
    assert api.get("/api/bars", symbol="ES").status == 200
    (pid,) = database.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'thor httpd' AND datname = current_database()"
    ).fetchone() or (0,)
    os.kill(pid, signal.SIGSTOP)
    try:
        frozen = api.get("/api/bars", symbol="ES")
        assert (frozen.status, frozen.json["detail"]) == (503, "postgres: no answer within 2 s")
        assert all(api.get("/api/bars", symbol="ES").status == 200 for _ in range(3))
    finally:
        os.kill(pid, signal.SIGCONT)
