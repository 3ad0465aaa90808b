-- Entries lie in one partition per month (UTC) of held_at; holds no longer do.

CREATE OR REPLACE FUNCTION open_month(start timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    finish timestamptz := start + interval '1 month';
    part text := 'entries' || to_char(start AT TIME ZONE 'UTC', '"_"YYYY"_"MM');
BEGIN
    IF to_regclass(part) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE entries INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE entries ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, start, finish);
        EXECUTE format('CREATE TRIGGER never_emptied BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', part);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION keep_months(ahead integer, retention integer, clock_offset interval) RETURNS void
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    this_month timestamptz := month_of(clock_timestamp() + clock_offset);
    horizon timestamptz := this_month - make_interval(months => retention);
    part regclass;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('loam.keep_months'));
    FOR n IN 0..ahead LOOP
        PERFORM open_month(this_month + make_interval(months => n));
    END LOOP;
    FOR part IN
        SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent = 'entries'::regclass
          AND inhrelid::regclass::text < 'entries' || to_char(horizon, '"_"YYYY"_"MM')
    LOOP
        EXECUTE format('DROP TABLE %s', part);
    END LOOP;
    -- A run has no calendar window; its account goes a month later than the entries of the month that it began in.
    DELETE FROM accounts
    WHERE window_end <= horizon OR (period = 'total' AND created_at < horizon - interval '1 month');
    DELETE FROM holds WHERE held_at < horizon;
    DELETE FROM idempotency WHERE expires_at < clock_timestamp() + clock_offset - interval '1 day';
END $$;
