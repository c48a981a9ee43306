// Package manual writes docs/reference.md from the code, and holds the other pages against it.
//
// The reference of configuration keys is made of the structs that the programs read: a key is a field with a yaml
// tag, and the field's comment is what the page says of it. The last sentence of that comment says what holds where the
// key is left out: "Required.", "Required with ….", "Optional." or "Default VALUE.".
package manual

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/archtest"
)

// Document is one kind of file that people write and a program reads strictly.
type Document struct {
	Name  string // heading of its section: "ca.yaml"
	Intro string // what it is, one paragraph
	dir   string // package that has the struct, relative to the module
	typ   string // name of the struct

	lenient bool              // no key has to be there
	except  map[string]string // what the last column says of keys whose struct is shared, by path
	Keys    []Key             // in the order of the struct; set by Read
}

// Key is one key of a Document.
type Key struct {
	Path    string // admin.listen; officers[].roles for a key of each element of a list
	Type    string // for people
	Text    string // what it means, without the last sentence of the comment
	Absent  string // the last sentence, without its full stop; "" for a group
	Group   bool   // it has keys below it and no value of its own
	Options bool   // a group that may be left out as a whole
}

// Required reports whether a file without the key is refused whatever else it says.
func (k Key) Required() bool { return k.Absent == "Required" }

// Default is the value that stands for a key that is left out, as the file would write it.
func (k Key) Default() (value string, ok bool) { return strings.CutPrefix(k.Absent, "Default ") }

// documents are all files that people write.
func documents() []Document {
	return []Document{
		{Name: "ca.yaml", dir: "cmd/zegel-ca", typ: "config", Intro: "Read by `zegel-ca --config FILE`. [ca.md](ca.md) says what the daemon does with it."},
		{Name: "ocsp.yaml", dir: "cmd/zegel-ocsp", typ: "config", Intro: "Read by `zegel-ocsp --config FILE`. [ocsp.md](ocsp.md) says what the daemon does with it."},
		{Name: "tsa.yaml", dir: "cmd/zegel-tsa", typ: "config", Intro: "Read by `zegel-tsa --config FILE`. [tsa.md](tsa.md) says what the daemon does with it.",
			except: map[string]string{"https.client_ca": "to be left out"}},
		{Name: "zegel.yaml", dir: "cmd/zegel", typ: "config", lenient: true,
			Intro: "Read by `zegel`: `--config FILE`, else `$ZEGEL_CONFIG`, else `/etc/zegel/zegel.yaml`. No key has to be there: a command that needs one says so. [zegel.md](zegel.md) has the commands."},
		{Name: "Ceremony script", dir: "cmd/zegel-ceremony", typ: "script", except: map[string]string{"keys.management.algorithm": "Default p256"}, Intro: "Read by `zegel-ceremony run SCRIPT`. [ceremony.md](ceremony.md) says what happens; `testdata/ceremony/example.yaml` is a whole one."},
		{Name: "Subject file", dir: "policy", typ: "subjectFile", Intro: "Read by `zegel issue --subject FILE`. `testdata/request` has one for each profile that takes one. What is required depends on the profile; what a rule forbids is refused with its clause and exit status 3."},
		{Name: "Profile", dir: "policy", typ: "profileText", Intro: "The built-in profiles, which `zegel profile show NAME` prints, and nothing else yet: a profile is part of the binary. A presence word is `required` (a certificate without it is refused), `offered` (it is there where the issuer or the request has one) or `absent` (a certificate with it is refused)."},
	}
}

// types says what people read for the types of values.
func types() map[string]string {
	return map[string]string{
		"string": "text", "bool": "true or false", "int": "number", "int64": "number", "uint8": "number", "time.Duration": "duration",
		"map[string]string": "names and values", "[]string": "list", "entry": "text", "day": "date", "sha256Hex": "64 hex digits",
		"proofingMethod": "word", "presence": "presence", "keyUsageType": "word", "subjectKind": "natural, legal, ca, tsu or ocsp",
		"identifierTypes": "pinned or newest", "[]oidText": "list of OIDs",
		"der.Scheme": "pkcs1v15 or pss",
	}
}

