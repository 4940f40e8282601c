-- A company that has been in business for a while.
INSERT INTO users (email, username, password, full_name, role, virtfusion_id, is_active) VALUES
	('admin@company.test', 'admin', 'hash', 'Admin', 'admin', NULL, true),
	('anna@company.test', 'anna', 'hash', 'Anna', 'client', 31, true),
	('boris@company.test', 'boris', 'hash', 'Boris', 'client', 2, false);
INSERT INTO package_categories (name) VALUES ('Servers');
INSERT INTO package_pricing (virtfusion_package_id, name, price, category_id) VALUES (5, 'Small', 500, 1), (6, 'Large', 2400, 1);
INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'true'), ('virtfusion_api_url', 'https://cp.company.test');
INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (true, 730);
INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, server_created_at, last_billed_at) VALUES
	(2, 101, 101, 'uuid-101', 5, 'Small', 5, 0.006849, '2025-01-15 15:00:49', '2025-10-01 12:00:00.123456'),
	(2, 102, 102, NULL, 6, 'Large', 24, 0.032877, '2025-02-01 00:00:00', NULL),
	(3, 103, 103, 'DELETED_SERVER', 5, 'Small', 5, 0.006849, NULL, NULL);
INSERT INTO transactions (user_id, amount, type, description, status, payment_method) VALUES
	(2, -0.01, 'debit', 'VirtFusion Server 101 - Hourly Billing (1 hour)', 'completed', 'virtfusion_tokens');
INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, transaction_id, amount_charged, billing_period_start, billing_period_end, status) VALUES
	(1, 2, 101, 1, 0.01, '2025-10-01 11:00:00', '2025-10-01 12:00:00', 'completed');
