// Package strictyaml reads YAML that refuses what it does not know: an unknown or doubled key, a second
// document, an alias or a value of the wrong kind is an error with file, line and, where one is near, the key that was meant.
//
// It reads into structs. A key is the field's yaml tag (`yaml:"listen"`), without a tag the field's name in lower
// case; `yaml:"-"` and unexported fields are no keys; embedded structs and `yaml:",inline"` lend theirs. Values
// are structs, maps with text keys, slices, pointers to these, text, booleans (true and false only), decimal
// numbers, time.Duration ("1h30m"), time.Time (2026-11-30 or RFC 3339) and whatever has UnmarshalText.
// A key without a value is refused, except where a pointer to a struct then stays nil.
// A number or date in a text field is taken letter for letter as it was written, so nothing is lost; a boolean is not.
// Which keys must be there is the caller's to say; Line tells it where to point. No error shows a value: it may hold a PIN.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxSize bounds a text: a configuration of a megabyte is a mistake.
const maxSize = 1 << 20

// Decode reads text, which came from the file called name, into the struct pointer into (yaml tags).
// Every error starts "name:line: ", the line counted from 1, and is the first fault found; into is then
// partly filled and must not be used. A key that text does not have leaves its field as it was, so that
// defaults can be set before. Safe for concurrent use.
func Decode(name string, text []byte, into any) error {
	root, fault := parse(text)
	if fault != nil {
		return fault.in(name)
	}
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return at(root, "", "cannot decode into %T: a pointer to a struct is needed", into).in(name)
	}
	if fault := decode(root, target.Elem(), ""); fault != nil {
		return fault.in(name)
	}
	return nil
}

// Line is the line of the value that path leads to ("officers[2].roles"), for errors about values that Decode has
// accepted and the caller refuses. Where path is not in text it is the line of the last part that is; at least 1.
func Line(text []byte, path string) int {
	node, fault := parse(text)
	if fault != nil {
		return fault.line
	}
	line := 1
	for _, step := range pathStep.FindAllStringSubmatch(path, -1) {
		var key *yaml.Node
		if key, node = follow(node, step); node == nil {
			break
		}
		line = key.Line
	}
	return line
}

// pathStep is one part of a path: a key, or an index in brackets.
var pathStep = regexp.MustCompile(`\[(\d+)\]|[^.\[\]]+`)

// follow takes one step from node and returns the value there, and its key (for an element, the element itself).
func follow(node *yaml.Node, step []string) (key, value *yaml.Node) {
	switch {
	case step[1] != "" && node.Kind == yaml.SequenceNode:
		i, err := strconv.Atoi(step[1])
		if err == nil && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
	case step[1] == "" && node.Kind == yaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			if node.Content[i].Value == step[0] {
				return node.Content[i], node.Content[i+1]
			}
		}
	}
	return nil, nil
}

// fault is an error with its place.
type fault struct {
	line int
	text string
}

func (f *fault) in(name string) error { return fmt.Errorf("%s:%d: %s", name, f.line, f.text) }

// at makes the fault of the value node, to which path leads.
func at(node *yaml.Node, path, format string, args ...any) *fault {
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + ": " + text
	}
	return &fault{max(node.Line, 1), text}
}

// yamlLine is how the YAML parser says where it stopped.
var yamlLine = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// parse reads the one document of text and refuses what is wrong whatever it is decoded into.
func parse(text []byte) (*yaml.Node, *fault) {
	if len(text) > maxSize {
		return nil, &fault{1, fmt.Sprintf("%d octets are too many: %d is the limit", len(text), maxSize)}
	}
	if f := checkText(text); f != nil {
		return nil, f
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, &fault{1, "the file is empty"}
	case err != nil:
		return nil, syntaxFault(err)
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, syntaxFault(err)
	default:
		return nil, at(&second, "", "a second document starts here: one file holds one")
	}
	if len(document.Content) != 1 || document.Content[0].ShortTag() == "!!null" {
		return nil, &fault{1, "the file is empty"}
	}
	if f := checkNode(document.Content[0], ""); f != nil {
		return nil, f
	}
	return document.Content[0], nil
}

func syntaxFault(err error) *fault {
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return &fault{1, err.Error()}
	}
	line, err := strconv.Atoi(m[1])
	if err != nil { // the parser named no line
		line = 1
	}
	if strings.HasPrefix(m[2], "unknown anchor") { // the only text of the parser that shows a value
		m[2] = "an alias (*) without an anchor: write the value out, or quote it"
	}
	return &fault{max(line, 1), m[2]}
}

// checkText refuses what the parser would report badly or not at all.
func checkText(text []byte) *fault {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if !utf8.Valid(line) {
			return &fault{i + 1, "not UTF-8"}
		}
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if bytes.ContainsRune(indent, '\t') {
			return &fault{i + 1, "a tab in the indentation: YAML wants spaces"}
		}
	}
	return nil
}

// checkNode refuses aliases, anchors, merges, tags and doubled keys in node and all below it.
func checkNode(node *yaml.Node, path string) *fault {
	switch {
	case node.Kind == yaml.AliasNode:
		return at(node, path, "an alias (*): write the value out, or quote it")
	case node.Anchor != "":
		return at(node, path, "an anchor (&): aliases are not read; quote a value that begins with &")
	case node.Style&yaml.TaggedStyle != 0:
		return at(node, path, "a tag (!): types come from the key, not from tags; quote a value that begins with !")
	}
	switch node.Kind {
	case yaml.SequenceNode:
		for i, element := range node.Content {
			if f := checkNode(element, fmt.Sprintf("%s[%d]", path, i)); f != nil {
				return f
			}
		}
	case yaml.MappingNode:
		return checkMapping(node, path)
	}
	return nil
}

func checkMapping(node *yaml.Node, path string) *fault {
	seen := make(map[string]int, len(node.Content)/2)
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if f := checkNode(key, path); f != nil {
			return f
		}
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null":
			return at(key, path, "a key that is not text")
		case key.ShortTag() == "!!merge":
			return at(key, path, "a merge (<<): write the values out")
		}
		if line, ok := seen[key.Value]; ok {
			return at(key, join(path, key.Value), "the key is there twice, first on line %d", line)
		}
		seen[key.Value] = key.Line
		if f := checkNode(value, join(path, key.Value)); f != nil {
			return f
		}
	}
	return nil
}

// join is the path to key. A key that does not look like one may be a value that slipped, and is not shown.
func join(path, key string) string {
	if !plainKey.MatchString(key) {
		key = "(a key that is not shown)"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
