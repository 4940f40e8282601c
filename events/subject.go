package events

import "strconv"

// Names of the stream and its reconciling consumer.
const (
	StreamName   = "VIRTFUSION"
	ConsumerName = "reconciler"
	// SubjectAll matches every event.
	SubjectAll = "virtfusion.users.*.servers.*.*"
)

// Subject is where an event is published:
// virtfusion.users.<owner>.servers.<server>.<kind>, with a VirtFusion user id
// (0 when unknown) and a VirtFusion server id.
func (e *Event) Subject() string {
	return "virtfusion.users." + strconv.FormatInt(e.OwnerID(), 10) +
		".servers." + strconv.FormatInt(e.Server.ID, 10) + "." + string(e.Kind)
}
