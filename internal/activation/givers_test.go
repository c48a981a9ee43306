package activation

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/shares"
)

// Of two tokens whose PINs are in shares, each is recorded with the officers who opened it, and not with the other's.
func TestGiversOfEachToken(t *testing.T) {
	o := newOffice(t)
	set, second, err := shares.Split([]byte(pin), "the other", 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	text, err := set.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(o.file), "other.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := o.config
	c.Officers = append(people(), desk.Officer{ID: strings.Repeat("c", 32), Certificate: fmt.Sprintf("%x", sha256.Sum256([]byte("cleo"))), Roles: []string{desk.SystemOperator}})
	c.URIs = []string{o.split, strings.Replace(o.prompt, "pin-source=prompt", "pin-source=shares:"+file, 1)}
	if o.Guard, err = New(c); err != nil {
		t.Fatal(err)
	}
	o.handler = o.Handler(http.NotFoundHandler())
	o.share(t, "anna", o.texts[0], 200, `"entered":[1]`)
	o.share(t, "cleo", second[2].Text(set), 200, `"entered":[3]`)
	o.share(t, "ben", o.texts[1], 200, `"active":false`)
	o.share(t, "ben", second[0].Text(set), 200, `"active":true`)
	if len(o.pending) != 1 {
		t.Fatalf("%d acts are to be recorded", len(o.pending))
	}
	ids := []string{c.Officers[0].ID, c.Officers[1].ID, c.Officers[3].ID}
	if a := o.pending[0]; !slices.Equal(a.givers[o.file], ids[:2]) || !slices.Equal(a.givers[file], []string{ids[2], ids[1]}) {
		t.Errorf("the activation is recorded with %v", a.givers)
	}
}