// Read reads every document's keys from the source below root. A key without a comment, or without a last
// sentence that says what holds where it is left out, is an error.
func Read(root string) ([]Document, error) {
	files, err := archtest.Load(root)
	if err != nil {
		return nil, err
	}
	r := reader{structs: make(map[string]*ast.StructType), imports: make(map[*ast.StructType]map[string]string)}
	for _, f := range files {
		if !strings.HasSuffix(f.Name, "_test.go") {
			r.add(f)
		}
	}
	list := documents()
	for i := range list {
		d := &list[i]
		s := r.structs[d.dir+"."+d.typ]
		if s == nil {
			return nil, fmt.Errorf("read keys of %s: no struct %s in %s", d.Name, d.typ, d.dir)
		}
		if err := r.read(d, scope{s, d.dir, r.imports[s]}, "", ""); err != nil {
			return nil, fmt.Errorf("read keys of %s: %w", d.Name, err)
		}
		for path := range d.except {
			if _, ok := d.Key(path); !ok {
				return nil, fmt.Errorf("read keys of %s: no key %s, of which an exception speaks", d.Name, path)
			}
		}
	}
	return list, nil
}

// Key finds a key by its path.
func (d *Document) Key(path string) (Key, bool) {
	for _, k := range d.Keys {
		if k.Path == path {
			return k, true
		}
	}
	return Key{}, false
}

// reader has every struct of the tree by "dir.Name", and the imports of the file it stands in.
type reader struct {
	structs map[string]*ast.StructType
	imports map[*ast.StructType]map[string]string
}

// scope is a struct, and where the names in it are to be looked up.
type scope struct {
	*ast.StructType
	dir     string
	imports map[string]string // folder of ours by the name it has in the file
}

func (r *reader) add(f *archtest.File) {
	imports := make(map[string]string)
	for _, p := range f.Imports() {
		imports[p[strings.LastIndex(p, "/")+1:]] = p
	}
	for _, d := range f.AST.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			t, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if st, ok := t.Type.(*ast.StructType); ok {
				r.structs[f.Dir+"."+t.Name.Name] = st
				r.imports[st] = imports
			}
		}
	}
}

var yamlTag = regexp.MustCompile(`yaml:"([^",]*)(,inline)?(?:,omitempty)?"`)

// read appends the keys of s to d. optional is the group above that may be left out as a whole, or "".
func (r *reader) read(d *Document, s scope, prefix, optional string) error {
	for _, field := range s.Fields.List {
		if field.Tag == nil {
			continue
		}
		tag := yamlTag.FindStringSubmatch(field.Tag.Value)
		if tag == nil || tag[1] == "-" {
			continue
		}
		if err := r.readField(d, s, field, at{prefix, tag[1], tag[2] != "", optional}); err != nil {
			return err
		}
	}
	return nil
}

// at is where a field stands.
type at struct {
	prefix, key string
	inline      bool
	optional    string
}

func (r *reader) readField(d *Document, s scope, field *ast.Field, at at) error {
	t, list := field.Type, false
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if array, ok := t.(*ast.ArrayType); ok && r.resolve(s, array.Elt).StructType != nil {
		t, list = array.Elt, true
	}
	below := r.resolve(s, t)
	if at.inline {
		if below.StructType == nil {
			return fmt.Errorf("%s: inline, and no struct", typeName(t))
		}
		return r.read(d, below, at.prefix, at.optional)
	}
	k := Key{Path: at.prefix + at.key, Group: below.StructType != nil}
	text := comment(field)
	if k.Text, k.Absent = split(text); k.Text == "" || k.Absent == "" && !k.Group {
		return fmt.Errorf("%s: its comment %q says not what it means and then Required, Optional or Default VALUE", k.Path, text)
	}
	k.Options = k.Group && k.Absent != "" && !k.Required()
	switch words, known := types()[typeName(t)]; {
	case list:
		k.Type = "list"
	case k.Group:
	case known:
		k.Type = words
	default:
		return fmt.Errorf("%s: type %s has no name for people: give it one in types", k.Path, typeName(t))
	}
	switch said, exception := d.except[k.Path]; {
	case exception:
		k.Absent = said
	case d.lenient:
		k.Absent = "Optional"
	case at.optional != "" && k.Required():
		k.Absent = "Required with " + at.optional
	}
	d.Keys = append(d.Keys, k)
	if below.StructType == nil {
		return nil
	}
	if k.Options && !list {
		at.optional = k.Path
	}
	prefix := k.Path + "."
	if list {
		prefix = k.Path + "[]."
	}
	return r.read(d, below, prefix, at.optional)
}

