-- What the watchdog decided (docs/operations.md): one row a decision, kept for ever, a few a day.

CREATE TABLE supervision_events (
    id           bigint PRIMARY KEY,
    at           timestamptz NOT NULL,
    process      text NOT NULL,
    rule         text NOT NULL,
    action       text NOT NULL,
    evidence     jsonb NOT NULL
);
COMMENT ON TABLE supervision_events IS 'Decisions of the watchdog: what it saw, by which rule, what it did';
COMMENT ON COLUMN supervision_events.id IS 'Wall clock of the decision in ns, made unique: a row sent twice is stored once';
COMMENT ON COLUMN supervision_events.at IS 'Wall clock of the decision';
COMMENT ON COLUMN supervision_events.process IS 'Process, server or source it is about';
COMMENT ON COLUMN supervision_events.rule IS 'Rule that decided';
COMMENT ON COLUMN supervision_events.action IS 'kill, restart, start, stop, reconnect, alert, clear, hold, amnesty, noted';
COMMENT ON COLUMN supervision_events.evidence IS 'What was seen';
CREATE INDEX supervision_events_at ON supervision_events (at);
