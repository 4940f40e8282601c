package db_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestReadPolicy(t *testing.T) {
	t.Parallel()
	const mode = `INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', `
	for name, tc := range map[string]struct {
		statement string
		want      db.Policy
	}{
		"nothing is set":          {``, db.Policy{HourlyMode: true, HoursPerMonth: 730}},
		"true":                    {mode + `'true')`, db.Policy{HourlyMode: true, HoursPerMonth: 730}},
		"false":                   {mode + `'false')`, db.Policy{HourlyMode: false, HoursPerMonth: 730}},
		"empty":                   {mode + `'')`, db.Policy{HourlyMode: false, HoursPerMonth: 730}},
		"another spelling":        {mode + `'TRUE')`, db.Policy{HourlyMode: false, HoursPerMonth: 730}},
		"other settings":          {`INSERT INTO settings (key, value) VALUES ('virtfusion_api_url', 'false')`, db.Policy{HourlyMode: true, HoursPerMonth: 730}},
		"the latest row counts":   {`INSERT INTO virtfusion_cron_settings (id, hours_per_month) VALUES (9, 672), (2, 744)`, db.Policy{HourlyMode: true, HoursPerMonth: 672}},
		"hours are null":          {`INSERT INTO virtfusion_cron_settings (hours_per_month) VALUES (672), (NULL)`, db.Policy{HourlyMode: true, HoursPerMonth: 730}},
		"hours are nought":        {`INSERT INTO virtfusion_cron_settings (hours_per_month) VALUES (0)`, db.Policy{HourlyMode: true, HoursPerMonth: 730}},
		"hours are negative":      {`INSERT INTO virtfusion_cron_settings (hours_per_month) VALUES (-1)`, db.Policy{HourlyMode: true, HoursPerMonth: 730}},
		"the job is switched off": {`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (false, 720)`, db.Policy{HourlyMode: true, HoursPerMonth: 720}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := dbtest.New(t)
			if tc.statement != "" {
				exec(t, database, tc.statement)
			}
			got, err := db.ReadPolicy(t.Context(), database)
			if err != nil || got != tc.want {
				t.Errorf("%+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestReadPrices(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	if prices, err := db.ReadPrices(t.Context(), database); err != nil || len(prices) != 0 {
		t.Errorf("%v, %v; want none", prices, err)
	}
	exec(t, database, `INSERT INTO package_pricing (virtfusion_package_id, name, price, enabled) VALUES (7, 'Small', 500, true), (3, 'Old', 1495, false)`)
	prices, err := db.ReadPrices(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(prices, func(a, b db.PackagePricing) int { return int(a.ID - b.ID) })
	want := []db.PackagePricing{
		{ID: 1, VirtfusionPackageID: 7, Name: "Small", Price: 500, Enabled: true},
		{ID: 2, VirtfusionPackageID: 3, Name: "Old", Price: 1495},
	}
	if diff := cmp.Diff(want, prices, cmpopts.IgnoreTypes(bun.BaseModel{})); diff != "" {
		t.Errorf("prices (-want +got):\n%s", diff)
	}
}

func TestUsersByLink(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO users (id, email, username, password, full_name, virtfusion_id, is_active) VALUES
			(1, 'a', 'a', '', 'A', 2, true),
			(2, 'b', 'b', '', 'B', NULL, false),
			(3, 'c', 'c', '', 'C', 1, NULL),
			(4, 'd', 'd', '', 'D', 1, true)`)
	for name, tc := range map[string]struct {
		virtfusionIDs, userIDs []int64
		want                   []db.User
	}{
		"nobody is asked for":          {nil, nil, nil},
		"nobody is found":              {[]int64{3, 4}, []int64{5}, nil},
		"by link":                      {[]int64{2}, nil, []db.User{{ID: 1, VirtfusionID: new(int64(2)), IsActive: new(true)}}},
		"by id, unlinked":              {nil, []int64{2}, []db.User{{ID: 2, IsActive: new(false)}}},
		"two with one link":            {[]int64{1}, nil, []db.User{{ID: 3, VirtfusionID: new(int64(1))}, {ID: 4, VirtfusionID: new(int64(1)), IsActive: new(true)}}},
		"by both ways, once":           {[]int64{2, 2}, []int64{1, 1}, []db.User{{ID: 1, VirtfusionID: new(int64(2)), IsActive: new(true)}}},
		"one number in both id spaces": {[]int64{2}, []int64{2}, []db.User{{ID: 1, VirtfusionID: new(int64(2)), IsActive: new(true)}, {ID: 2, IsActive: new(false)}}},
		"null is no link":              {[]int64{0}, []int64{0}, nil},
		"the largest id that there is": {[]int64{1<<31 - 1}, []int64{1<<31 - 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := db.UsersByLink(t.Context(), database, tc.virtfusionIDs, tc.userIDs)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, func(a, b db.User) int { return int(a.ID - b.ID) })
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreTypes(bun.BaseModel{})); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
		})
	}
}