// resolve finds the struct that t names in s; its StructType is nil where t is none.
func (r *reader) resolve(s scope, t ast.Expr) scope {
	switch t := t.(type) {
	case *ast.StructType:
		return scope{t, s.dir, s.imports}
	case *ast.Ident:
		st := r.structs[s.dir+"."+t.Name]
		return scope{st, s.dir, r.imports[st]}
	case *ast.SelectorExpr:
		if x, ok := t.X.(*ast.Ident); ok {
			dir := s.imports[x.Name]
			st := r.structs[dir+"."+t.Sel.Name]
			return scope{st, dir, r.imports[st]}
		}
	}
	return scope{}
}

func typeName(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.SelectorExpr:
		return typeName(t.X) + "." + t.Sel.Name
	case *ast.ArrayType:
		return "[]" + typeName(t.Elt)
	case *ast.MapType:
		return "map[" + typeName(t.Key) + "]" + typeName(t.Value)
	case *ast.StarExpr:
		return typeName(t.X)
	}
	return fmt.Sprintf("%T", t)
}

// comment is all that is said of a field, on one line.
func comment(f *ast.Field) string {
	return strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
}

// lastSentence is how a comment says what holds where the key is left out.
var lastSentence = regexp.MustCompile(`^(?:(.*[.!?:]) )?((?:Required|Optional|Default ).*?)\.$`)

// split cuts the last sentence off, where it is one of those that the page has a column for.
func split(text string) (meaning, absent string) {
	m := lastSentence.FindStringSubmatch(text)
	if m == nil {
		return text, ""
	}
	return m[1], m[2]
}

// WrongDefaults compares the defaults that the reference states for a document with those that the code applies,
// by path; root is the module's folder. Tests call it. Whatever one side has and the other has not, or has otherwise, is a fault. What is
// below tokens is package hsm's to apply: WrongTokenDefaults.
func WrongDefaults(root, document string, applied map[string]any) (faults []string) {
	return wrongDefaults(root, document, applied, func(path string) bool { return !strings.HasPrefix(path, belowTokens) })
}

// WrongTokenDefaults is WrongDefaults of the section tokens, which all daemons and the ceremony share.
func WrongTokenDefaults(root string, applied map[string]any) (faults []string) {
	return wrongDefaults(root, "ca.yaml", applied, func(path string) bool { return strings.HasPrefix(path, belowTokens) })
}

// belowTokens begins the paths of daemon.TokenSettings.
const belowTokens = "tokens."

func wrongDefaults(root, document string, applied map[string]any, judged func(path string) bool) (faults []string) {
	list, err := Read(root)
	if err != nil {
		return []string{err.Error()}
	}
	i := slices.IndexFunc(list, func(d Document) bool { return d.Name == document })
	if i < 0 {
		return []string{"no document " + document}
	}
	for _, k := range list[i].Keys {
		if !judged(k.Path) {
			continue
		}
		stated, ok := k.Default()
		value, given := applied[k.Path]
		switch {
		case ok != given:
			faults = append(faults, fmt.Sprintf("%s %s: stated %q, applied %v", document, k.Path, stated, value))
		case given && !same(stated, value):
			faults = append(faults, fmt.Sprintf("%s %s: stated %q, applied %v", document, k.Path, stated, value))
		}
		delete(applied, k.Path)
	}
	for path := range applied {
		faults = append(faults, fmt.Sprintf("%s %s: no such key", document, path))
	}
	return faults
}

// same reports whether text, as a file has it, is value.
func same(text string, value any) bool {
	if d, ok := value.(time.Duration); ok {
		stated, err := time.ParseDuration(text)
		return err == nil && stated == d
	}
	return text == fmt.Sprint(value)
}
