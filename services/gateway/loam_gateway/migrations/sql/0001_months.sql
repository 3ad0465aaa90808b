-- Holds and entries lie in one partition per month (UTC) of held_at.

CREATE FUNCTION month_of(moment timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN date_trunc('month', moment, 'UTC');

-- Make the partitions of one month. They are attached, not created in place, so that the traffic goes on meanwhile.
CREATE FUNCTION open_month(start timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    finish timestamptz := start + interval '1 month';
    parent text;
    part text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['holds', 'entries'] LOOP
        part := parent || to_char(start AT TIME ZONE 'UTC', '"_"YYYY"_"MM');
        CONTINUE WHEN to_regclass(part) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, part, start, finish);
        IF parent = 'entries' THEN
            EXECUTE format('CREATE TRIGGER never_emptied BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', part);
        ELSE
            EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0, '
                           'autovacuum_vacuum_threshold = 5000)', part);
        END IF;
    END LOOP;
END $$;

-- Open this month and `ahead` further ones; drop those that ended more than `retention` months ago, with their accounts.
CREATE FUNCTION keep_months(ahead integer, retention integer, clock_offset interval) RETURNS void
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
        WHERE inhparent IN ('holds'::regclass, 'entries'::regclass)
          AND inhrelid::regclass::text < inhparent::regclass::text || to_char(horizon, '"_"YYYY"_"MM')
    LOOP
        EXECUTE format('DROP TABLE %s', part);
    END LOOP;
    -- A run has no calendar window; its account goes a month later than the entries of the month that it began in.
    DELETE FROM accounts
    WHERE window_end <= horizon OR (period = 'total' AND created_at < horizon - interval '1 month');
    DELETE FROM idempotency WHERE expires_at < clock_timestamp() + clock_offset - interval '1 day';
END $$;
