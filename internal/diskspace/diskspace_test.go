package diskspace_test

import (
	"errors"
	"path/filepath"
	"testing"

	"serversync/internal/diskspace"
)

func TestReserve(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for total, want := range map[uint64]uint64{0: 48 * mb, 100 * mb: 48 * mb, 2000 * mb: 100 * mb, 1 << 40: 1 << 30} {
		if got := (diskspace.Room{Total: total}).Reserve(); got != want {
			t.Errorf("of %d MB %d MB are kept, want %d", total/mb, got/mb, want/mb)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	var none *diskspace.Space
	if none.ForNews() != nil || none.ForBooks() != nil {
		t.Error("nothing is watched, and is short of room")
	}
	dir := t.TempDir()
	room, err := diskspace.Of(dir)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("disks cannot be measured on this system")
	}
	if err != nil || room.Total == 0 || room.Free > room.Total {
		t.Errorf("%+v, %v", room, err)
	}
	space, err := diskspace.Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	if short := errors.Is(space.ForNews(), diskspace.ErrShort); short != (room.Free < room.Reserve()) {
		t.Errorf("short is %v with %+v", short, room)
	}
	if _, err := diskspace.Watch(filepath.Join(dir, "nothing")); err == nil {
		t.Error("a directory that is not there was measured")
	}
}
