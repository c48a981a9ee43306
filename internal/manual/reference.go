package manual

import (
	"cmp"
	"fmt"
	"strings"
)

// Reference is docs/reference.md of the documents.
func Reference(list []Document) string {
	var b strings.Builder
	b.WriteString(`# Reference of every key

<!-- Made by "make docs" from the comments in the code: change those, not this page. A test compares the two. -->

Every file that people write and a program reads, key by key. All are strict YAML: an unknown or doubled key, an alias, a
tag, a value of the wrong kind or a key without a value is an error with file, line and, where one is near, the key that was
meant. ` + "`a.b` is the key `b` below `a`, `a[].b` the key `b` of each element of the list `a`" + `. What has nothing in the last
column may be left out: then there is none. A row of type keys is a group; the rows below it say what it needs.

| type | how it is written |
|---|---|
| duration | ` + "`12h`, `90m`, `1h30m`, `30s`, `250ms`" + ` |
| number | decimal, whole |
| OID | dotted: ` + "`0.4.0.2023.1.1`" + ` |
| URI of a key | ` + "`pkcs11:token=NAME;object=NAME?module-path=/PATH/MODULE.so&pin-source=file:/PATH`" + ` (RFC 7512), or ` + "`softtoken:object=NAME?dir=/PATH&pin-source=file:/PATH`" + `; a PIN file has mode 0600. Other sources of the PIN: [tokens.md](tokens.md#pins-and-activation) |
| presence | ` + "`required`, `offered` or `absent`" + ` |

`)
	for _, d := range list {
		fmt.Fprintf(&b, "- [%s](#%s)\n", d.Name, anchor(d.Name))
	}
	for _, d := range list {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | type | what it means | if left out |\n|---|---|---|---|\n", d.Name, d.Intro)
		for _, k := range d.Keys {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Path, cmp.Or(k.Type, "keys"), cell(k.Text), k.absent())
		}
	}
	return b.String()
}

// absent is the last column.
func (k Key) absent() string {
	value, isDefault := k.Default()
	switch {
	case isDefault:
		return "`" + value + "`"
	case k.Absent == "Optional" || k.Absent == "":
		return ""
	}
	return cell(strings.ToLower(k.Absent[:1]) + k.Absent[1:])
}

// cell keeps a text from ending its table cell.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// anchor is how GitHub, and most others, name a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(heading), ".", ""), " ", "-")
}
