"""The world clock in the whole stack: nine markets, and a table that is whole whatever dies."""

from __future__ import annotations

import json

import psycopg

from tests.conftest import until
from tests.stack.conftest import Stack

COUNTS = "SELECT calendar, extract(year FROM date)::int, count(*) FROM trading_sessions GROUP BY 1, 2 ORDER BY 1, 2"
BLOCKED = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM trading%%'"
OLD = "SELECT 1 FROM calendar_years WHERE built_at < now() - interval '1 day'"


def test_up_answers_nine_markets_everywhere_the_same(stack: Stack) -> None:
    stack.up()
    status, document = stack.get("/api/markets")
    assert (status, len(document["markets"]), document["quality"]) == (200, 9, "live")
    typed = json.loads(stack.thor("markets", "--json").stdout)
    assert [one["code"] for one in typed["markets"]] == [one["code"] for one in document["markets"]]
    session = stack.get("/api/session?market=USA&future=YM")[1]
    assert session["clock"]["next_open"] == document["markets"][6]["next_open"]
    rows = json.loads(stack.thor("sessions", "--market", "Tokyo", "--json").stdout)
    assert {row["calendar"] for row in rows} == {"XTKS"}
    refused = stack.thor("sessions", "--market", "Atlantis")
    assert (refused.returncode, "expected one of Tokyo" in refused.stderr) == (1, True)


def test_killed_in_the_middle_of_a_write_it_leaves_a_whole_table_and_makes_it_anew(stack: Stack) -> None:
    stack.up()
    whole = stack.rows(COUNTS)
    assert len({calendar for calendar, _, _ in whole}) == 14
    with psycopg.connect(stack.settings.dsn) as holder:
        # The writer has replaced some calendars when it meets this row.
        holder.execute("SELECT 1 FROM trading_sessions WHERE calendar = 'XNYS' LIMIT 1 FOR UPDATE")
        stack.rows("UPDATE calendar_years SET built_at = '2000-01-01' RETURNING 1")
        assert stack.kill("markets")  # the one that starts finds the table old
        until(lambda: stack.rows(BLOCKED), "a write is in its middle", 60)
        assert stack.kill("markets")
        assert stack.rows(COUNTS) == whole
    until(lambda: not stack.rows(OLD), "the table is made anew", 60)
    assert stack.rows(COUNTS) == whole
