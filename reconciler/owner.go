package reconciler

import "fmt"

// User is a SkyPANEL user, as far as a decision needs one.
type User struct {
	ID           int64  // SkyPANEL users.id
	VirtfusionID *int64 // VirtFusion user id
	Active       bool
}

// Users finds SkyPANEL users by either id. The two id spaces are distinct
// types of question: never look up one with the other's number.
type Users struct {
	ByVirtfusionID map[int64][]User // several users may carry the same one
	ByID           map[int64]User
}

// owner is whom a server belongs to in SkyPANEL: a user, or nobody, or
// evidence that disagrees. note says which, in words.
type owner struct {
	user     *User
	unknown  bool // VirtFusion has not yet said whose the server is
	conflict bool
	note     string
}

// resolveOwner finds the SkyPANEL user of a server: by users.virtfusion_id =
// the VirtFusion owner's id; when that finds nobody, by users.id = the owner's
// extRelationId, and then only a user who is not linked to another VirtFusion
// user. Two answers that disagree are a conflict, never a guess.
func resolveOwner(s *State, users *Users) owner {
	if s.OwnerID == 0 {
		return owner{unknown: true, note: "VirtFusion has not said yet who owns it"}
	}
	linked := users.ByVirtfusionID[s.OwnerID]
	var related *User
	if s.OwnerExt != nil {
		if u, ok := users.ByID[*s.OwnerExt]; ok {
			related = &u
		}
	}
	switch {
	case len(linked) > 1:
		return owner{conflict: true, note: fmt.Sprintf(
			"%d SkyPANEL users (%d, %d, …) are linked to VirtFusion user %d: leave the link on one of them",
			len(linked), linked[0].ID, linked[1].ID, s.OwnerID)}
	case len(linked) == 1 && related != nil && related.ID != linked[0].ID:
		return owner{conflict: true, note: fmt.Sprintf(
			"VirtFusion user %d is linked to SkyPANEL user %d, but VirtFusion relates it to SkyPANEL user %d: correct the link or the relation",
			s.OwnerID, linked[0].ID, related.ID)}
	case len(linked) == 1:
		return owner{user: &linked[0]}
	case related != nil && related.VirtfusionID == nil:
		return owner{user: related}
	case related != nil:
		return owner{conflict: true, note: fmt.Sprintf(
			"VirtFusion relates its user %d to SkyPANEL user %d, who is linked to VirtFusion user %d: correct the link or the relation",
			s.OwnerID, related.ID, *related.VirtfusionID)}
	default:
		return owner{note: fmt.Sprintf(
			"VirtFusion user %d is nobody in SkyPANEL: link a SkyPANEL user to it (users.virtfusion_id) and it is billed from then on", s.OwnerID)}
	}
}
