package reconciler

import (
	"testing"

	"serversync/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }
