package ca

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// unclosed are intents that could not be abandoned when their issue failed. Run abandons them; while they are
// open, status answers unknown for them. Safe for concurrent use.
type unclosed struct {
	mu   sync.Mutex
	open []named
	wake chan struct{} // holds one
}

// named is what an abandonment names.
type named struct {
	issuer journal.IssuerID
	serial journal.Serial
}

func newUnclosed() unclosed { return unclosed{wake: make(chan struct{}, 1)} }

func (u *unclosed) add(n named) {
	u.mu.Lock()
	u.open = append(u.open, n)
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default: // Run has been told already
	}
}

// take empties the list.
func (u *unclosed) take() []named {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.open
	u.open = nil
	return all
}

// abandon closes an intent for ever. After it the serial counts as revoked, so that a signature that may exist
// somewhere is worth nothing. Where it fails, Run tries again.
func (i *Issuer) abandon(ctx context.Context, in *intent) error {
	err := i.appendAbandoned(ctx, in.issuer, in.Serial)
	if err != nil && !closed(err) {
		i.unclosed.add(named{in.issuer, in.Serial})
	}
	return err
}

// appendAbandoned records that an intent came to nothing. The journal itself refuses it where the certificate
// became issued after all, or where the journal has failed.
func (i *Issuer) appendAbandoned(ctx context.Context, issuer journal.IssuerID, serial journal.Serial) error {
	_, err := i.append(ctx, journal.CertificateAbandoned{Issuer: issuer, Serial: serial})
	if err != nil {
		return fmt.Errorf("abandon intent of serial %s (it is tried again, and at the next start): %w", serial, err)
	}
	i.metrics.abandoned.Inc()
	return nil
}

// closed reports whether err, from appendAbandoned, says that nothing is left to do for this process: the intent
// is closed already, or only opening the journal again can tell.
func closed(err error) bool {
	return errors.Is(err, journal.ErrConflict) || errors.Is(err, journal.ErrFailed) || errors.Is(err, journal.ErrClosed)
}

// closeLater abandons what abandon could not, until ctx ends: after a second, and then less and less often down
// to once a minute.
func (i *Issuer) closeLater(ctx context.Context) {
	retry := time.Duration(0) // 0: nothing is open
	for {
		var due <-chan time.Time
		if retry > 0 {
			due = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return
		case <-i.unclosed.wake:
			if retry == 0 {
				retry = firstRetry
			}
			continue
		case <-due:
		}
		left := 0
		for _, n := range i.unclosed.take() {
			err := i.appendAbandoned(ctx, n.issuer, n.serial)
			switch {
			case err == nil:
				i.config.Log.Warn("intent abandoned, late", "serial", n.serial.String())
			case !closed(err):
				i.unclosed.add(n)
				left++
				i.config.Log.Error("intent not abandoned", "error", err)
			}
		}
		if retry = min(2*retry, lastRetry); left == 0 {
			retry = 0
		}
	}
}
