//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// What of the NBD protocol QEMU needs to use a disk; see doc/proto.md of
// https://github.com/NetworkBlockDevice/nbd.
const (
	nbdMagic       = 0x4e42444d41474943
	nbdOption      = 0x49484156454F5054
	nbdOptionReply = 0x0003e889045565a9
	nbdRequest     = 0x25609513
	nbdReply       = 0x67446698

	nbdFixedNewstyle = 1 << 0
	nbdNoZeroes      = 1 << 1
	nbdHasFlags      = 1 << 0
	nbdSendFlush     = 1 << 2

	nbdOptAbort = 2
	nbdOptGo    = 7

	nbdRepAck         = 1
	nbdRepInfo        = 3
	nbdRepUnsupported = 1<<31 + 1

	nbdRead       = 0
	nbdWrite      = 1
	nbdDisconnect = 2
	nbdFlush      = 3

	nbdEIO    = 5
	nbdEINVAL = 22

	// nbdMost is the most that one request moves.
	nbdMost = 64 << 20
)

// serveDisk is the disk of one machine until it hangs up.
func serveDisk(conn net.Conn, d *disk) error {
	s := nbdSession{in: bufio.NewReaderSize(conn, 1<<20), out: bufio.NewWriterSize(conn, 1<<20)}
	if err := s.negotiate(); err != nil {
		return fmt.Errorf("agree on the disk with QEMU: %w", err)
	}
	for {
		more, err := s.request(d)
		if errors.Is(err, io.EOF) || err == nil && !more {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve the disk to QEMU: %w", err)
		}
	}
}

type nbdSession struct {
	in  *bufio.Reader
	out *bufio.Writer
}

func (s nbdSession) read(v any) error { return binary.Read(s.in, binary.BigEndian, v) }

// send writes values, and has them sent.
func (s nbdSession) send(values ...any) error {
	for _, v := range values {
		if err := binary.Write(s.out, binary.BigEndian, v); err != nil {
			return err
		}
	}
	return s.out.Flush()
}

// negotiate refuses every option but that to begin.
func (s nbdSession) negotiate() error {
	if err := s.send(uint64(nbdMagic), uint64(nbdOption), uint16(nbdFixedNewstyle|nbdNoZeroes)); err != nil {
		return err
	}
	var flags uint32
	if err := s.read(&flags); err != nil {
		return err
	}
	for {
		var option struct {
			Magic        uint64
			Kind, Length uint32
		}
		if err := s.read(&option); err != nil {
			return err
		}
		if option.Magic != nbdOption || option.Length > 1<<16 {
			return errors.New("that is no option of NBD")
		}
		if _, err := s.in.Discard(int(option.Length)); err != nil {
			return err
		}
		reply := func(kind uint32, length int) error {
			return s.send(uint64(nbdOptionReply), option.Kind, kind, uint32(length)) //nolint:gosec // G115: 0 or 12
		}
		switch option.Kind {
		case nbdOptGo: // the export: its kind of information (0), size and flags
			if err := errors.Join(reply(nbdRepInfo, 12), s.send(uint16(0), uint64(diskSize), uint16(nbdHasFlags|nbdSendFlush))); err != nil {
				return err
			}
			return reply(nbdRepAck, 0)
		case nbdOptAbort:
			return errors.Join(reply(nbdRepAck, 0), io.EOF)
		default:
			if err := reply(nbdRepUnsupported, 0); err != nil {
				return err
			}
		}
	}
}

// request does one request; false: there will be no more.
func (s nbdSession) request(d *disk) (more bool, err error) {
	var r struct {
		Magic          uint32
		Flags, Command uint16
		Cookie, Offset uint64
		Length         uint32
	}
	if err := s.read(&r); err != nil {
		return false, err
	}
	if r.Magic != nbdRequest || r.Length > nbdMost || r.Offset > diskSize {
		return false, errors.New("that is no request of NBD")
	}
	var answer []byte
	var failed error
	offset := int64(r.Offset)
	switch r.Command {
	case nbdRead:
		answer = make([]byte, r.Length)
		failed = d.read(answer, offset)
	case nbdWrite:
		content := make([]byte, r.Length)
		if _, err := io.ReadFull(s.in, content); err != nil {
			return false, err
		}
		failed = d.write(content, offset)
	case nbdFlush:
		failed = d.flush()
	case nbdDisconnect:
		return false, nil
	default:
		failed = errNotWhole
	}
	if errors.Is(failed, errNoPower) {
		return false, failed
	}
	code := uint32(0)
	switch {
	case errors.Is(failed, errNotWhole):
		code, answer = nbdEINVAL, nil
	case failed != nil:
		code, answer = nbdEIO, nil
	}
	return true, s.send(uint32(nbdReply), code, r.Cookie, answer)
}
