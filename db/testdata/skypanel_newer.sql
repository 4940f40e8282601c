-- A newer SkyPANEL that counts what it has not charged yet, and that an earlier
-- attempt at the sync design has been at: some of its columns are there.
ALTER TABLE "virtfusion_hourly_billing" ADD COLUMN "accumulated_amount" numeric(10, 6) DEFAULT '0.000000' NOT NULL;
ALTER TABLE "virtfusion_hourly_billing" ADD COLUMN "reference_1" text;
ALTER TABLE "virtfusion_hourly_transactions" ADD COLUMN "reference_1" text;
CREATE INDEX "billing_user" ON "virtfusion_hourly_billing" USING btree ("user_id");
UPDATE virtfusion_hourly_billing SET accumulated_amount = 0.002849, reference_1 = 'external_server_102' WHERE id = 2;
