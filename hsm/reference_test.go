package hsm

import (
	"testing"

	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/manual"
)

// What docs/reference.md says of settings of tokens that a configuration leaves out is what happens.
func TestReferenceDefaults(t *testing.T) {
	applied := New(Config{}).config
	for _, fault := range manual.WrongTokenDefaults("..", map[string]any{
		"tokens.sessions": applied.Sessions, "tokens.max_waiting": applied.MaxWaiting, "tokens.keep_alive": applied.KeepAlive,
		"tokens.call_timeout": applied.CallTimeout, "tokens.isolation": daemon.TokenSettings{}.ForDaemon().Isolation,
	}) {
		t.Error(fault)
	}
}
