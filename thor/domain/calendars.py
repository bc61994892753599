"""Dated trading sessions, and what they say of an instant (domain.md §8). Instants are ns UTC.

A calendar is a list of sessions, one a date. Where nobody vouches for a date, the weekday rule makes its session.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Final, Literal
from zoneinfo import ZoneInfo

from thor.domain.prices import NANO

Kind = Literal["regular", "early close", "late open", "special"]
Status = Literal["OPEN", "PREOPEN", "PRECLOSE", "BREAK", "CLOSED", "HOLIDAY_CLOSED"]
Happening = Literal["PREOPEN", "OPEN", "BREAK", "RESUME", "PRECLOSE", "CLOSE"]

WEEKDAY_RULE: Final = "weekday rule"
PREOPEN_NS: Final = 3600 * NANO
PRECLOSE_NS: Final = 900 * NANO
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Session:
    """One open-to-close period [opens, closes) of one date; a break (lunch) is inside of it.

    ``source`` is the library, the overlay's own source, or the weekday rule; ``note`` says why it is special.
    """

    date: date
    opens: int
    closes: int
    break_starts: int | None = None
    break_ends: int | None = None
    kind: Kind = "regular"
    source: str = WEEKDAY_RULE
    confirmed: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        starts, ends = self.break_starts, self.break_ends
        if (starts is None) != (ends is None):
            raise ValueError(f"{self.date}: expected both ends of a break, found one")
        inside = [self.opens, *([] if starts is None or ends is None else [starts, ends]), self.closes]
        if any(a >= b for a, b in pairwise(inside)):
            raise ValueError(f"{self.date}: expected open < break < close")


@dataclass(frozen=True, slots=True)
class Hours:
    """Local times that hold from a date on; with ``eve`` the open lies on the evening before."""

    since: date
    opens: time
    closes: time
    break_: tuple[time, time] | None = None
    eve: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What the overlay says of one date: these local times, or none where the session is removed."""

    date: date
    hours: Hours | None
    source: str
    note: str


@dataclass(frozen=True)
class Calendar:
    """The rule behind a calendar: regular hours by date, oldest first, on ``weekdays`` (Monday 0)."""

    name: str
    zone: str
    hours: tuple[Hours, ...]
    weekdays: frozenset[int] = frozenset(range(5))

    def on(self, day: date) -> Hours:
        """The regular hours of a date; before the first of them the first hold."""
        return next((hours for hours in reversed(self.hours) if hours.since <= day), self.hours[0])

    def instant(self, day: date, at: time) -> int:
        """A local time of a date in ns UTC."""
        local = datetime.combine(day, at, tzinfo=ZoneInfo(self.zone))
        return int(local.astimezone(UTC).timestamp()) * NANO

    def session(self, day: date, hours: Hours | None = None) -> Session:
        """The session of a date by its regular hours, or by these; unconfirmed."""
        hours = hours or self.on(day)
        opens = self.instant(day - _DAY if hours.eve else day, hours.opens)
        starts, ends = (self.instant(day, at) for at in hours.break_) if hours.break_ else (None, None)
        return Session(day, opens, self.instant(day, hours.closes), starts, ends)

    def kind(self, session: Session) -> Kind:
        """How its open and close differ from the regular ones."""
        regular = self.session(session.date)
        late, early = session.opens > regular.opens, session.closes < regular.closes
        if session.date.weekday() not in self.weekdays:
            return "special"
        if (session.opens, session.closes) == (regular.opens, regular.closes):
            return "regular"
        if session.opens < regular.opens or session.closes > regular.closes or late == early:
            return "special"
        return "late open" if late else "early close"


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a library says: its sessions, complete for [first, last]."""

    first: date
    last: date
    sessions: Mapping[date, Session]


def build(
    calendar: Calendar, first: date, last: date, vouched: Vouched | None, changes: Sequence[Change] = ()
) -> list[Session]:
    """Every session of [first, last]: vouched for, else by the weekday rule, and the overlay above both."""
    found: dict[date, Session] = {}
    for day in days(first, last):
        if vouched is not None and vouched.first <= day <= vouched.last:
            known = vouched.sessions.get(day)
            if known is not None:
                found[day] = replace(known, kind=calendar.kind(known), confirmed=True)
        elif day.weekday() in calendar.weekdays:
            found[day] = calendar.session(day)
    for change in changes:
        if not first <= change.date <= last:
            continue
        found.pop(change.date, None)
        if change.hours is not None:
            session = calendar.session(change.date, change.hours)
            found[change.date] = replace(
                session, kind=calendar.kind(session), source=change.source, confirmed=True, note=change.note
            )
    return [found[day] for day in sorted(found)]


def days(first: date, last: date) -> Iterator[date]:
    """Each date of [first, last]."""
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


@dataclass(frozen=True, slots=True)
class Event:
    """What happens next, and when."""

    kind: Happening
    at: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What a calendar says of one instant. ``session`` is the one that runs, else the one of today's date, if any.

    ``next_close`` is the close of the running session, else of the next. None past the last session known.
    """

    at: int
    status: Status
    session: Session | None
    next_session: Session | None
    next_close: int | None
    next_event: Event | None
    confirmed: bool

    @property
    def is_open(self) -> bool:
        """Whether the market trades at this instant."""
        return self.status in ("OPEN", "PRECLOSE")

    @property
    def next_open(self) -> int | None:
        """The next open after this instant."""
        return None if self.next_session is None else self.next_session.opens


