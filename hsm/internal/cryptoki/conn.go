package cryptoki

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// sender writes the frames of many goroutines to one socket: while one of them writes, the others add to what it writes next. What has been
// written is wiped, for PINs are among it.
type sender struct {
	to io.Writer

	mu      sync.Mutex
	waiting []byte // frames; guarded by mu
	spare   []byte // wiped; guarded by mu
	writing bool   // somebody does; guarded by mu
	err     error  // the socket is broken; guarded by mu
}

// idleRoom is what a sender keeps between frames, in octets.
const idleRoom = 64 << 10

func (s *sender) send(m *message) error {
	if err := m.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if need := len(s.waiting) + 4 + m.size(); need > cap(s.waiting) {
		larger := make([]byte, len(s.waiting), max(2*cap(s.waiting), need, 4096))
		copy(larger, s.waiting)
		clear(s.waiting)
		s.waiting = larger
	}
	frames, err := m.encode(s.waiting)
	if err != nil {
		return fmt.Errorf("encode %v: %w", m.function, err)
	}
	s.waiting = frames
	if s.writing {
		return nil // a broken socket will be found by whoever waits for the answer
	}
	s.writing = true
	for len(s.waiting) > 0 && s.err == nil {
		s.flush()
	}
	s.writing = false
	return s.err
}

// flush writes what waits. The caller holds mu, which is let go meanwhile.
func (s *sender) flush() {
	frames := s.waiting
	s.waiting, s.spare = s.spare, nil
	s.mu.Unlock()
	_, err := s.to.Write(frames)
	clear(frames)
	s.mu.Lock()
	if cap(frames) <= idleRoom {
		s.spare = frames[:0]
	}
	if err != nil {
		s.err = err
		clear(s.waiting)
		s.waiting = nil
	}
}

// receiver reads frames. It is for one goroutine.
type receiver struct {
	from *bufio.Reader
}

func newReceiver(from io.Reader) *receiver { return &receiver{bufio.NewReaderSize(from, 16<<10)} }

// receive returns the next message, which lies in memory of its own. Of frames that fit into the buffer, which are all that have PINs, no copy stays
// in it.
func (r *receiver) receive() (*message, error) {
	head, err := r.from.Peek(4)
	if err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(head))
	if length > maxFrame {
		return nil, errMalformed
	}
	if _, err := r.from.Discard(4); err != nil {
		return nil, err
	}
	body := make([]byte, length)
	if length > r.from.Size() {
		_, err = io.ReadFull(r.from, body)
	} else {
		var seen []byte
		seen, err = r.from.Peek(length)
		copy(body, seen)
		clear(seen)
		if err == nil {
			_, err = r.from.Discard(length)
		}
	}
	if err != nil {
		return nil, err
	}
	return decode(body)
}
