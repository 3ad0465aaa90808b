-- The ledger's transactions, in place of those of 0001. The order in which every one of them takes locks: tenants by
-- name, accounts by id, then holds, entries and claims. Nobody waits for an account while holding a later lock, and a
-- hold is only ever removed under the locks of its accounts; so there is no cycle to wait in.
--
-- What a batch changes in the accounts is summed from the rows that were really written or removed, never from what was
-- asked for, and is written once, at its end. `account_ids` is sorted and names every account that the batch touches;
-- arrays of money run parallel to it.

DROP TYPE hold_request, hold_answer, settlement, posting, renewal CASCADE;

CREATE TYPE hold_request AS (
    request_id uuid, held_at timestamptz, lifetime interval,
    fixed bigint, nanos bigint, output_price bigint, max_output bigint, min_output bigint,
    accounts bigint[],
    root_request_id text, kind text, tenant text, key_id text, user_id text, run text, pipeline text, agent text,
    model text, markup_ppm bigint, byok boolean, claim text, body_hash bytea);
COMMENT ON COLUMN hold_request.nanos IS 'what it asks for: fixed, and max_output at output_price';

CREATE TYPE hold_answer AS (
    status text, nanos bigint, output_tokens bigint, remaining bigint, account bigint, stored bytea);

CREATE TYPE settlement AS (
    request_id uuid, held_at timestamptz, outcome text, estimated boolean, provider text, region text, model text,
    input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, queries bigint,
    input_price bigint, output_price bigint, cache_read_price bigint, cache_write_price bigint, query_price bigint,
    cost bigint, saving bigint, byok boolean, answer bytea);

CREATE TYPE posting AS (cost bigint, markup bigint);

CREATE TYPE renewal AS (request_id uuid, held_at timestamptz, lifetime interval);

CREATE TYPE claim AS (tenant text, key_id text, value text, request_id uuid, answer bytea);

ALTER TABLE tenants ADD COLUMN began_at timestamptz;
COMMENT ON COLUMN tenants.began_at IS 'since when it follows another of its name, whose entries are not its own';

