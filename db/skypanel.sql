-- SkyPANEL's tables as its released schema has them (October 2025), as far as
-- serversync touches them. Run in the embedded database only: in a real one
-- these tables are SkyPANEL's, and serversync neither makes nor changes them.
CREATE TABLE IF NOT EXISTS public.users (
    id             serial PRIMARY KEY,
    email          text NOT NULL UNIQUE,
    username       text NOT NULL UNIQUE,
    password       text NOT NULL,
    full_name      text NOT NULL,
    role           text NOT NULL DEFAULT 'client',
    virtfusion_id  integer,
    is_verified    boolean DEFAULT false,
    is_active      boolean DEFAULT true,
    created_at     timestamp DEFAULT now(),
    updated_at     timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.package_pricing (
    id                     serial PRIMARY KEY,
    virtfusion_package_id  integer NOT NULL UNIQUE,
    name                   text NOT NULL,
    description            text,
    price                  integer NOT NULL, -- cents a month
    enabled                boolean NOT NULL DEFAULT true,
    category_id            integer,
    created_at             timestamp DEFAULT now(),
    updated_at             timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.virtfusion_cron_settings (
    id                        serial PRIMARY KEY,
    enabled                   boolean DEFAULT false,
    hours_per_month           integer DEFAULT 730,
    billing_on_first_enabled  boolean DEFAULT false,
    hourly_billing_enabled    boolean DEFAULT true,
    created_at                timestamp DEFAULT now(),
    updated_at                timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.settings (
    id          serial PRIMARY KEY,
    key         text NOT NULL UNIQUE,
    value       text NOT NULL,
    updated_at  timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.api_keys (
    id          serial PRIMARY KEY,
    user_id     integer NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    name        text NOT NULL,
    key         text NOT NULL,
    prefix      text NOT NULL,
    scopes      text[],
    expires_at  timestamp,
    is_active   boolean DEFAULT true,
    last_used   timestamp,
    created_at  timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.session (
    sid     varchar PRIMARY KEY,
    sess    json NOT NULL,
    expire  timestamp(6) NOT NULL
);
CREATE TABLE IF NOT EXISTS public.virtfusion_hourly_billing (
    id                    serial PRIMARY KEY,
    user_id               integer NOT NULL REFERENCES public.users (id),
    server_id             integer NOT NULL,
    virtfusion_server_id  integer NOT NULL,
    server_uuid           text,
    package_id            integer NOT NULL,
    package_name          text NOT NULL,
    monthly_price         numeric(10,4) NOT NULL,
    hourly_rate           numeric(10,6) NOT NULL,
    hours_in_month        integer DEFAULT 730,
    billing_enabled       boolean DEFAULT true,
    server_created_at     timestamp,
    last_billed_at        timestamp,
    created_at            timestamp DEFAULT now(),
    updated_at            timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.virtfusion_hourly_transactions (
    id                    serial PRIMARY KEY,
    billing_id            integer REFERENCES public.virtfusion_hourly_billing (id) ON DELETE CASCADE,
    user_id               integer NOT NULL,
    server_id             integer NOT NULL,
    transaction_id        integer,
    hours_billed          numeric(4,2) DEFAULT 1.0,
    amount_charged        numeric(10,4),
    billing_period_start  timestamp,
    billing_period_end    timestamp,
    status                text DEFAULT 'pending',
    created_at            timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.transactions (
    id                    serial PRIMARY KEY,
    user_id               integer NOT NULL REFERENCES public.users (id),
    amount                real NOT NULL,
    type                  text NOT NULL,
    description           text NOT NULL,
    status                text NOT NULL,
    payment_method        text,
    virtfusion_credit_id  text,
    created_at            timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.notifications (
    id          serial PRIMARY KEY,
    user_id     integer NOT NULL REFERENCES public.users (id),
    title       text NOT NULL,
    message     text NOT NULL,
    type        text NOT NULL DEFAULT 'info',
    read        boolean DEFAULT false,
    link        text,
    created_at  timestamp DEFAULT now()
);
CREATE TABLE IF NOT EXISTS public.server_uptime_logs (
    id          serial PRIMARY KEY,
    server_id   integer NOT NULL,
    user_id     integer NOT NULL,
    created_at  timestamp DEFAULT now()
);
