-- The ledger's transactions, one function each. The order in which every one of them takes locks:
-- tenants by name, accounts by id, then holds, entries and claims. Nobody waits for an account while holding a later
-- lock, and a hold is only ever removed under the locks of its accounts; so there is no cycle to wait in.

CREATE TYPE account_key AS (
    tenant text, scope budget_scope, subject text, period budget_period,
    window_start timestamptz, window_end timestamptz, cap bigint);
COMMENT ON COLUMN account_key.cap IS 'of a run; other caps come from the policies';

CREATE TYPE hold_request AS (
    request_id uuid, held_at timestamptz, lifetime interval,
    fixed bigint, nanos bigint, output_price bigint, max_output bigint, min_output bigint,
    accounts bigint[], slots integer[],
    root_request_id text, kind text, tenant text, key_id text, user_id text, run text, pipeline text, agent text,
    model text, markup_ppm bigint, claim text, body_hash bytea);
COMMENT ON COLUMN hold_request.nanos IS 'what it asks for: fixed, and max_output at output_price';
COMMENT ON COLUMN hold_request.slots IS 'where its accounts stand in the batch''s list of accounts';

CREATE TYPE hold_answer AS (
    status text, nanos bigint, output_tokens bigint, remaining bigint, slot integer, stored bytea);

CREATE TYPE settlement AS (
    request_id uuid, held_at timestamptz, outcome text, estimated boolean, provider text, region text, model text,
    input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, queries bigint,
    input_price bigint, output_price bigint, cache_read_price bigint, cache_write_price bigint, query_price bigint,
    cost bigint, saving bigint, answer bytea);

CREATE TYPE posting AS (cost bigint, markup bigint, remaining bigint, overrun bigint);

CREATE TYPE renewal AS (request_id uuid, held_at timestamptz, lifetime interval);

CREATE TYPE policy AS (
    tenant text, scope budget_scope, subject text, period budget_period, origin text, cap bigint);


CREATE FUNCTION per_million(units numeric, price numeric) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN ceil(units * price / 1000000)::bigint;

CREATE FUNCTION lock_accounts(ids bigint[]) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM accounts WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
END $$;

CREATE FUNCTION effective_cap(for_tenant text, for_scope budget_scope, for_subject text, for_period budget_period)
RETURNS bigint LANGUAGE sql STABLE
RETURN (
    SELECT min(cap) FROM budget_policies
    WHERE tenant = for_tenant AND scope = for_scope AND subject IN (for_subject, '*') AND period = for_period
);

