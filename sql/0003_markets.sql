-- The world clock (domain.md §8): control markets, and the dated sessions of every calendar.

CREATE TABLE markets (
    code         text PRIMARY KEY,
    country      text NOT NULL,
    name         text NOT NULL,
    calendar     text NOT NULL,
    zone         text NOT NULL,
    weight       numeric NOT NULL CHECK (weight >= 0),
    region       text NOT NULL CHECK (region IN ('ASIAN', 'EUROPEAN', 'AMERICAN')),
    captures     boolean NOT NULL,
    metrics      boolean NOT NULL,
    enabled      boolean NOT NULL,
    evaluation_s integer CHECK (evaluation_s > 0),
    place        smallint NOT NULL
);
COMMENT ON TABLE markets IS 'The control markets (domain.md §8), seeded from config/markets.yaml';
COMMENT ON COLUMN markets.code IS 'Code such as JP';
COMMENT ON COLUMN markets.country IS 'Country';
COMMENT ON COLUMN markets.name IS 'Shown name';
COMMENT ON COLUMN markets.calendar IS 'Its sessions';
COMMENT ON COLUMN markets.zone IS 'Zone of its local times';
COMMENT ON COLUMN markets.weight IS 'Share of the global composite';
COMMENT ON COLUMN markets.region IS 'Which phase it makes';
COMMENT ON COLUMN markets.captures IS 'Whether its open is captured (domain.md §10)';
COMMENT ON COLUMN markets.metrics IS 'Whether its close metrics are computed (domain.md §11)';
COMMENT ON COLUMN markets.enabled IS 'Whether it takes part at all';
COMMENT ON COLUMN markets.evaluation_s IS 'How long a capture is graded, in seconds; null until the close (domain.md §12)';
COMMENT ON COLUMN markets.place IS 'Order in which markets are shown';

CREATE TABLE calendars (
    name            text PRIMARY KEY,
    zone            text NOT NULL,
    weekdays        smallint[] NOT NULL,
    confirmed_until date
);
COMMENT ON TABLE calendars IS 'Calendars of cash markets and futures, written by markets';
COMMENT ON COLUMN calendars.name IS 'Name that markets and futures use';
COMMENT ON COLUMN calendars.zone IS 'Zone of its local times';
COMMENT ON COLUMN calendars.weekdays IS 'Weekdays that have a session unless it is a holiday, Monday 0';
COMMENT ON COLUMN calendars.confirmed_until IS 'Last date that its library vouches for; past it the weekday rule holds, unconfirmed';

CREATE TABLE calendar_years (
    calendar text NOT NULL REFERENCES calendars ON DELETE CASCADE,
    year     smallint NOT NULL,
    digest   text NOT NULL,
    built_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (calendar, year)
);
COMMENT ON TABLE calendar_years IS 'Years whose sessions are in trading_sessions, each written whole in one transaction';
COMMENT ON COLUMN calendar_years.calendar IS 'Calendar';
COMMENT ON COLUMN calendar_years.year IS 'Year of the session''s date';
COMMENT ON COLUMN calendar_years.digest IS 'Of configuration, overlay and library versions that it was made from';
COMMENT ON COLUMN calendar_years.built_at IS 'Wall clock';

CREATE TABLE trading_sessions (
    calendar     text NOT NULL REFERENCES calendars ON DELETE CASCADE,
    date         date NOT NULL,
    opens        timestamptz NOT NULL,
    closes       timestamptz NOT NULL CHECK (closes > opens),
    break_starts timestamptz,
    break_ends   timestamptz,
    kind         text NOT NULL CHECK (kind IN ('regular', 'early close', 'late open', 'special')),
    source       text NOT NULL,
    confirmed    boolean NOT NULL,
    note         text NOT NULL,
    PRIMARY KEY (calendar, date)
);
COMMENT ON TABLE trading_sessions IS 'Every session, one a calendar and date (domain.md §8)';
COMMENT ON COLUMN trading_sessions.calendar IS 'Calendar';
COMMENT ON COLUMN trading_sessions.date IS 'Local date of a cash market, trade date of a future';
COMMENT ON COLUMN trading_sessions.opens IS 'The session covers [opens, closes)';
COMMENT ON COLUMN trading_sessions.closes IS 'Its end';
COMMENT ON COLUMN trading_sessions.break_starts IS 'No trading from here';
COMMENT ON COLUMN trading_sessions.break_ends IS 'to here';
COMMENT ON COLUMN trading_sessions.kind IS 'How it differs from the regular hours of its date';
COMMENT ON COLUMN trading_sessions.source IS 'Library and version, the overlay''s own source, or the weekday rule';
COMMENT ON COLUMN trading_sessions.confirmed IS 'Whether library or overlay vouches for it';
COMMENT ON COLUMN trading_sessions.note IS 'Why the overlay has it';
