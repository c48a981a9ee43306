package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/zegel-tsp/zegel/internal/desk"
)

// Of a duty whose answer was lost nobody says that it is in no journal: entered again, it would be there twice.
func TestNotKept(t *testing.T) {
	const none, unknown = "it is in no journal", "is not known"
	for _, c := range []struct {
		err  error
		want string
	}{
		{&desk.Error{Status: http.StatusConflict, Message: "closed"}, none},
		{fmt.Errorf("reach: %w", syscall.ECONNREFUSED), none},
		{fmt.Errorf("reach: %w", syscall.ECONNRESET), unknown},
		{errors.New("read the answer"), unknown},
		{&desk.Error{Status: http.StatusGatewayTimeout, Message: "late"}, unknown},
	} {
		err := notKept(c.err, desk.KeyDuty{Act: "cloned"})
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "zegel token record --act cloned") {
			t.Errorf("%v: %v, want %q", c.err, err, c.want)
		}
	}
}
