-- SkyPANEL's tables as its schema tool makes them (October 2025), before
-- serversync has seen the database: more columns and tables than serversync
-- knows, every NOT NULL of the original, none of the columns of the sync
-- design.
CREATE TABLE "users" (
	"id" serial PRIMARY KEY NOT NULL,
	"email" text NOT NULL,
	"username" text NOT NULL,
	"password" text NOT NULL,
	"full_name" text NOT NULL,
	"first_name" text,
	"last_name" text,
	"phone" text,
	"company" text,
	"address" text,
	"role" text DEFAULT 'client' NOT NULL,
	"virtfusion_id" integer,
	"is_verified" boolean DEFAULT false NOT NULL,
	"is_active" boolean DEFAULT true NOT NULL,
	"created_at" timestamp DEFAULT now(),
	"updated_at" timestamp DEFAULT now(),
	CONSTRAINT "users_email_unique" UNIQUE("email"),
	CONSTRAINT "users_username_unique" UNIQUE("username")
);
CREATE TABLE "package_categories" (
	"id" serial PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"display_order" integer DEFAULT 0,
	"is_active" boolean DEFAULT true NOT NULL,
	"created_at" timestamp DEFAULT now() NOT NULL,
	"updated_at" timestamp DEFAULT now() NOT NULL
);
CREATE TABLE "package_pricing" (
	"id" serial PRIMARY KEY NOT NULL,
	"virtfusion_package_id" integer NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"price" integer NOT NULL,
	"display_order" integer DEFAULT 0,
	"enabled" boolean DEFAULT true NOT NULL,
	"category_id" integer,
	"created_at" timestamp DEFAULT now() NOT NULL,
	"updated_at" timestamp DEFAULT now() NOT NULL,
	"sla_plan_id" uuid,
	CONSTRAINT "package_pricing_virtfusion_package_id_unique" UNIQUE("virtfusion_package_id")
);
ALTER TABLE "package_pricing" ADD CONSTRAINT "package_pricing_category_id_package_categories_id_fk"
	FOREIGN KEY ("category_id") REFERENCES "public"."package_categories"("id") ON DELETE set null ON UPDATE no action;
CREATE TABLE "settings" (
	"id" serial PRIMARY KEY NOT NULL,
	"key" text NOT NULL,
	"value" text NOT NULL,
	"updated_at" timestamp DEFAULT now(),
	CONSTRAINT "settings_key_unique" UNIQUE("key")
);
CREATE TABLE "virtfusion_cron_settings" (
	"id" serial PRIMARY KEY NOT NULL,
	"enabled" boolean DEFAULT false NOT NULL,
	"hours_per_month" integer DEFAULT 730 NOT NULL,
	"billing_on_first_enabled" boolean DEFAULT true NOT NULL,
	"hourly_billing_enabled" boolean DEFAULT true NOT NULL,
	"last_monthly_billing" timestamp,
	"last_hourly_billing" timestamp,
	"created_at" timestamp DEFAULT now() NOT NULL,
	"updated_at" timestamp DEFAULT now() NOT NULL
);
CREATE TABLE "virtfusion_hourly_billing" (
	"id" serial PRIMARY KEY NOT NULL,
	"user_id" integer NOT NULL,
	"server_id" integer NOT NULL,
	"virtfusion_server_id" integer NOT NULL,
	"server_uuid" text,
	"package_id" integer NOT NULL,
	"package_name" text NOT NULL,
	"monthly_price" numeric(10, 4) NOT NULL,
	"hourly_rate" numeric(10, 6) NOT NULL,
	"hours_in_month" integer DEFAULT 730 NOT NULL,
	"billing_enabled" boolean DEFAULT true NOT NULL,
	"server_created_at" timestamp,
	"last_billed_at" timestamp,
	"created_at" timestamp DEFAULT now() NOT NULL,
	"updated_at" timestamp DEFAULT now() NOT NULL
);
CREATE TABLE "virtfusion_hourly_transactions" (
	"id" serial PRIMARY KEY NOT NULL,
	"billing_id" integer NOT NULL,
	"user_id" integer NOT NULL,
	"server_id" integer NOT NULL,
	"transaction_id" integer,
	"hours_billed" numeric(4, 2) DEFAULT '1.0' NOT NULL,
	"amount_charged" numeric(10, 4) NOT NULL,
	"billing_period_start" timestamp NOT NULL,
	"billing_period_end" timestamp NOT NULL,
	"status" text DEFAULT 'pending' NOT NULL,
	"created_at" timestamp DEFAULT now() NOT NULL
);
ALTER TABLE "virtfusion_hourly_transactions" ADD CONSTRAINT "virtfusion_hourly_transactions_billing_id_virtfusion_hourly_billing_id_fk"
	FOREIGN KEY ("billing_id") REFERENCES "public"."virtfusion_hourly_billing"("id") ON DELETE cascade ON UPDATE no action;
CREATE TABLE "transactions" (
	"id" serial PRIMARY KEY NOT NULL,
	"user_id" integer NOT NULL,
	"amount" real NOT NULL,
	"type" text NOT NULL,
	"description" text NOT NULL,
	"status" text DEFAULT 'pending' NOT NULL,
	"payment_method" text,
	"payment_id" text,
	"virtfusion_credit_id" text,
	"created_at" timestamp DEFAULT now()
);
ALTER TABLE "transactions" ADD CONSTRAINT "transactions_user_id_users_id_fk"
	FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;
CREATE TABLE "notifications" (
	"id" serial PRIMARY KEY NOT NULL,
	"user_id" integer NOT NULL,
	"title" text NOT NULL,
	"message" text NOT NULL,
	"type" text DEFAULT 'info' NOT NULL,
	"read" boolean DEFAULT false NOT NULL,
	"link" text,
	"created_at" timestamp DEFAULT now()
);
CREATE TABLE "session" (
	"sid" varchar NOT NULL,
	"sess" json NOT NULL,
	"expire" timestamp (6) NOT NULL,
	CONSTRAINT "session_pkey" PRIMARY KEY ("sid")
);
CREATE INDEX "IDX_session_expire" ON "session" USING btree ("expire");

CREATE TABLE server_uptime_logs (
    id serial PRIMARY KEY,
    server_id integer NOT NULL,
    user_id integer NOT NULL,
    created_at timestamp DEFAULT now()
);
