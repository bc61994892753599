-- Thor's first schema: instruments, positions of the projections, bars, gaps, day statistics, VWAP.
-- Instants are timestamptz; *_ns columns are event time in nanoseconds since 1970 UTC, kept because
-- timestamptz ends at microseconds and the order of quotes decides opens and closes (domain.md §5).

CREATE TABLE hours (
    name         text PRIMARY KEY,
    zone         text NOT NULL,
    roll         time NOT NULL,
    opens        time NOT NULL,
    closes       time NOT NULL,
    eve          boolean NOT NULL,
    weekdays     smallint[] NOT NULL
);
COMMENT ON TABLE hours IS 'Weekly trading hours of futures, seeded with the instruments; holidays belong to the world clock';
COMMENT ON COLUMN hours.name IS 'Name that instruments use';
COMMENT ON COLUMN hours.zone IS 'Zone of the local times';
COMMENT ON COLUMN hours.roll IS 'Local time at which the trade date begins';
COMMENT ON COLUMN hours.opens IS 'Local time at which trading opens';
COMMENT ON COLUMN hours.closes IS 'Local time at which trading closes';
COMMENT ON COLUMN hours.eve IS 'Whether roll and opens lie on the evening before';
COMMENT ON COLUMN hours.weekdays IS 'Weekdays that are trade dates, Monday 0';

CREATE TABLE instruments (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol       text NOT NULL UNIQUE,
    name         text NOT NULL,
    exchange     text NOT NULL,
    country      text NOT NULL,
    tick_size    numeric NOT NULL CHECK (tick_size > 0),
    tick_value   numeric NOT NULL,
    size_step    numeric NOT NULL CHECK (size_step > 0),
    decimals     smallint NOT NULL,
    notation     text NOT NULL CHECK (notation IN ('decimal', '32nds', '8ths')),
    safe_haven   boolean NOT NULL,
    negative     boolean NOT NULL,
    hours        text NOT NULL REFERENCES hours,
    aliases      text[] NOT NULL,
    root         text
);
COMMENT ON TABLE instruments IS 'What is traded (domain.md §2); seeded from config/instruments.yaml and the user''s own files';
COMMENT ON COLUMN instruments.id IS 'Number used by every other table';
COMMENT ON COLUMN instruments.symbol IS 'Canonical symbol, upper case, without slash';
COMMENT ON COLUMN instruments.name IS 'Name for people';
COMMENT ON COLUMN instruments.exchange IS 'Where it trades';
COMMENT ON COLUMN instruments.country IS 'Country of the exchange';
COMMENT ON COLUMN instruments.tick_size IS 'Price step';
COMMENT ON COLUMN instruments.tick_value IS 'Worth of one price step, US dollars a contract';
COMMENT ON COLUMN instruments.size_step IS 'Smallest size; sizes are multiples of it';
COMMENT ON COLUMN instruments.decimals IS 'Decimals for display; storage keeps what the feed said';
COMMENT ON COLUMN instruments.notation IS 'How feeds write its prices: decimal, 32nds, 8ths';
COMMENT ON COLUMN instruments.safe_haven IS 'Whether its signal counts with the sign turned in TOTAL (domain.md §9)';
COMMENT ON COLUMN instruments.negative IS 'Whether it can trade at or below zero';
COMMENT ON COLUMN instruments.hours IS 'Its weekly trading hours';
COMMENT ON COLUMN instruments.aliases IS 'Names that feeds use for it';
COMMENT ON COLUMN instruments.root IS 'For a contract: the symbol whose specification it has';

