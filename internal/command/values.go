package command

import (
	"fmt"
	"strings"

	"github.com/choria-io/fisk"
)

// delimiterValue is one character, or a name for one that is hard to type.
type delimiterValue struct{ to *byte }

func (v *delimiterValue) String() string {
	if v.to == nil || *v.to == 0 {
		return ""
	}
	return string(rune(*v.to))
}

func (v *delimiterValue) Set(s string) error {
	switch s {
	case "tab", `\t`:
		s = "\t"
	case "comma":
		s = ","
	case "semicolon":
		s = ";"
	}
	if len(s) != 1 {
		return fmt.Errorf("%q: want one character, or tab, comma, semicolon", s)
	}
	*v.to = s[0]
	return nil
}

// listValue is a comma separated list.
type listValue []string

func (v *listValue) String() string { return strings.Join(*v, ",") }

func (v *listValue) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*v = append(*v, part)
		}
	}
	return nil
}

// IsCumulative lets the flag be given more than once.
func (v *listValue) IsCumulative() bool { return true }

// List is a flag's value: a comma separated list, added to.
func List(to *[]string) fisk.Value { return (*listValue)(to) }