class Timeline:
    """The sessions of one calendar over a stretch of dates."""

    def __init__(self, zone: str, weekdays: Iterable[int], sessions: Iterable[Session]) -> None:
        self.zone = ZoneInfo(zone)
        self._weekdays = frozenset(weekdays)
        self.sessions = sorted(sessions, key=lambda session: session.opens)
        self._opens = [session.opens for session in self.sessions]
        self._dates = {session.date: session for session in self.sessions}

    def on(self, day: date) -> Session | None:
        """The session of a date."""
        return self._dates.get(day)

    def is_open(self, at: int) -> bool:
        """Whether the instant lies in a session and in no break."""
        i = bisect_right(self._opens, at) - 1
        return i >= 0 and _runs(self.sessions[i], at)

    def stretch(self, at: int) -> tuple[int, int] | None:
        """The unbroken trading [from, to) that the instant lies in; a break ends it. None where there is none."""
        i = bisect_right(self._opens, at) - 1
        if i < 0 or not _runs(self.sessions[i], at):
            return None
        one = self.sessions[i]
        if one.break_starts is None or one.break_ends is None:
            return one.opens, one.closes
        return (one.opens, one.break_starts) if at < one.break_starts else (one.break_ends, one.closes)

    def open_since(self, at: int, span: int) -> bool:
        """Whether the market has traded without a break for ``span`` before the instant."""
        i = bisect_right(self._opens, at - span) - 1
        if i < 0:
            return False
        one = self.sessions[i]
        cut = one.break_starts is not None and at - span < one.break_starts <= at
        return _runs(one, at - span) and _runs(one, at) and not cut

    def resumes(self, at: int) -> int | None:
        """When trading next begins after the instant: an open or the end of a break; None past what is known."""
        i = bisect_right(self._opens, at)
        near = self.sessions[max(0, i - 1) : i + 1]
        starts = (start for one in near for start in (one.opens, one.break_ends))
        return min((start for start in starts if start is not None and start > at), default=None)

    def edge(self, at: int, grace: int) -> bool:
        """Whether an open, a close or an end of a break lies within ``grace`` of the instant."""
        i = bisect_right(self._opens, at)
        near = self.sessions[max(0, i - 1) : i + 1]
        ends = (end for s in near for end in (s.opens, s.closes, s.break_starts, s.break_ends))
        return any(end is not None and abs(end - at) <= grace for end in ends)

    def at(self, at: int) -> Moment:
        """Status, next open, next close and next event of an instant."""
        i = bisect_right(self._opens, at)
        previous = self.sessions[i - 1] if i else None
        upcoming = self.sessions[i] if i < len(self.sessions) else None
        running = previous if previous is not None and at < previous.closes else None
        today = self._dates.get(self.local(at).date())
        status = self._running(running, at) if running is not None else self._closed(at, upcoming, today)
        closing = running or upcoming
        shown = running or today
        concerned = [one for one in (shown, upcoming) if one is not None]
        return Moment(
            at,
            status,
            shown,
            upcoming,
            None if closing is None else closing.closes,
            self._next(at, previous, upcoming),
            all(one.confirmed for one in concerned),
        )

    def local(self, at: int) -> datetime:
        """The instant in the calendar's zone, whole seconds."""
        return datetime.fromtimestamp(at // NANO, self.zone)

    def _running(self, session: Session, at: int) -> Status:
        if not _runs(session, at):
            return "BREAK"
        return "PRECLOSE" if session.closes - at <= PRECLOSE_NS else "OPEN"

    def _closed(self, at: int, upcoming: Session | None, today: Session | None) -> Status:
        if upcoming is not None and upcoming.opens - at <= PREOPEN_NS:
            return "PREOPEN"
        holiday = today is None and self.local(at).weekday() in self._weekdays
        return "HOLIDAY_CLOSED" if holiday else "CLOSED"

    def _next(self, at: int, previous: Session | None, upcoming: Session | None) -> Event | None:
        events = [event for one in (previous, upcoming) if one is not None for event in _events(one)]
        ahead = [event for event in events if event.at > at]
        running_closes = previous.closes if previous is not None else at
        # Where less than an hour lies between two sessions, their close is also the next one's preopen.
        ahead = [event for event in ahead if event.kind != "PREOPEN" or event.at > running_closes]
        return min(ahead, key=lambda event: event.at, default=None)


def _runs(session: Session, at: int) -> bool:
    if session.break_starts is not None and session.break_ends is not None:
        return session.opens <= at < session.break_starts or session.break_ends <= at < session.closes
    return session.opens <= at < session.closes


def _events(session: Session) -> Iterator[Event]:
    yield Event("PREOPEN", session.opens - PREOPEN_NS)
    yield Event("OPEN", session.opens)
    if session.break_starts is not None and session.break_ends is not None:
        yield Event("BREAK", session.break_starts)
        yield Event("RESUME", session.break_ends)
    if _runs(session, session.closes - PRECLOSE_NS) and session.closes - PRECLOSE_NS > session.opens:
        yield Event("PRECLOSE", session.closes - PRECLOSE_NS)
    yield Event("CLOSE", session.closes)
