package manual

import (
	"errors"
	"strings"

	"github.com/zegel-tsp/zegel/policy/algorithms"
)

const (
	beforeTable = "<!-- The table is made by \"make docs\" from the code: change that. A test compares the two. -->\n\n"
	afterTable  = "\n<!-- end of the table -->"
)

// WithAlgorithms is page, docs/tokens.md, with the table of algorithms as the code has it.
func WithAlgorithms(page string) (string, error) {
	before, rest, begins := strings.Cut(page, beforeTable)
	_, after, ends := strings.Cut(rest, afterTable)
	if !begins || !ends {
		return "", errors.New("write the table of algorithms: the page has not the two comments that it stands between")
	}
	return before + beforeTable + algorithms.InForce().Markdown() + afterTable + after, nil
}