-- The ids of accounts, in the order of the keys; NULL where there is no such tenant. An account is made on first use,
-- from the policy as it is then: the lock on the tenant keeps a change of policy from passing it by unseen.
CREATE FUNCTION ledger_open(keys account_key[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM tenants WHERE name IN (SELECT tenant FROM unnest(keys)) ORDER BY name FOR SHARE;
    INSERT INTO accounts (tenant, scope, subject, period, window_start, window_end, cap)
    SELECT k.tenant, k.scope, k.subject, k.period, k.window_start, k.window_end,
           CASE k.scope WHEN 'run' THEN k.cap ELSE effective_cap(k.tenant, k.scope, k.subject, k.period) END
    FROM unnest(keys) AS k JOIN tenants ON tenants.name = k.tenant
    ORDER BY k.tenant, k.scope, k.subject, k.period, k.window_start
    ON CONFLICT DO NOTHING;
    RETURN ARRAY(
        SELECT a.id FROM unnest(keys) WITH ORDINALITY AS k
        LEFT JOIN accounts AS a USING (tenant, scope, subject, period, window_start) ORDER BY k.ordinality);
END $$;

-- Whether tenant and key may spend, per request.
CREATE FUNCTION ledger_standings(requests hold_request[], moment timestamptz) RETURNS text[] LANGUAGE sql STABLE
RETURN ARRAY(
    SELECT CASE
        WHEN t.name IS NULL OR NOT t.active THEN 'unknown'
        WHEN t.suspended THEN 'suspended'
        WHEN k.key_id IS NULL OR k.revoked_at IS NOT NULL OR k.expires_at <= moment THEN 'inactive'
        ELSE 'granted' END
    FROM unnest(requests) WITH ORDINALITY AS r
    LEFT JOIN tenants AS t ON t.name = r.tenant
    LEFT JOIN api_keys AS k ON k.tenant = r.tenant AND k.key_id = r.key_id
    ORDER BY r.ordinality);

-- What became of a request that may have been answered before: its hold, or that it has been posted meanwhile.
CREATE FUNCTION ledger_recall(r hold_request) RETURNS hold_answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    earlier hold_answer;
BEGIN
    SELECT 'granted', h.nanos, h.output_tokens INTO earlier.status, earlier.nanos, earlier.output_tokens
    FROM holds AS h WHERE h.request_id = r.request_id AND h.held_at = r.held_at;
    IF NOT FOUND AND EXISTS (SELECT FROM entries AS e WHERE e.request_id = r.request_id AND e.held_at = r.held_at) THEN
        earlier.status := 'posted';
    END IF;
    RETURN earlier;
END $$;

-- What an Idempotency-Key says about a request: nothing (NULL), or why it must not run.
CREATE FUNCTION ledger_claimed(r hold_request, moment timestamptz, OUT status text, OUT stored bytea)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    claim idempotency;
BEGIN
    SELECT * INTO claim FROM idempotency AS i
    WHERE i.tenant = r.tenant AND i.key_id = r.key_id AND i.value = r.claim AND i.expires_at > moment;
    IF NOT FOUND OR claim.request_id = r.request_id THEN
        RETURN;
    END IF;
    stored := claim.answer;
    status := CASE
        WHEN claim.body_hash <> r.body_hash THEN 'conflict' WHEN stored IS NULL THEN 'working' ELSE 'replay' END;
END $$;

-- Claim an Idempotency-Key; false when another request was faster.
CREATE FUNCTION ledger_claim(r hold_request, moment timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO idempotency AS i (tenant, key_id, value, body_hash, request_id, expires_at)
    VALUES (r.tenant, r.key_id, r.claim, r.body_hash, r.request_id, moment + interval '1 day')
    ON CONFLICT (tenant, key_id, value) DO UPDATE
    SET body_hash = excluded.body_hash, request_id = excluded.request_id, answer = NULL, expires_at = excluded.expires_at
    WHERE i.expires_at <= moment OR i.request_id = excluded.request_id;
    RETURN FOUND;
END $$;

-- How much of a request fits into `room` (NULL: no limit): all of it, less output, or nothing.
CREATE FUNCTION ledger_fit(r hold_request, room bigint, OUT nanos bigint, OUT output_tokens bigint)
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    nanos := r.nanos;
    output_tokens := r.max_output;
    IF nanos = 0 OR room IS NULL OR nanos <= room THEN
        RETURN;
    END IF;
    output_tokens := CASE
        WHEN r.output_price > 0 THEN floor((room - r.fixed)::numeric * 1000000 / r.output_price) ELSE -1 END;
    nanos := r.fixed + per_million(output_tokens, r.output_price);
    IF output_tokens < r.min_output OR r.fixed > room THEN
        nanos := NULL;
    END IF;
END $$;

-- Admit requests in the order of their arrival, and write the holds of those that are granted.
-- `account_ids` is what their slots point into; all of these accounts are locked.
CREATE FUNCTION ledger_admit(requests hold_request[], account_ids bigint[], repeated boolean, moment timestamptz)
RETURNS hold_answer[] LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    standings text[] := ledger_standings(requests, moment);
    rooms bigint[];
    known boolean[];
    answers hold_answer[] := '{}';
    answer hold_answer;
    r hold_request;
    s integer;
    n integer := 0;
BEGIN
    SELECT array_agg(a.cap - a.held - a.posted ORDER BY w.n), array_agg(a.id IS NOT NULL ORDER BY w.n)
    INTO rooms, known
    FROM unnest(account_ids) WITH ORDINALITY AS w(id, n) LEFT JOIN accounts AS a USING (id);

    FOREACH r IN ARRAY requests LOOP
        n := n + 1;
        answer := NULL;
        IF repeated THEN
            answer := ledger_recall(r);
        END IF;
        IF answer.status IS NULL THEN
            answer.status := standings[n];
            IF answer.status = 'granted' AND abs(extract(epoch FROM moment - r.held_at)) > 60 THEN
                answer.status := 'stale';
            ELSIF answer.status = 'granted' AND r.claim IS NOT NULL THEN
                SELECT coalesce(c.status, 'granted'), c.stored INTO answer.status, answer.stored
                FROM ledger_claimed(r, moment) AS c;
            END IF;
            FOREACH s IN ARRAY r.slots LOOP
                IF NOT known[s] THEN
                    answer.status := 'stale';
                ELSIF answer.remaining IS NULL OR rooms[s] < answer.remaining THEN
                    answer.remaining := rooms[s];
                    answer.slot := s;
                END IF;
            END LOOP;
            IF answer.status = 'granted' THEN
                SELECT f.nanos, f.output_tokens INTO answer.nanos, answer.output_tokens
                FROM ledger_fit(r, answer.remaining) AS f;
                IF answer.nanos IS NULL THEN
                    answer.status := 'refused';
                ELSIF r.claim IS NOT NULL AND NOT ledger_claim(r, moment) THEN
                    answer.status := 'working';
                ELSE
                    answer.remaining := answer.remaining - answer.nanos;
                    FOREACH s IN ARRAY r.slots LOOP
                        rooms[s] := rooms[s] - answer.nanos;
                    END LOOP;
                END IF;
            END IF;
        END IF;
        answers := answers || answer;
    END LOOP;

    WITH taken AS (
        INSERT INTO holds (
            request_id, held_at, expires_at, nanos, output_tokens, accounts, root_request_id, kind, tenant, key_id,
            user_id, run, pipeline, agent, model, markup_ppm, claim)
        SELECT b.request_id, b.held_at, moment + b.lifetime, b.granted, b.output_tokens, b.accounts, b.root_request_id,
               b.kind, b.tenant, b.key_id, b.user_id, b.run, b.pipeline, b.agent, b.model, b.markup_ppm, b.claim
        FROM ROWS FROM (unnest(requests), unnest(answers)) AS b(
            request_id, held_at, lifetime, fixed, nanos, output_price, max_output, min_output, accounts, slots,
            root_request_id, kind, tenant, key_id, user_id, run, pipeline, agent, model, markup_ppm, claim, body_hash,
            status, granted, output_tokens, remaining, slot, stored)
        WHERE b.status = 'granted'
        ON CONFLICT DO NOTHING
        RETURNING holds.accounts, holds.nanos
    ), changes AS (
        SELECT account, sum(taken.nanos)::bigint AS nanos FROM taken, unnest(taken.accounts) AS account GROUP BY account
    )
    UPDATE accounts SET held = held + changes.nanos FROM changes WHERE id = changes.account;
    RETURN answers;
END $$;

-- Remove holds and return them, those that are still there.
CREATE FUNCTION ledger_take_back(settlements settlement[]) RETURNS SETOF holds
LANGUAGE sql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    DELETE FROM holds USING unnest(settlements) AS s
    WHERE holds.request_id = s.request_id AND holds.held_at = s.held_at
    RETURNING holds.*
$$;

-- Post what became of holds whose accounts are locked. A hold that is gone was posted before, by the same settlement
-- or by the reaper; then what was posted is returned, and nothing changes. Posting never fails for want of money.
CREATE FUNCTION ledger_post(settlements settlement[], moment timestamptz) RETURNS posting[]
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    gone holds[] := ARRAY(SELECT h FROM ledger_take_back(settlements) AS h);
    postings posting[];
BEGIN
    WITH written AS (
        INSERT INTO entries (
            request_id, held_at, posted_at, kind, outcome, estimated, tenant, key_id, user_id, run, pipeline, agent,
            root_request_id, model, provider, region,
            input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, queries,
            input_price, output_price, cache_read_price, cache_write_price, query_price,
            held, cost, markup, saving, accounts)
        SELECT h.request_id, h.held_at, moment, h.kind, s.outcome, s.estimated, h.tenant, h.key_id, h.user_id, h.run,
               h.pipeline, h.agent, h.root_request_id, coalesce(s.model, h.model), s.provider, s.region,
               s.input_tokens, s.output_tokens, s.cache_read_tokens, s.cache_write_tokens, s.queries,
               s.input_price, s.output_price, s.cache_read_price, s.cache_write_price, s.query_price,
               h.nanos, s.cost, per_million(s.cost, h.markup_ppm), s.saving, h.accounts
        FROM unnest(gone) AS h JOIN unnest(settlements) AS s USING (request_id, held_at)
        ON CONFLICT DO NOTHING
        RETURNING request_id, cost, markup, accounts
    ), changes AS (
        SELECT account, sum(moved.held)::bigint AS held, sum(moved.cost)::bigint AS cost
        FROM (
            SELECT accounts, nanos AS held, 0 AS cost FROM unnest(gone)
            UNION ALL
            SELECT accounts, 0, cost FROM written
        ) AS moved, unnest(moved.accounts) AS account
        GROUP BY account
    ), updated AS (
        UPDATE accounts AS a
        SET held = a.held - c.held,
            posted = a.posted + c.cost,
            overrun = greatest(0, a.held - c.held + a.posted + c.cost - a.cap)
        FROM changes AS c WHERE a.id = c.account
        RETURNING a.id, a.cap - a.held - a.posted AS room, a.overrun
    ), standing AS (
        SELECT w.request_id, min(u.room) AS room, max(u.overrun) AS overrun
        FROM written AS w, unnest(w.accounts) AS account JOIN updated AS u ON u.id = account
        GROUP BY w.request_id
    )
    SELECT array_agg(ROW(w.cost, w.markup, st.room, st.overrun)::posting ORDER BY s.ordinality) INTO postings
    FROM unnest(settlements) WITH ORDINALITY AS s
    LEFT JOIN written AS w USING (request_id) LEFT JOIN standing AS st USING (request_id);

    IF cardinality(gone) < cardinality(settlements) THEN
        postings := ledger_posted_before(settlements, postings);
    END IF;
    PERFORM ledger_close_claims(gone, settlements, moment);
    RETURN postings;
END $$;

-- Fill in what was posted before; NULL stays for what the ledger has never seen.
CREATE FUNCTION ledger_posted_before(settlements settlement[], postings posting[]) RETURNS posting[]
LANGUAGE sql STABLE
RETURN ARRAY(
    SELECT CASE WHEN p.cost IS NOT NULL THEN ROW(p.cost, p.markup, p.remaining, p.overrun)::posting
                WHEN e.cost IS NOT NULL THEN ROW(e.cost, e.markup, NULL, 0)::posting END
    FROM ROWS FROM (unnest(settlements), unnest(postings)) WITH ORDINALITY AS p(
        request_id, held_at, outcome, estimated, provider, region, model,
        input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, queries,
        input_price, output_price, cache_read_price, cache_write_price, query_price, settled, saving, answer,
        cost, markup, remaining, overrun, n)
    LEFT JOIN entries AS e ON e.request_id = p.request_id AND e.held_at = p.held_at
    ORDER BY p.n);

-- Keep the answer for the Idempotency-Key that was claimed with a hold; without an answer the key is free again.
CREATE FUNCTION ledger_close_claims(gone holds[], settlements settlement[], moment timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT h.tenant, h.key_id, h.claim, h.request_id, s.answer
        FROM unnest(gone) AS h JOIN unnest(settlements) AS s USING (request_id, held_at)
        WHERE h.claim IS NOT NULL ORDER BY 1, 2, 3
    LOOP
        IF c.answer IS NULL THEN
            DELETE FROM idempotency AS i WHERE (i.tenant, i.key_id, i.value) = (c.tenant, c.key_id, c.claim)
                AND i.request_id = c.request_id;
        ELSE
            UPDATE idempotency AS i SET answer = c.answer, expires_at = moment + interval '1 day'
            WHERE (i.tenant, i.key_id, i.value) = (c.tenant, c.key_id, c.claim) AND i.request_id = c.request_id;
        END IF;
    END LOOP;
END $$;

-- Move deadlines; false for a hold that is gone. It takes no lock on accounts.
CREATE FUNCTION ledger_renew(renewals renewal[], moment timestamptz) RETURNS boolean[] LANGUAGE plpgsql AS $$
DECLARE
    renewed boolean[] := '{}';
    r renewal;
BEGIN
    FOREACH r IN ARRAY renewals LOOP
        UPDATE holds SET expires_at = moment + r.lifetime
        WHERE request_id = r.request_id AND held_at = r.held_at;
        renewed := renewed || FOUND;
    END LOOP;
    RETURN renewed;
END $$;

-- One batch of a gateway: settlements first, for they make room. `account_ids` is sorted and names every account that
-- the batch touches; `repeated` says that an attempt at the same batch may have been committed.
CREATE FUNCTION ledger_turn(
    account_ids bigint[], settlements settlement[], renewals renewal[], requests hold_request[],
    repeated boolean, clock_offset interval,
    OUT moment timestamptz, OUT postings posting[], OUT renewed boolean[], OUT answers hold_answer[])
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_accounts(account_ids);
    moment := clock_timestamp() + clock_offset;
    IF cardinality(settlements) > 0 THEN
        postings := ledger_post(settlements, moment);
    END IF;
    IF cardinality(renewals) > 0 THEN
        renewed := ledger_renew(renewals, moment);
    END IF;
    IF cardinality(requests) > 0 THEN
        answers := ledger_admit(requests, account_ids, repeated, moment);
    END IF;
END $$;

-- Post holds whose gateway died: the whole hold, for nobody knows how much of it was used. Returns how many. A hold is
-- chosen before its accounts are locked, so whether it is still there and still expired is asked again afterwards.
CREATE FUNCTION ledger_reap(most integer, clock_offset interval) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp() + clock_offset;
    account_ids bigint[];
    settlements settlement[];
BEGIN
    account_ids := ARRAY(
        SELECT DISTINCT account
        FROM (SELECT accounts FROM holds WHERE expires_at < moment ORDER BY expires_at LIMIT most) AS expired,
             unnest(expired.accounts) AS account);
    IF cardinality(account_ids) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM lock_accounts(account_ids);
    settlements := ARRAY(
        SELECT ROW(request_id, held_at, 'expired', true, '', '', NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, nanos, 0, NULL)::settlement
        FROM (
            SELECT request_id, held_at, nanos FROM holds
            WHERE expires_at < moment AND accounts <@ account_ids
            ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
        ) AS expired);
    PERFORM ledger_post(settlements, moment);
    RETURN cardinality(settlements);
END $$;

-- One more entry that corrects the cost of another, in the windows that the other was posted in. Returns the new cost.
CREATE FUNCTION ledger_correct(
    of_request uuid, of_held_at timestamptz, new_request uuid, delta bigint, by_actor text, reason text,
    clock_offset interval)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    original entries;
    total bigint;
BEGIN
    SELECT * INTO original FROM entries WHERE request_id = of_request AND held_at = of_held_at;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM lock_accounts(original.accounts);
    SELECT original.cost + delta + coalesce(sum(cost), 0) INTO total FROM entries
    WHERE corrects = of_request AND held_at = of_held_at AND tenant = original.tenant;
    IF total < 0 THEN
        RAISE EXCEPTION 'a correction by % would make the entry cost less than nothing', delta
            USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO entries
    SELECT new_request, of_held_at, clock_timestamp() + clock_offset, 'correction', original.outcome, false, of_request,
           original.tenant, original.key_id, original.user_id, original.run, original.pipeline, original.agent,
           original.root_request_id, original.model, original.provider, original.region,
           0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, delta, 0, 0, original.accounts;
    UPDATE accounts SET posted = posted + delta, overrun = greatest(0, held + posted + delta - cap)
    WHERE id = ANY (original.accounts);
    INSERT INTO audit_log (actor, action, tenant, subject, details)
    VALUES (by_actor, 'ledger.correct', original.tenant, of_request::text,
            jsonb_build_object('nanos', delta, 'reason', reason, 'entry', new_request));
    RETURN total;
END $$;

-- Set caps (NULL takes one away) and let the accounts of the windows that still run follow. It never fails: what an
-- account has above its new cap becomes its overrun.
CREATE FUNCTION ledger_set_policies(policies policy[], by_actor text, clock_offset interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp() + clock_offset;
    account_ids bigint[];
BEGIN
    PERFORM FROM tenants WHERE name IN (SELECT tenant FROM unnest(policies)) ORDER BY name FOR NO KEY UPDATE;
    WITH removed AS (
        DELETE FROM budget_policies AS b USING unnest(policies) AS p
        WHERE (b.tenant, b.scope, b.subject, b.period, b.origin) = (p.tenant, p.scope, p.subject, p.period, p.origin)
          AND p.cap IS NULL
        RETURNING b.tenant, b.scope, b.subject, b.period, b.origin, NULL::bigint AS cap
    ), changed AS (
        INSERT INTO budget_policies AS b (tenant, scope, subject, period, origin, cap)
        SELECT p.tenant, p.scope, p.subject, p.period, p.origin, p.cap FROM unnest(policies) AS p WHERE p.cap IS NOT NULL
        ON CONFLICT (tenant, scope, subject, period, origin) DO UPDATE SET cap = excluded.cap, updated_at = now()
        WHERE b.cap <> excluded.cap
        RETURNING tenant, scope, subject, period, origin, cap
    )
    INSERT INTO audit_log (actor, action, tenant, subject, details)
    SELECT by_actor, 'budget.set', c.tenant, c.scope || '/' || c.subject,
           jsonb_build_object('period', c.period, 'origin', c.origin, 'nanos', c.cap)
    FROM (SELECT * FROM removed UNION ALL SELECT * FROM changed) AS c;

    account_ids := ARRAY(
        SELECT a.id FROM accounts AS a
        WHERE a.window_end > moment AND a.scope <> 'run' AND EXISTS (
            SELECT FROM unnest(policies) AS p
            WHERE (a.tenant, a.scope, a.period) = (p.tenant, p.scope, p.period) AND p.subject IN (a.subject, '*')));
    PERFORM lock_accounts(account_ids);
    UPDATE accounts AS a SET cap = e.cap, overrun = greatest(0, a.held + a.posted - e.cap)
    FROM (
        SELECT id, effective_cap(tenant, scope, subject, period) AS cap FROM accounts WHERE id = ANY (account_ids)
    ) AS e
    WHERE a.id = e.id AND a.cap IS DISTINCT FROM e.cap;
END $$;

-- Everything in the ledger that does not add up. One statement, so one moment of the database.
CREATE FUNCTION ledger_differences() RETURNS TABLE (what text, expected bigint, found bigint) LANGUAGE sql STABLE AS $$
    WITH moved AS (
        SELECT unnest(accounts) AS id, nanos AS held, 0 AS posted FROM holds
        UNION ALL
        SELECT unnest(accounts), 0, cost FROM entries
    ), sums AS (
        SELECT id, sum(held)::bigint AS held, sum(posted)::bigint AS posted FROM moved GROUP BY id
    ), both_sides AS (
        SELECT coalesce(a.id, s.id) AS id, a.tenant, a.scope, a.subject, a.period, a.window_start,
               a.held, a.posted, a.overrun, greatest(0, a.held + a.posted - a.cap) AS over_cap,
               coalesce(s.held, 0) AS sum_held, coalesce(s.posted, 0) AS sum_posted
        FROM accounts AS a FULL JOIN sums AS s ON s.id = a.id
    ), named AS (
        SELECT *, format('account %s (%s %s %s, %s from %s)', id, tenant, scope, subject, period, window_start) AS name
        FROM both_sides
    )
    SELECT name || ': held', sum_held, coalesce(held, 0) FROM named WHERE held IS DISTINCT FROM sum_held
    UNION ALL
    SELECT name || ': posted', sum_posted, coalesce(posted, 0) FROM named WHERE posted IS DISTINCT FROM sum_posted
    UNION ALL
    SELECT name || ': overrun', over_cap, overrun FROM named WHERE overrun <> over_cap
    UNION ALL
    SELECT format('entry %s: cost', request_id), priced, cost
    FROM entries, LATERAL (SELECT ceil((
        input_tokens::numeric * input_price + output_tokens::numeric * output_price
        + cache_read_tokens::numeric * cache_read_price + cache_write_tokens::numeric * cache_write_price
        + queries::numeric * query_price) / 1000000)::bigint) AS p(priced)
    -- What was estimated or corrected has no price to recompute; what is free (a cache hit, BYOK) held nothing.
    WHERE cost <> priced AND NOT estimated AND kind <> 'correction' AND NOT (held = 0 AND cost = 0)
$$;
