// Package events is the road between VirtFusion and the books: the event
// itself (an observation of one server), the subjects it travels on, the
// JetStream stream and consumer that carry it, the publisher that answers only
// for what is on disk, and the embedded broker.
//
// An event is an observation, never a delta: "at T, VirtFusion said that
// server S looks like this", or "is gone". Loss, repetition and disorder are
// therefore harmless: any later observation repairs what an earlier one left.
package events
