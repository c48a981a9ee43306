package strictyaml

import (
	"encoding"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decode puts node into target, which is settable. path leads to node.
func decode(node *yaml.Node, target reflect.Value, path string) *fault {
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		if target.Kind() == reflect.Pointer && target.Type().Elem().Kind() == reflect.Struct {
			target.SetZero() // "device:" with nothing below it says that there is none
			return nil
		}
		return at(node, path, "no value: write one, or leave the key out")
	}
	if target.Kind() == reflect.Pointer {
		fresh := reflect.New(target.Type().Elem())
		if f := decode(node, fresh.Elem(), path); f != nil {
			return f
		}
		target.Set(fresh)
		return nil
	}
	switch p := target.Addr().Interface().(type) {
	case *time.Time:
		return decodeTime(node, p, path)
	case *time.Duration:
		return decodeDuration(node, p, path)
	case encoding.TextUnmarshaler:
		return decodeText(node, p, path)
	}
	switch target.Kind() {
	case reflect.Struct:
		return decodeStruct(node, target, path)
	case reflect.Map:
		return decodeMap(node, target, path)
	case reflect.Slice:
		return decodeSlice(node, target, path)
	}
	return decodeScalar(node, target, path)
}

func decodeStruct(node *yaml.Node, target reflect.Value, path string) *fault {
	if node.Kind != yaml.MappingNode {
		return at(node, path, "%s where keys with values belong", kindName(node))
	}
	fields := make(map[string][]int)
	var names []string
	collect(target.Type(), nil, fields, &names)
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		index, ok := fields[key.Value]
		if !ok {
			return at(key, join(path, key.Value), "unknown key%s", hint(key.Value, names))
		}
		if f := decode(value, target.FieldByIndex(index), join(path, key.Value)); f != nil {
			return f
		}
	}
	return nil
}

// collect finds the keys of struct type t: in fields the way to the field, in names the keys in their order.
// Of two fields with one key the outer counts, as in Go.
func collect(t reflect.Type, way []int, fields map[string][]int, names *[]string) {
	var lenders []reflect.StructField
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !field.IsExported():
			continue
		case field.Type.Kind() == reflect.Struct && (options == "inline" || field.Anonymous && name == ""):
			lenders = append(lenders, field)
			continue
		case name == "":
			name = strings.ToLower(field.Name)
		}
		if _, taken := fields[name]; !taken {
			fields[name] = append(append([]int(nil), way...), i)
			*names = append(*names, name)
		}
	}
	for _, lender := range lenders {
		collect(lender.Type, append(append([]int(nil), way...), lender.Index...), fields, names)
	}
}

func decodeMap(node *yaml.Node, target reflect.Value, path string) *fault {
	if node.Kind != yaml.MappingNode {
		return at(node, path, "%s where keys with values belong", kindName(node))
	}
	t := target.Type()
	if t.Key().Kind() != reflect.String {
		return at(node, path, "cannot decode into %s: map keys are text", t)
	}
	fresh := reflect.MakeMapWithSize(t, len(node.Content)/2)
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i].Value
		value := reflect.New(t.Elem()).Elem()
		if f := decode(node.Content[i+1], value, join(path, key)); f != nil {
			return f
		}
		fresh.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), value)
	}
	target.Set(fresh)
	return nil
}

func decodeSlice(node *yaml.Node, target reflect.Value, path string) *fault {
	if node.Kind != yaml.SequenceNode {
		return at(node, path, "%s where a list belongs", kindName(node))
	}
	fresh := reflect.MakeSlice(target.Type(), len(node.Content), len(node.Content))
	for i, element := range node.Content {
		if f := decode(element, fresh.Index(i), path+"["+strconv.Itoa(i)+"]"); f != nil {
			return f
		}
	}
	target.Set(fresh)
	return nil
}

func decodeText(node *yaml.Node, target encoding.TextUnmarshaler, path string) *fault {
	if node.Kind != yaml.ScalarNode {
		return at(node, path, "%s where one value belongs", kindName(node))
	}
	if err := target.UnmarshalText([]byte(node.Value)); err != nil {
		return at(node, path, "%v", err)
	}
	return nil
}

func decodeDuration(node *yaml.Node, target *time.Duration, path string) *fault {
	const want = `where a duration like "1h30m" belongs (units: h, m, s, ms)`
	if node.Kind != yaml.ScalarNode {
		return at(node, path, "%s %s", kindName(node), want)
	}
	d, err := time.ParseDuration(node.Value)
	if err != nil {
		return at(node, path, "%s %s", kindName(node), want)
	}
	*target = d
	return nil
}

func decodeTime(node *yaml.Node, target *time.Time, path string) *fault {
	const want = "where a date (2026-11-30) or a time (2026-11-30T12:00:00Z) belongs"
	if node.Kind != yaml.ScalarNode {
		return at(node, path, "%s %s", kindName(node), want)
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339Nano} {
		if t, err := time.Parse(layout, node.Value); err == nil {
			*target = t.UTC()
			return nil
		}
	}
	return at(node, path, "%s %s", kindName(node), want)
}

func decodeScalar(node *yaml.Node, target reflect.Value, path string) *fault {
	if node.Kind != yaml.ScalarNode {
		return at(node, path, "%s where one value belongs", kindName(node))
	}
	tag := node.ShortTag()
	switch {
	case target.Kind() == reflect.String:
		if tag == "!!bool" {
			return at(node, path, "a boolean where text belongs: quote it if you mean the word")
		}
		target.SetString(node.Value)
	case target.Kind() == reflect.Bool:
		if tag != "!!bool" || node.Value != "true" && node.Value != "false" {
			return at(node, path, "%s where true or false, in lower case, belongs", kindName(node))
		}
		target.SetBool(node.Value == "true")
	case target.CanInt():
		n, err := strconv.ParseInt(node.Value, 10, target.Type().Bits())
		if tag != "!!int" || err != nil {
			return at(node, path, "%s where a whole number of %d bits belongs, in decimal", kindName(node), target.Type().Bits())
		}
		target.SetInt(n)
	case target.CanUint():
		n, err := strconv.ParseUint(node.Value, 10, target.Type().Bits())
		if tag != "!!int" || err != nil {
			return at(node, path, "%s where a whole number from 0 to 2^%d-1 belongs, in decimal", kindName(node), target.Type().Bits())
		}
		target.SetUint(n)
	case target.CanFloat():
		x, err := strconv.ParseFloat(node.Value, target.Type().Bits())
		if tag != "!!int" && tag != "!!float" || err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return at(node, path, "%s where a number belongs", kindName(node))
		}
		target.SetFloat(x)
	default:
		return at(node, path, "cannot decode into %s", target.Type())
	}
	return nil
}

// kindName says to people what node is, and never what it says: a value may be a PIN, or stand where one belongs.
func kindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	switch node.ShortTag() {
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "text"
}
