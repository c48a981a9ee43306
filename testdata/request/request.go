// Package request holds an example subject file for each profile that takes one: the documentation
// points at them, the demo and the tests issue from them, so they are always true.
package request

import (
	"embed"
	"fmt"
)

//go:embed *.yaml
var files embed.FS

// Example returns the example subject file (YAML) of a profile.
func Example(profile string) ([]byte, error) {
	text, err := files.ReadFile(profile + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("find the example subject of %s: %w", profile, err)
	}
	return text, nil
}