CREATE TABLE positions (
    name         text PRIMARY KEY,
    generation   bigint NOT NULL,
    n            bigint NOT NULL,
    watermark_ns bigint,
    missed       bigint NOT NULL DEFAULT 0,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE positions IS 'How far each projection has committed the log, moved in the same transaction as its rows (design.md, invariant 4)';
COMMENT ON COLUMN positions.name IS 'The projection';
COMMENT ON COLUMN positions.generation IS 'Which log: an emptied Redis starts another';
COMMENT ON COLUMN positions.n IS 'Number of the last entry committed';
COMMENT ON COLUMN positions.watermark_ns IS 'Watermark of that entry';
COMMENT ON COLUMN positions.missed IS 'Entries that were gone before this projection read them';
COMMENT ON COLUMN positions.updated_at IS 'Wall clock of the commit';

CREATE TABLE bars (
    instrument_id integer NOT NULL REFERENCES instruments,
    minute        timestamptz NOT NULL,
    trade_date    date NOT NULL,
    open          numeric NOT NULL,
    high          numeric NOT NULL,
    low           numeric NOT NULL,
    close         numeric NOT NULL,
    volume        numeric NOT NULL,
    notional      numeric NOT NULL,
    updates       bigint NOT NULL,
    revision      bigint NOT NULL,
    revised_at    timestamptz,
    basis         text NOT NULL CHECK (basis IN ('trade', 'snapshot', 'mixed')),
    open_ns       bigint NOT NULL,
    close_ns      bigint NOT NULL,
    PRIMARY KEY (instrument_id, minute)
) WITH (fillfactor = 70);
CREATE INDEX bars_by_trade_date ON bars (instrument_id, trade_date);
COMMENT ON TABLE bars IS 'One-minute bars (domain.md §5); a minute in which nothing traded has no row';
COMMENT ON COLUMN bars.instrument_id IS 'Instrument';
COMMENT ON COLUMN bars.minute IS 'Start of the minute; the bar covers [minute, minute + 60 s) of event time';
COMMENT ON COLUMN bars.trade_date IS 'Trade date of the exchange';
COMMENT ON COLUMN bars.open IS 'First last, by event time, ties by arrival';
COMMENT ON COLUMN bars.high IS 'Highest last';
COMMENT ON COLUMN bars.low IS 'Lowest last';
COMMENT ON COLUMN bars.close IS 'Last last, by event time, ties by arrival';
COMMENT ON COLUMN bars.volume IS 'Traded volume (domain.md §4)';
COMMENT ON COLUMN bars.notional IS 'Σ last × traded volume';
COMMENT ON COLUMN bars.updates IS 'Quotes that made or moved the bar';
COMMENT ON COLUMN bars.revision IS 'Late quotes that amended it after the watermark had passed its end';
COMMENT ON COLUMN bars.revised_at IS 'Watermark at which the last of them was accepted';
COMMENT ON COLUMN bars.basis IS 'trade, snapshot (a price between two polls was never seen) or mixed';
COMMENT ON COLUMN bars.open_ns IS 'Event time of the open';
COMMENT ON COLUMN bars.close_ns IS 'Event time of the close';

CREATE TABLE books (
    instrument_id integer NOT NULL REFERENCES instruments,
    minute        timestamptz NOT NULL,
    bid           numeric,
    bid_ns        bigint,
    ask           numeric,
    ask_ns        bigint,
    PRIMARY KEY (instrument_id, minute)
) WITH (fillfactor = 70);
COMMENT ON TABLE books IS 'The last bid and ask of each minute, also of minutes without a bar';
COMMENT ON COLUMN books.instrument_id IS 'Instrument';
COMMENT ON COLUMN books.minute IS 'Start of the minute';
COMMENT ON COLUMN books.bid IS 'Last bid of the minute by event time, ties by arrival';
COMMENT ON COLUMN books.bid_ns IS 'Event time of the bid';
COMMENT ON COLUMN books.ask IS 'Last ask of the minute by event time, ties by arrival';
COMMENT ON COLUMN books.ask_ns IS 'Event time of the ask';

CREATE TABLE gaps (
    instrument_id integer NOT NULL REFERENCES instruments,
    starts_ns     bigint NOT NULL,
    ends_ns       bigint NOT NULL,
    cause         text NOT NULL CHECK (cause IN ('feed silent', 'stack down')),
    volume        numeric NOT NULL,
    trade_date    date NOT NULL,
    PRIMARY KEY (instrument_id, starts_ns, ends_ns)
);
COMMENT ON TABLE gaps IS 'When a feed was down inside trading hours, and the volume that cannot be said to belong to one minute (domain.md §4)';
COMMENT ON COLUMN gaps.instrument_id IS 'Instrument';
COMMENT ON COLUMN gaps.starts_ns IS 'Event time of the last quote before the silence';
COMMENT ON COLUMN gaps.ends_ns IS 'Event time of the first quote after it';
COMMENT ON COLUMN gaps.cause IS 'feed silent, or stack down: the silence was ours';
COMMENT ON COLUMN gaps.volume IS 'Traded during the silence; counts in day and session totals, never on a bar';
COMMENT ON COLUMN gaps.trade_date IS 'Trade date of the quote that ended it';

CREATE TABLE watches (
    since_ns bigint PRIMARY KEY,
    until_ns bigint NOT NULL
);
COMMENT ON TABLE watches IS 'When the stack was watching at all; outside of these a minute without a bar means "not yet watching"';
COMMENT ON COLUMN watches.since_ns IS 'Watermark at which this watch began';
COMMENT ON COLUMN watches.until_ns IS 'Newest watermark of this watch';

CREATE TABLE days (
    instrument_id integer NOT NULL REFERENCES instruments,
    trade_date    date NOT NULL,
    open          numeric,
    high          numeric,
    low           numeric,
    close         numeric,
    volume        numeric NOT NULL,
    gap_volume    numeric NOT NULL,
    notional      numeric NOT NULL,
    updates       bigint NOT NULL,
    revision      bigint NOT NULL,
    revised_at    timestamptz,
    basis         text CHECK (basis IN ('trade', 'snapshot', 'mixed')),
    previous_close    numeric,
    previous_close_ns bigint,
    baseline      numeric,
    feed_volume   numeric,
    feed_ns       bigint,
    open_ns       bigint,
    close_ns      bigint,
    PRIMARY KEY (instrument_id, trade_date)
) WITH (fillfactor = 70);
COMMENT ON TABLE days IS 'Day statistics by trade date (domain.md §7)';
COMMENT ON COLUMN days.instrument_id IS 'Instrument';
COMMENT ON COLUMN days.trade_date IS 'Trade date of the exchange';
COMMENT ON COLUMN days.open IS 'First last of the trade date';
COMMENT ON COLUMN days.high IS 'Highest last';
COMMENT ON COLUMN days.low IS 'Lowest last';
COMMENT ON COLUMN days.close IS 'Newest last';
COMMENT ON COLUMN days.volume IS 'Σ volume of the bars';
COMMENT ON COLUMN days.gap_volume IS 'Σ volume of the gaps';
COMMENT ON COLUMN days.notional IS 'Σ notional of the bars';
COMMENT ON COLUMN days.updates IS 'Quotes that made or moved bars';
COMMENT ON COLUMN days.revision IS 'Σ revision of the bars';
COMMENT ON COLUMN days.revised_at IS 'Watermark at which the last late quote was accepted';
COMMENT ON COLUMN days.basis IS 'Basis of its bars, mixed where they differ';
COMMENT ON COLUMN days.previous_close IS 'Settlement of the trade date before, as the feed says it';
COMMENT ON COLUMN days.previous_close_ns IS 'Event time at which the feed said so';
COMMENT ON COLUMN days.baseline IS 'The feed''s cumulative volume where counting began: the first to arrive';
COMMENT ON COLUMN days.feed_volume IS 'The feed''s newest cumulative volume by event time; less baseline, volume and gap_volume it should leave 0';
COMMENT ON COLUMN days.feed_ns IS 'Event time of that value';
COMMENT ON COLUMN days.open_ns IS 'Event time of the open';
COMMENT ON COLUMN days.close_ns IS 'Event time of the close';

CREATE TABLE vwap_minutes (
    instrument_id integer NOT NULL REFERENCES instruments,
    minute        timestamptz NOT NULL,
    trade_date    date NOT NULL,
    last          numeric NOT NULL,
    last_ns       bigint NOT NULL,
    volume        numeric NOT NULL,
    notional      numeric NOT NULL,
    squares       numeric NOT NULL,
    PRIMARY KEY (instrument_id, minute)
) WITH (fillfactor = 70);
CREATE INDEX vwap_minutes_by_trade_date ON vwap_minutes (instrument_id, trade_date, minute);
COMMENT ON TABLE vwap_minutes IS 'What VWAP is made of, per minute, exact (domain.md §6)';
COMMENT ON COLUMN vwap_minutes.instrument_id IS 'Instrument';
COMMENT ON COLUMN vwap_minutes.minute IS 'Start of the minute';
COMMENT ON COLUMN vwap_minutes.trade_date IS 'Trade date of the exchange: the session VWAP starts with it';
COMMENT ON COLUMN vwap_minutes.last IS 'Last price of the minute';
COMMENT ON COLUMN vwap_minutes.last_ns IS 'Its event time';
COMMENT ON COLUMN vwap_minutes.volume IS 'Traded volume of the minute';
COMMENT ON COLUMN vwap_minutes.notional IS 'Σ price × traded volume of the minute';
COMMENT ON COLUMN vwap_minutes.squares IS 'Σ price² × traded volume of the minute, for the bands';

CREATE VIEW vwap_minute AS
SELECT i.symbol AS future, v.minute AS timestamp_minute, v.trade_date, v.last AS last_price,
       sum(v.volume) OVER upto AS cumulative_volume, v.volume, v.notional,
       sum(v.volume) OVER upto AS session_volume, sum(v.notional) OVER upto AS session_notional,
       sum(v.squares) OVER upto AS session_squares, v.instrument_id
FROM vwap_minutes v JOIN instruments i ON i.id = v.instrument_id
WINDOW upto AS (PARTITION BY v.instrument_id, v.trade_date ORDER BY v.minute);
COMMENT ON VIEW vwap_minute IS 'VWAP minutes with the sums since the start of the trade date; always derived, so a late quote moves every later minute';

CREATE VIEW "ThorTrading_marketintraday" AS
SELECT i.symbol AS future, i.country, b.minute AS timestamp_minute, b.open, b.high, b.low, b.close, b.volume,
       k.bid AS last_bid, k.ask AS last_ask, CASE WHEN k.ask > k.bid THEN k.ask - k.bid END AS spread
FROM bars b JOIN instruments i ON i.id = b.instrument_id
LEFT JOIN books k ON k.instrument_id = b.instrument_id AND k.minute = b.minute;
COMMENT ON VIEW "ThorTrading_marketintraday" IS 'The bars under the name an operator''s older checks use';

CREATE VIEW "ThorTrading_vwapminute" AS
SELECT future, timestamp_minute, last_price, cumulative_volume, volume, notional FROM vwap_minute;
COMMENT ON VIEW "ThorTrading_vwapminute" IS 'The VWAP minutes under the name an operator''s older checks use';
