package events

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Signs that a contract may expect of what a field does to the risk.
const (
	SignUp   = "+"
	SignDown = "-"
)

// CodeWithheld is the reason code of all sensitive fields together.
const CodeWithheld = "WITHHELD"

// Reasons is the table of texts for reason codes. It is versioned with the contract, and by a number of its own for whoever has to keep what was
// told to people when.
type Reasons struct {
	Version int                          `yaml:"version"`
	Texts   map[string]map[string]string `yaml:"texts"` // language (en, de, de-CH) -> code -> text
}

// Bounds of the table: it travels with the contract.
const (
	MaxReasonText = 300 // bytes
	MaxLanguages  = 40
	maxCode       = 32
)

var (
	codePattern     = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,31}$`)
	languagePattern = regexp.MustCompile(`^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$`)
)

// ReasonCode of a field: the contract's, or its name in capitals, of which all but letters and digits are underscores.
func ReasonCode(f Field) string {
	if f.Code != "" {
		return f.Code
	}
	code := strings.Map(func(r rune) rune {
		switch r = unicode.ToUpper(r); {
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, f.Name)
	if code == "" || code[0] < 'A' || code[0] > 'Z' {
		code = "F" + code
	}
	return code[:min(len(code), maxCode)]
}

// CheckReasonCode says why a text is no reason code.
func CheckReasonCode(code string) error {
	if !codePattern.MatchString(code) {
		return fmt.Errorf("reason code %q: want a capital, then up to 31 of A-Z, 0-9 and _", code)
	}
	return nil
}

// Text of a code in a language: of de-CH, or else of de. It is false if there is none.
func (r *Reasons) Text(language, code string) (string, bool) {
	if r == nil {
		return "", false
	}
	general, _, _ := strings.Cut(language, "-")
	for _, l := range []string{language, general} {
		if text, ok := r.Texts[l][code]; ok {
			return text, true
		}
	}
	return "", false
}

// Languages that there are texts in, ascending.
func (r *Reasons) Languages() []string {
	if r == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.Texts))
}

// checkReasons checks signs, codes and texts.
func (c *Contract) checkReasons() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("contract %s: "+format, append([]any{c.Kind}, a...)...))
	}
	owner := map[string]string{}
	for _, f := range c.Inputs() {
		switch {
		case f.Sign == "":
		case f.Sign != SignUp && f.Sign != SignDown:
			bad("field %s: sign %q: want + or -", f.Name, f.Sign)
		case f.Type != Number && f.Type != Money && f.Type != Bool:
			bad("field %s: sign %s: a %s is not more or less", f.Name, f.Sign, f.Type)
		}
		if f.Code == "" {
			continue
		}
		if err := CheckReasonCode(f.Code); err != nil {
			bad("field %s: %w", f.Name, err)
		}
		if f.Code == CodeWithheld {
			bad("field %s: code %s stands for sensitive fields", f.Name, f.Code)
		}
		if other := owner[f.Code]; other != "" {
			bad("fields %s and %s have the code %s: a reason must tell them apart", other, f.Name, f.Code)
		}
		owner[f.Code] = f.Name
	}
	r := c.Reasons
	if r == nil {
		return errors.Join(errs...)
	}
	if r.Version < 1 {
		bad("reasons: version %d: want 1 or more", r.Version)
	}
	if len(r.Texts) == 0 || len(r.Texts) > MaxLanguages {
		bad("reasons: texts in %d languages: want 1 to %d", len(r.Texts), MaxLanguages)
	}
	for _, language := range slices.Sorted(maps.Keys(r.Texts)) {
		if !languagePattern.MatchString(language) {
			bad("reasons: language %q: want one such as de or de-CH", language)
		}
		for _, code := range slices.Sorted(maps.Keys(r.Texts[language])) {
			if err := CheckReasonCode(code); err != nil {
				bad("reasons: %s: %w", language, err)
			}
			text := r.Texts[language][code]
			if text == "" || len(text) > MaxReasonText || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
				bad("reasons: %s: %s: want a line of 1 to %d bytes of UTF-8", language, code, MaxReasonText)
			}
		}
	}
	return errors.Join(errs...)
}

// diffReasons is the part of DiffContracts on signs and codes of memory features, and on texts.
func diffReasons(old, next Contract) []string {
	var out []string
	say := func(what, a, b string) {
		if a != b {
			out = append(out, fmt.Sprintf("%s: %s -> %s", what, quoted(a), quoted(b)))
		}
	}
	if old.Memory != nil && next.Memory != nil {
		before := map[string]MemoryFeature{}
		for _, f := range old.Memory.Features {
			before[f.Name] = f
		}
		for _, f := range next.Memory.Features {
			if o, ok := before[f.Name]; ok {
				say("memory feature "+f.Name+" sign", o.Sign, f.Sign)
				say("memory feature "+f.Name+" code", o.Code, f.Code)
			}
		}
	}
	var a, b Reasons
	if old.Reasons != nil {
		a = *old.Reasons
	}
	if next.Reasons != nil {
		b = *next.Reasons
	}
	say("reasons.version", fmt.Sprint(a.Version), fmt.Sprint(b.Version))
	languages := slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.Languages(), b.Languages()))))
	for _, l := range languages {
		codes := slices.Compact(slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Keys(a.Texts[l])), slices.Collect(maps.Keys(b.Texts[l]))))))
		for _, code := range codes {
			say("reasons."+l+"."+code, a.Texts[l][code], b.Texts[l][code])
		}
	}
	return out
}
