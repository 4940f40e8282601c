package api

import (
	"errors"
	"regexp"
	"strconv"
)

// ServerRef names one server: by its VirtFusion id or by its UUID.
type ServerRef struct {
	ID   int64 // 0: by UUID
	UUID string
}

var uuidShape = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// ParseServer reads a VirtFusion id, above 0, or a UUID.
func ParseServer(s string) (ServerRef, error) {
	if uuidShape.MatchString(s) {
		return ServerRef{UUID: s}, nil
	}
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 || s[0] == '+' {
		return ServerRef{}, errors.New("a server is named by its VirtFusion id, such as 14, or by its UUID")
	}
	return ServerRef{ID: id}, nil
}

// String is the reference as [ParseServer] reads it.
func (r ServerRef) String() string {
	if r.ID != 0 {
		return strconv.FormatInt(r.ID, 10)
	}
	return r.UUID
}