-- There are never more holds than calls under way, so there is nothing to gain from partitions of them: a batch would
-- only open and lock each.
CREATE TABLE holds_of_all_months (
    LIKE holds INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS, PRIMARY KEY (request_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
INSERT INTO holds_of_all_months SELECT * FROM holds;
DROP TABLE holds CASCADE;
ALTER TABLE holds_of_all_months RENAME TO holds;
ALTER INDEX holds_of_all_months_pkey RENAME TO holds_pkey;
CREATE INDEX holds_by_deadline ON holds (expires_at);


-- How much room accounts have (NULL: no limit), 0 where there is no such account.
CREATE FUNCTION ledger_rooms(account_ids bigint[]) RETURNS bigint[] LANGUAGE sql STABLE
RETURN ARRAY(
    SELECT CASE WHEN a.id IS NULL THEN 0 ELSE a.cap - a.held - a.posted END
    FROM unnest(account_ids) WITH ORDINALITY AS w(id, slot) LEFT JOIN accounts AS a USING (id) ORDER BY w.slot);

-- Write down what changes in locked accounts (NULL: nothing): what settlements change in held and posted, and what new
-- holds take. What settlements leave above a cap is overrun; new holds never are, so if one was admitted by mistake, the
-- CHECK on the account refuses it.
CREATE FUNCTION ledger_move(
    account_ids bigint[], held_change bigint[], posted_change bigint[], taken bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts AS a
    SET held = a.held + coalesce(c.held, 0) + coalesce(c.taken, 0),
        posted = a.posted + coalesce(c.posted, 0),
        overrun = greatest(0, a.held + coalesce(c.held, 0) + a.posted + coalesce(c.posted, 0) - a.cap)
    FROM unnest(account_ids, held_change, posted_change, taken) AS c(id, held, posted, taken)
    WHERE a.id = c.id;
END $$;

-- Post what became of holds whose accounts are locked; never fails for want of money. A hold that is gone was posted
-- before, by the same settlement or by the reaper: then nothing changes. Where there were such, `postings` says what was
-- posted for each settlement, NULL for what the ledger has never seen.
CREATE FUNCTION ledger_post(
    settlements settlement[], account_ids bigint[], moment timestamptz,
    OUT held_change bigint[], OUT posted_change bigint[], OUT postings posting[])
LANGUAGE plpgsql AS $$
DECLARE
    found bigint;
    claims claim[];
BEGIN
    WITH gone AS (
        DELETE FROM holds AS h USING unnest(settlements) AS s
        WHERE h.request_id = s.request_id AND h.held_at = s.held_at
        RETURNING h.kind, h.tenant, h.key_id, h.user_id, h.run, h.pipeline, h.agent, h.root_request_id,
                  coalesce(s.model, h.model) AS model, h.nanos, h.markup_ppm, h.byok OR s.byok AS byok, h.accounts,
                  h.claim, s.request_id, s.held_at, s.outcome, s.estimated, s.provider, s.region,
                  s.input_tokens, s.output_tokens, s.cache_read_tokens, s.cache_write_tokens, s.queries,
                  s.input_price, s.output_price, s.cache_read_price, s.cache_write_price, s.query_price,
                  s.cost, s.saving, s.answer
    ), written AS (
        INSERT INTO entries (
            request_id, held_at, posted_at, kind, outcome, estimated, tenant, key_id, user_id, run, pipeline, agent,
            root_request_id, model, provider, region,
            input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, queries,
            input_price, output_price, cache_read_price, cache_write_price, query_price,
            held, cost, markup, saving, accounts, byok)
        SELECT request_id, held_at, moment, kind, outcome, estimated, tenant, key_id, user_id, run, pipeline, agent,
               root_request_id, model, provider, region,
               input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, queries,
               input_price, output_price, cache_read_price, cache_write_price, query_price,
               nanos, cost, CASE markup_ppm WHEN 0 THEN 0 ELSE per_million(cost, markup_ppm) END, saving, accounts, byok
        FROM gone
        ON CONFLICT DO NOTHING
        RETURNING cost, accounts
    ), sets AS (
        -- Neighbours in a batch mostly share their accounts, so these are taken apart only after a first sum.
        SELECT accounts, -sum(nanos) AS held, 0 AS posted FROM gone GROUP BY accounts
        UNION ALL
        SELECT accounts, 0, sum(cost) FROM written GROUP BY accounts
    ), changes AS (
        SELECT id, sum(held)::bigint AS held, sum(posted)::bigint AS posted
        FROM (
            SELECT unnest(account_ids) AS id, 0 AS held, 0 AS posted
            UNION ALL
            SELECT account, held, posted FROM sets, unnest(accounts) AS account
        ) AS moved
        GROUP BY id
    )
    SELECT array_agg(held ORDER BY id), array_agg(posted ORDER BY id),
           (SELECT count(*) FROM gone),
           (SELECT array_agg(ROW(tenant, key_id, claim, request_id, answer)::claim) FROM gone WHERE claim IS NOT NULL)
    INTO held_change, posted_change, found, claims
    FROM changes;

    IF found < cardinality(settlements) THEN
        postings := ledger_posted(settlements);
    END IF;
    IF claims IS NOT NULL THEN
        PERFORM ledger_close_claims(claims, moment);
    END IF;
END $$;

-- What the ledger has posted for each of the settlements.
CREATE FUNCTION ledger_posted(settlements settlement[]) RETURNS posting[] LANGUAGE sql STABLE
RETURN ARRAY(
    SELECT CASE WHEN e.cost IS NOT NULL THEN ROW(e.cost, e.markup)::posting END
    FROM unnest(settlements) WITH ORDINALITY AS s
    LEFT JOIN entries AS e ON e.request_id = s.request_id AND e.held_at = s.held_at
    ORDER BY s.ordinality);

-- Keep the answers for Idempotency-Keys; without an answer the key is free again.
CREATE FUNCTION ledger_close_claims(claims claim[], moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM idempotency AS i USING unnest(claims) AS c
    WHERE (i.tenant, i.key_id, i.value, i.request_id) = (c.tenant, c.key_id, c.value, c.request_id)
      AND c.answer IS NULL;
    UPDATE idempotency AS i SET answer = c.answer, expires_at = moment + interval '1 day' FROM unnest(claims) AS c
    WHERE (i.tenant, i.key_id, i.value, i.request_id) = (c.tenant, c.key_id, c.value, c.request_id)
      AND c.answer IS NOT NULL;
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

-- Grant all requests whole, if nothing speaks against that, and return what it changes in the accounts; else NULL.
CREATE FUNCTION ledger_grant_all(
    requests hold_request[], account_ids bigint[], rooms bigint[], moment timestamptz) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint[];
    fits boolean;
BEGIN
    SELECT array_agg(a.wanted ORDER BY a.id), bool_and(coalesce(a.wanted = 0 OR a.wanted <= a.room, true))
    INTO wanted, fits
    FROM (
        SELECT id, max(room) AS room, sum(nanos)::bigint AS wanted
        FROM (
            SELECT id, room, 0 AS nanos FROM unnest(account_ids, rooms) AS a(id, room)
            UNION ALL
            SELECT account, NULL, sets.nanos
            FROM (SELECT r.accounts, sum(r.nanos) AS nanos FROM unnest(requests) AS r GROUP BY r.accounts) AS sets,
                 unnest(sets.accounts) AS account
        ) AS parts
        GROUP BY id
    ) AS a;

    IF NOT fits OR EXISTS (
        SELECT FROM (
            SELECT r.tenant, r.key_id, bool_and(r.claim IS NULL) AS unclaimed, min(r.held_at) AS first,
                   max(r.held_at) AS last
            FROM unnest(requests) AS r GROUP BY r.tenant, r.key_id
        ) AS p LEFT JOIN tenants AS t ON t.name = p.tenant LEFT JOIN api_keys AS k USING (tenant, key_id)
        WHERE NOT p.unclaimed OR ledger_is_stale(p.first, moment) OR ledger_is_stale(p.last, moment)
           OR ledger_objection(t, k, moment) IS NOT NULL
    ) THEN
        RETURN NULL;
    END IF;

    INSERT INTO holds (
        request_id, held_at, expires_at, nanos, output_tokens, accounts, root_request_id, kind, tenant, key_id,
        user_id, run, pipeline, agent, model, markup_ppm, byok)
    SELECT request_id, held_at, moment + lifetime, nanos, max_output, accounts, root_request_id, kind, tenant, key_id,
           user_id, run, pipeline, agent, model, markup_ppm, byok
    FROM unnest(requests);
    RETURN wanted;
END $$;

-- Admit requests one by one, in the order of their arrival; the holds of those that are granted are still to be written.
-- Nobody is refused by a window that is over: whose gateway's clock is behind the database's asks again, in the next one.
CREATE FUNCTION ledger_consider(
    requests hold_request[], account_ids bigint[], rooms bigint[], repeated boolean, moment timestamptz)
RETURNS hold_answer[] LANGUAGE plpgsql AS $$
DECLARE
    objections text[] := ledger_objections(requests, moment);
    takes_holds boolean[] := ARRAY(
        SELECT a.id IS NOT NULL AND a.retired_at IS NULL AND a.window_end > moment
        FROM unnest(account_ids) WITH ORDINALITY AS w(id, slot) LEFT JOIN accounts AS a USING (id) ORDER BY w.slot);
    answers hold_answer[] := '{}';
    answer hold_answer;
    slots integer[];
    s integer;
    r hold_request;
BEGIN
    FOREACH r IN ARRAY requests LOOP
        answer := NULL;
        IF repeated THEN
            answer := ledger_recall(r);
        END IF;
        IF answer.status IS NULL THEN
            slots := ARRAY(SELECT width_bucket(account, account_ids) FROM unnest(r.accounts) AS account);
            answer.status := coalesce(objections[cardinality(answers) + 1], 'granted');
            IF answer.status = 'granted' AND ledger_is_stale(r.held_at, moment) THEN
                answer.status := 'stale';
            ELSIF answer.status = 'granted' AND r.claim IS NOT NULL THEN
                SELECT coalesce(c.status, 'granted'), c.stored INTO answer.status, answer.stored
                FROM ledger_claimed(r, moment) AS c;
            END IF;
            FOREACH s IN ARRAY slots LOOP
                IF NOT takes_holds[s] AND answer.status IN ('granted', 'stale') THEN
                    answer.status := 'stale';
                ELSIF answer.remaining IS NULL OR rooms[s] < answer.remaining THEN
                    answer.remaining := rooms[s];
                    answer.account := account_ids[s];
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
                    FOREACH s IN ARRAY slots LOOP
                        rooms[s] := rooms[s] - answer.nanos;
                    END LOOP;
                END IF;
            END IF;
        END IF;
        answers := answers || answer;
    END LOOP;
    RETURN answers;
END $$;

-- Whether so much time has passed since a request's moment was fixed that its windows may not be today's.
CREATE FUNCTION ledger_is_stale(held_at timestamptz, moment timestamptz) RETURNS boolean LANGUAGE sql STABLE
RETURN held_at NOT BETWEEN moment - interval '1 minute' AND moment + interval '1 minute';

-- Why a tenant or its key may not spend; NULL when both may.
CREATE FUNCTION ledger_objection(t tenants, k api_keys, moment timestamptz) RETURNS text LANGUAGE sql STABLE
RETURN CASE
    WHEN t.name IS NULL OR NOT t.active THEN 'unknown'
    WHEN t.suspended THEN 'suspended'
    WHEN k.key_id IS NULL OR k.revoked_at IS NOT NULL OR k.expires_at <= moment THEN 'inactive' END;

CREATE FUNCTION ledger_objections(requests hold_request[], moment timestamptz) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ARRAY(
        SELECT ledger_objection(t, k, moment)
        FROM unnest(requests) WITH ORDINALITY AS r
        LEFT JOIN tenants AS t ON t.name = r.tenant
        LEFT JOIN api_keys AS k ON k.tenant = r.tenant AND k.key_id = r.key_id
        ORDER BY r.ordinality);
END $$;

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
    claimed idempotency;
BEGIN
    SELECT * INTO claimed FROM idempotency AS i
    WHERE i.tenant = r.tenant AND i.key_id = r.key_id AND i.value = r.claim AND i.expires_at > moment;
    IF NOT FOUND OR claimed.request_id = r.request_id THEN
        RETURN;
    END IF;
    stored := claimed.answer;
    status := CASE
        WHEN claimed.body_hash <> r.body_hash THEN 'conflict' WHEN stored IS NULL THEN 'working' ELSE 'replay' END;
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

-- Write the holds of the requests that were granted, and return what that changes in the accounts. A hold that was
-- there before changes nothing.
CREATE FUNCTION ledger_take(
    requests hold_request[], answers hold_answer[], account_ids bigint[], moment timestamptz) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    held_change bigint[];
BEGIN
    WITH taken AS (
        INSERT INTO holds (
            request_id, held_at, expires_at, nanos, output_tokens, accounts, root_request_id, kind, tenant, key_id,
            user_id, run, pipeline, agent, model, markup_ppm, byok, claim)
        SELECT b.request_id, b.held_at, moment + b.lifetime, b.granted, b.output_tokens, b.accounts, b.root_request_id,
               b.kind, b.tenant, b.key_id, b.user_id, b.run, b.pipeline, b.agent, b.model, b.markup_ppm, b.byok, b.claim
        FROM ROWS FROM (unnest(requests), unnest(answers)) AS b(
            request_id, held_at, lifetime, fixed, nanos, output_price, max_output, min_output, accounts,
            root_request_id, kind, tenant, key_id, user_id, run, pipeline, agent, model, markup_ppm, byok, claim,
            body_hash, status, granted, output_tokens, remaining, account, stored)
        WHERE b.status = 'granted'
        ON CONFLICT DO NOTHING
        RETURNING holds.accounts, holds.nanos
    )
    SELECT array_agg(c.nanos ORDER BY c.id) INTO held_change
    FROM (
        SELECT id, sum(nanos)::bigint AS nanos
        FROM (
            SELECT unnest(account_ids) AS id, 0 AS nanos
            UNION ALL
            SELECT account, nanos FROM taken, unnest(accounts) AS account
        ) AS parts
        GROUP BY id
    ) AS c;
    RETURN held_change;
END $$;

-- One batch of a gateway: settlements first, for they make room. `repeated` says that an attempt at the same batch may
-- have been committed. `rooms` is what each account has left in the end (NULL: no limit). `answers` says what became of
-- each request, NULL when every one was granted whole; so does `postings` of each settlement, NULL when all were posted.
CREATE FUNCTION ledger_turn(
    account_ids bigint[], settlements settlement[], renewals renewal[], requests hold_request[],
    repeated boolean, clock_offset interval,
    OUT moment timestamptz, OUT rooms bigint[], OUT postings posting[], OUT renewed boolean[], OUT answers hold_answer[])
LANGUAGE plpgsql AS $$
DECLARE
    held_change bigint[];
    posted_change bigint[];
    taken bigint[];
    unusual boolean;
BEGIN
    SELECT array_agg(locked.room), bool_or(locked.retired_at IS NOT NULL) INTO rooms, unusual
    FROM (
        SELECT cap - held - posted AS room, retired_at FROM accounts
        WHERE id = ANY (account_ids) ORDER BY id FOR NO KEY UPDATE
    ) AS locked;
    moment := clock_timestamp() + clock_offset;
    IF cardinality(rooms) IS DISTINCT FROM cardinality(account_ids) THEN
        rooms := ledger_rooms(account_ids);
        unusual := true;
    END IF;

    IF cardinality(settlements) > 0 THEN
        SELECT p.held_change, p.posted_change, p.postings INTO held_change, posted_change, postings
        FROM ledger_post(settlements, account_ids, moment) AS p;
        FOR slot IN 1 .. cardinality(account_ids) LOOP
            rooms[slot] := rooms[slot] - held_change[slot] - posted_change[slot];
        END LOOP;
    END IF;
    IF cardinality(renewals) > 0 THEN
        renewed := ledger_renew(renewals, moment);
    END IF;
    IF cardinality(requests) > 0 THEN
        IF NOT (unusual OR repeated) THEN
            taken := ledger_grant_all(requests, account_ids, rooms, moment);
        END IF;
        IF taken IS NULL THEN
            answers := ledger_consider(requests, account_ids, rooms, repeated, moment);
            taken := ledger_take(requests, answers, account_ids, moment);
        END IF;
        FOR slot IN 1 .. cardinality(account_ids) LOOP
            rooms[slot] := rooms[slot] - taken[slot];
        END LOOP;
    END IF;
    PERFORM ledger_move(account_ids, held_change, posted_change, taken);
END $$;

-- Post holds whose gateway died: the whole hold, for nobody knows how much of it was used. Returns how many. A hold is
-- chosen before its accounts are locked, so whether it is still there and still expired is asked again afterwards.
CREATE OR REPLACE FUNCTION ledger_reap(most integer, clock_offset interval) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    moment timestamptz := clock_timestamp() + clock_offset;
    account_ids bigint[];
    settlements settlement[];
BEGIN
    account_ids := ARRAY(
        SELECT DISTINCT account
        FROM (SELECT accounts FROM holds WHERE expires_at < moment ORDER BY expires_at LIMIT most) AS expired,
             unnest(expired.accounts) AS account ORDER BY account);
    IF cardinality(account_ids) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM lock_accounts(account_ids);
    settlements := ARRAY(
        SELECT ROW(request_id, held_at, 'expired', true, '', '', NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, nanos, 0, false, NULL)
               ::settlement
        FROM (
            SELECT request_id, held_at, nanos FROM holds
            WHERE expires_at < moment AND accounts <@ account_ids
            ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
        ) AS expired);
    PERFORM ledger_move(account_ids, p.held_change, p.posted_change, NULL)
    FROM ledger_post(settlements, account_ids, moment) AS p;
    RETURN cardinality(settlements);
END $$;

-- One more entry that corrects the cost of another, in the windows that the other was posted in. Returns the new cost.
CREATE OR REPLACE FUNCTION ledger_correct(
    of_request uuid, of_held_at timestamptz, new_request uuid, delta bigint, by_actor text, reason text,
    clock_offset interval)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    original entries;
    before bigint;
BEGIN
    SELECT * INTO original FROM entries WHERE request_id = of_request AND held_at = of_held_at;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM lock_accounts(original.accounts);
    SELECT original.cost + coalesce(sum(cost), 0) INTO before FROM entries
    WHERE corrects = of_request AND held_at = of_held_at AND tenant = original.tenant;
    IF before + delta < 0 THEN
        RAISE EXCEPTION 'a correction by % would make the entry cost less than nothing', delta
            USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO entries
    SELECT new_request, of_held_at, clock_timestamp() + clock_offset, 'correction', original.outcome, false, of_request,
           original.tenant, original.key_id, original.user_id, original.run, original.pipeline, original.agent,
           original.root_request_id, original.model, original.provider, original.region,
           0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, delta, 0, 0, original.accounts, original.byok;
    PERFORM ledger_move(original.accounts, NULL, array_fill(delta, ARRAY[cardinality(original.accounts)]), NULL);
    INSERT INTO audit_log (actor, action, tenant, subject, details, before, after)
    VALUES (by_actor, 'ledger.correct', original.tenant, of_request::text,
            jsonb_build_object('nanos', delta, 'reason', reason, 'entry', new_request),
            jsonb_build_object('nanos', before), jsonb_build_object('nanos', before + delta));
    RETURN before + delta;
END $$;

-- The ids of accounts, in the order of the keys; NULL where there is no such tenant. An account is made on first use,
-- from the policy as it is then: the lock on the tenant keeps a change of policy from passing it by unseen.
CREATE OR REPLACE FUNCTION ledger_open(keys account_key[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
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
        LEFT JOIN (SELECT * FROM accounts WHERE retired_at IS NULL) AS a
            USING (tenant, scope, subject, period, window_start)
        ORDER BY k.ordinality);
END $$;

-- A caller's key and the keys it was made with, nearest first; they never change.
CREATE FUNCTION ledger_makers(of_tenant text, of_key text) RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE line AS (
        SELECT made_by, 1 AS distance FROM api_keys WHERE tenant = of_tenant AND key_id = of_key
        UNION ALL
        SELECT k.made_by, distance + 1 FROM line JOIN api_keys AS k ON k.tenant = of_tenant AND k.key_id = line.made_by
        WHERE distance < 8
    )
    SELECT coalesce(array_agg(made_by ORDER BY distance), '{}') FROM line WHERE made_by IS NOT NULL
$$;

-- Set caps (NULL takes one away) and let the accounts of the windows that still run follow. It never fails: what an
-- account has above its new cap becomes its overrun.
CREATE OR REPLACE FUNCTION ledger_set_policies(policies policy[], by_actor text, clock_offset interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp() + clock_offset;
    account_ids bigint[];
BEGIN
    PERFORM FROM tenants WHERE name IN (SELECT tenant FROM unnest(policies)) ORDER BY name FOR NO KEY UPDATE;
    WITH former AS (
        SELECT p.*, b.cap AS former_cap FROM unnest(policies) AS p
        LEFT JOIN budget_policies AS b USING (tenant, scope, subject, period, origin)
    ), removed AS (
        DELETE FROM budget_policies AS b USING former AS p
        WHERE (b.tenant, b.scope, b.subject, b.period, b.origin) = (p.tenant, p.scope, p.subject, p.period, p.origin)
          AND p.cap IS NULL
    ), changed AS (
        INSERT INTO budget_policies AS b (tenant, scope, subject, period, origin, cap)
        SELECT tenant, scope, subject, period, origin, cap FROM former WHERE cap IS NOT NULL
        ON CONFLICT (tenant, scope, subject, period, origin) DO UPDATE SET cap = excluded.cap, updated_at = now()
        WHERE b.cap <> excluded.cap
    )
    INSERT INTO audit_log (actor, action, tenant, subject, details, before, after)
    SELECT by_actor, 'budget.set', tenant, scope || '/' || subject,
           jsonb_build_object('period', period, 'origin', origin, 'nanos', cap),
           CASE WHEN former_cap IS NOT NULL THEN jsonb_build_object('nanos', former_cap) END,
           CASE WHEN cap IS NOT NULL THEN jsonb_build_object('nanos', cap) END
    FROM former WHERE cap IS DISTINCT FROM former_cap;

    account_ids := ARRAY(
        SELECT a.id FROM accounts AS a
        WHERE a.window_end > moment AND a.scope <> 'run' AND a.retired_at IS NULL AND EXISTS (
            SELECT FROM unnest(policies) AS p
            WHERE (a.tenant, a.scope, a.period) = (p.tenant, p.scope, p.period) AND p.subject IN (a.subject, '*')));
    PERFORM lock_accounts(account_ids);
    UPDATE accounts AS a SET cap = e.cap, overrun = greatest(0, a.held + a.posted - e.cap)
    FROM (
        SELECT id, effective_cap(tenant, scope, subject, period) AS cap FROM accounts WHERE id = ANY (account_ids)
    ) AS e
    WHERE a.id = e.id AND a.cap IS DISTINCT FROM e.cap;
END $$;

-- Begin anew under a tenant's name: whoever has it from now on neither pays for what was spent under it before nor is
-- bound by caps that were set then. What is still held settles in the accounts that it was taken from.
CREATE FUNCTION ledger_retire(of_tenant text, by_actor text, clock_offset interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp() + clock_offset;
    account_ids bigint[];
BEGIN
    PERFORM FROM tenants WHERE name = of_tenant FOR NO KEY UPDATE;
    WITH removed AS (
        DELETE FROM budget_policies WHERE tenant = of_tenant RETURNING *
    )
    INSERT INTO audit_log (actor, action, tenant, subject, details, before)
    SELECT by_actor, 'budget.set', tenant, scope || '/' || subject,
           jsonb_build_object('period', period, 'origin', origin, 'nanos', NULL), jsonb_build_object('nanos', cap)
    FROM removed;
    account_ids := ARRAY(SELECT id FROM accounts WHERE tenant = of_tenant AND retired_at IS NULL ORDER BY id);
    PERFORM lock_accounts(account_ids);
    UPDATE accounts SET retired_at = moment WHERE id = ANY (account_ids);
END $$;

-- Everything in the ledger that does not add up. One statement, so one moment of the database.
DROP FUNCTION ledger_differences();
CREATE FUNCTION ledger_differences(clock_offset interval) RETURNS TABLE (what text, expected bigint, found bigint)
LANGUAGE sql STABLE AS $$
    WITH moved AS (
        SELECT unnest(accounts) AS id, nanos AS held, 0 AS posted FROM holds
        UNION ALL
        SELECT unnest(accounts), 0, cost FROM entries
    ), sums AS (
        SELECT id, sum(held)::bigint AS held, sum(posted)::bigint AS posted FROM moved GROUP BY id
    ), both_sides AS (
        SELECT coalesce(a.id, s.id) AS id, a.tenant, a.scope, a.subject, a.period, a.window_start, a.window_end,
               a.retired_at, a.cap, a.held, a.posted, a.overrun,
               greatest(0, a.held + a.posted - a.cap) AS over_cap,
               coalesce(s.held, 0) AS sum_held, coalesce(s.posted, 0) AS sum_posted
        FROM accounts AS a FULL JOIN sums AS s ON s.id = a.id
    ), named AS (
        SELECT *, format('account %s (%s %s %s, %s from %s)', id, tenant, scope, subject, period, window_start) AS name
        FROM both_sides
    ), running AS (
        SELECT name, cap, effective_cap(tenant, scope, subject, period) AS wished FROM named
        WHERE scope <> 'run' AND retired_at IS NULL AND window_end > now() + clock_offset
    ), priced AS (
        SELECT request_id, cost, byok, ceil((
            input_tokens::numeric * input_price + output_tokens::numeric * output_price
            + cache_read_tokens::numeric * cache_read_price + cache_write_tokens::numeric * cache_write_price
            + queries::numeric * query_price) / 1000000)::bigint AS price
        FROM entries
        -- What was estimated or corrected has no price to recompute; what is free (a cache hit) held nothing.
        WHERE (byok OR NOT estimated AND NOT (held = 0 AND cost = 0)) AND corrects IS NULL
          AND request_id NOT IN (SELECT corrects FROM entries WHERE corrects IS NOT NULL)
    )
    SELECT name || ': held', sum_held, coalesce(held, 0) FROM named WHERE held IS DISTINCT FROM sum_held
    UNION ALL
    SELECT name || ': posted', sum_posted, coalesce(posted, 0) FROM named WHERE posted IS DISTINCT FROM sum_posted
    UNION ALL
    SELECT name || ': overrun', over_cap, overrun FROM named WHERE overrun <> over_cap
    UNION ALL
    SELECT name || ': cap', wished, cap FROM running WHERE cap IS DISTINCT FROM wished
    UNION ALL
    SELECT format('entry %s: cost', request_id), CASE WHEN byok THEN 0 ELSE price END, cost FROM priced
    WHERE cost <> CASE WHEN byok THEN 0 ELSE price END
    UNION ALL
    SELECT format('request %s: open holds beside its entry', request_id), 0, 1
    FROM holds JOIN entries USING (request_id, held_at)
$$;
