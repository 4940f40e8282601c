-- What serversync may do in SkyPANEL's database, and nothing else.
--
-- Run it in SkyPANEL's own database, as a superuser or as a role that owns SkyPANEL's tables and may create
-- roles, before the first `serversync migrate`:
--
--     psql -v ON_ERROR_STOP=1 --single-transaction -d skypanel -f deploy/grants.sql
--
-- It may be run again at any time: after an upgrade, or when SkyPANEL's schema tool made a table anew.
-- `serversync doctor` names what is missing, as lines like these. A table that your SkyPANEL does not have
-- needs no line: take it out.
--
-- Two roles, neither of which has a password yet (in psql: \password serversync):
--
--   serversync_migrate  owns the schema `serversync`, and changes it: `serversync migrate`, nothing else
--   serversync          serves: `serversync serve`, `doctor` and `audit`. It changes no table's shape
--
-- A process with the role `ingest` alone needs no database, and is to be given neither.

DO $$
BEGIN
    IF to_regrole('serversync_migrate') IS NULL THEN
        CREATE ROLE serversync_migrate LOGIN;
    END IF;
    IF to_regrole('serversync') IS NULL THEN
        CREATE ROLE serversync LOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO serversync_migrate, serversync', current_database());
    -- Who is no superuser makes things for another role only as its member: for the time of this file.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        GRANT serversync_migrate TO CURRENT_USER;
    END IF;
END $$;

-- Our own schema. Where an earlier serversync made it as somebody else, it changes hands: a migration is its
-- owner's to do.
CREATE SCHEMA IF NOT EXISTS serversync AUTHORIZATION serversync_migrate;
ALTER SCHEMA serversync OWNER TO serversync_migrate;
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER TABLE %s OWNER TO serversync_migrate', c.oid::regclass)
        FROM pg_class c WHERE c.relnamespace = 'serversync'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND c.relowner <> 'serversync_migrate'::regrole
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO serversync_migrate', p.oid::regprocedure)
        FROM pg_proc p WHERE p.pronamespace = 'serversync'::regnamespace AND p.proowner <> 'serversync_migrate'::regrole
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;

-- The service reads and writes rows there, those of tables too that later migrations make.
GRANT USAGE ON SCHEMA serversync TO serversync;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA serversync TO serversync;
ALTER DEFAULT PRIVILEGES FOR ROLE serversync_migrate IN SCHEMA serversync
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO serversync;

-- SkyPANEL's tables.
GRANT USAGE ON SCHEMA public TO serversync_migrate, serversync;

-- Whose a server is, what its owner is called, who is an administrator. Never `password`, nor what else
-- stands there.
GRANT SELECT (id, virtfusion_id, email, username, full_name, role, is_active) ON public.users TO serversync;

-- What a server costs, and how the hour is worked out of it: read with every batch.
GRANT SELECT ON public.package_pricing, public.virtfusion_cron_settings TO serversync;

-- The billing mode, and VirtFusion's address and token where VIRTFUSION_API_URL and VIRTFUSION_API_TOKEN are
-- not set. PostgreSQL grants columns and not rows, so that SkyPANEL's other settings can be read as well.
GRANT SELECT (key, value) ON public.settings TO serversync;

-- Who calls the API: a key's digest (the key itself is nowhere), and when it was last used, which is written
-- down as SkyPANEL does it.
GRANT SELECT (id, user_id, key, scopes, expires_at, is_active, last_used) ON public.api_keys TO serversync;
GRANT UPDATE (last_used) ON public.api_keys TO serversync;

-- Who is signed in to SkyPANEL. Without SESSION_SECRET cookies are not accepted: the line may go then, and
-- `doctor` will say that it is missing.
GRANT SELECT (sid, sess, expire) ON public.session TO serversync;

-- The rows that bill servers, and their hours: what serversync is for. Only rows are deleted that it made
-- itself, and only while nobody was charged for them.
GRANT SELECT, INSERT, UPDATE, DELETE ON public.virtfusion_hourly_billing, public.virtfusion_hourly_transactions TO serversync;
GRANT USAGE ON SEQUENCE public.virtfusion_hourly_billing_id_seq, public.virtfusion_hourly_transactions_id_seq TO serversync;

-- Traces of SkyPANEL's own orders, by which its servers are told from external ones.
GRANT SELECT ON public.server_uptime_logs, public.transactions TO serversync;

-- BILLING_INITIAL_CHARGE=deduct only: a first charge is entered in SkyPANEL's ledger.
GRANT INSERT ON public.transactions TO serversync;
GRANT USAGE ON SEQUENCE public.transactions_id_seq TO serversync;

-- NOTIFY_USERS and NOTIFY_ADMINS only: messages that SkyPANEL's pages show.
GRANT SELECT, INSERT ON public.notifications TO serversync;
GRANT USAGE ON SEQUENCE public.notifications_id_seq TO serversync;

-- `migrate` looks which columns SkyPANEL's tables lack, and fills in what was dropped.
GRANT SELECT, UPDATE ON public.virtfusion_hourly_billing, public.virtfusion_hourly_transactions TO serversync_migrate;

DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        REVOKE serversync_migrate FROM CURRENT_USER;
    END IF;
END $$;

-- SkyPANEL's tables get five columns and some indexes, which only their owner can add. One of:
--
--   1. Their owner does it. `serversync migrate --dry-run` prints the statements; what it prints for
--      SkyPANEL's tables is run as their owner, and `serversync migrate` does the rest. When SkyPANEL's schema
--      tool drops such a column, the reconcilers wait, and what is printed then is to be run again: it fills in
--      what stood there, for which the owner looks into one table of ours (after the first `migrate`):
--
--          GRANT USAGE ON SCHEMA serversync TO skypanel;
--          GRANT SELECT ON serversync.billing_rows TO skypanel;
--
--   2. The migrating role may act as the owner, whose name is in
--      SELECT tableowner FROM pg_tables WHERE tablename = 'users':
--
--          GRANT skypanel TO serversync_migrate;
--
--      `serversync migrate` does everything then; its role can read and change all of SkyPANEL's. Give its
--      password to the job that migrates, and to no process that serves.
