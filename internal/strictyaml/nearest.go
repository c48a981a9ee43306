package strictyaml

import "strings"

// Nearest is the one of known that word was probably meant to be: the one with the fewest letters wrong,
// if no more than a third of them are. Letter case, '-' and '_' do not count as differences. ok is false where none is near.
func Nearest(word string, known []string) (nearest string, ok bool) {
	folded := fold(word)
	best := max(1, len(folded)/3) + 1
	for _, candidate := range known {
		if d := distance(folded, fold(candidate)); d < best {
			best, nearest, ok = d, candidate, true
		}
	}
	return nearest, ok
}

var folding = strings.NewReplacer("-", "", "_", "")

func fold(word string) string {
	if len(word) > 64 {
		word = word[:64] // nobody's key is longer; bounds the work of distance
	}
	return folding.Replace(strings.ToLower(word))
}

// hint ends an error about the unknown word.
func hint(word string, known []string) string {
	if nearest, ok := Nearest(word, known); ok {
		return `; did you mean "` + nearest + `"?`
	}
	if len(known) == 0 {
		return ": none is known here"
	}
	return "; known are " + strings.Join(known, ", ")
}

// distance counts the letters to insert, drop, change, or swap with their neighbour, to make a of b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
