package main

import (
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
)

// Nothing is destroyed by confirming nothing: a key without a public key and a label is confirmed by its id.
func TestDestroyWantsAName(t *testing.T) {
	unnamed := hsm.KeyRecord{KeyInfo: hsm.KeyInfo{ID: "0102"}}
	t.Setenv("ZEGEL_CONFIG", "")
	for _, c := range []struct {
		key     hsm.KeyRecord
		confirm string
		want    string
	}{
		{unnamed, "", "give its id, 0102"},
		{unnamed, "0102", ""},
		{hsm.KeyRecord{}, "", "--confirm is not that"},
		{hsm.KeyRecord{KeyInfo: unnamed.KeyInfo, Label: "journal"}, "0102", "give its label, journal"},
	} {
		err := (&tool{}).mayDestroy(c.key, destroyFlags{confirm: c.confirm})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v confirmed by %q: %v, want %q", c.key, c.confirm, err, c.want)
		}
	}
}
