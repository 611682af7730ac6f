// Package access says who may do what over HTTP: callers, each known by a token or by a client certificate, in the bucket CALLERS.
// Of a token only a hash is kept anywhere.
package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// What a caller may do.
const (
	Publish = "publish" // POST /v1/events
	Label   = "label"   // POST /v1/labels
	Score   = "score"   // POST /v1/score
)

// Every action there is, in the order in which they are shown.
var everything = []string{Publish, Label, Score}

// AnyKind stands for all kinds, those to come too.
const AnyKind = "*"

// Caller is a value of CALLERS, under its name.
//
//	live: revoked is zero, and (sha256 = "") ≠ (certificate = "")
type Caller struct {
	Name        string    `json:"name"`
	May         []string  `json:"may"`
	Kinds       []string  `json:"kinds"`                 // or AnyKind alone
	SHA256      string    `json:"sha256,omitempty"`      // of the token, in hex
	Certificate string    `json:"certificate,omitempty"` // common name of the client certificate
	Rate        float64   `json:"rate,omitempty"`        // events and labels a second; 0: what ingest was started with
	Created     time.Time `json:"created"`
	By          string    `json:"by"`
	Expires     time.Time `json:"expires,omitzero"` // from then on it is nobody
	Revoked     time.Time `json:"revoked,omitzero"`
}

// ErrCaller is of a caller that cannot be.
var ErrCaller = errors.New("caller")

var callerName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// maxRate is beyond what a process takes.
const maxRate = 1e6

// Validate says what is wrong with the caller.
func (c *Caller) Validate() error {
	wrong := func(format string, a ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrCaller}, a...)...)
	}
	switch {
	case !callerName.MatchString(c.Name):
		return wrong("name %q: want a lower-case letter, then up to 31 of a-z, 0-9, _ and -", clip(c.Name))
	case !c.Revoked.IsZero():
		return nil // what it was does not matter any more
	case len(c.May) == 0:
		return wrong("%s may do nothing: want some of %s", c.Name, strings.Join(everything, ", "))
	case len(c.Kinds) == 0:
		return wrong("%s has no kind: name them, or %s for all", c.Name, AnyKind)
	case len(c.Kinds) > 1 && slices.Contains(c.Kinds, AnyKind):
		return wrong("%s: %s is all kinds, and stands alone", c.Name, AnyKind)
	case (c.SHA256 == "") == (c.Certificate == ""):
		return wrong("%s is known by a token or by a certificate, one of them", c.Name)
	case len(c.Certificate) > maxCertificateName || strings.ContainsFunc(c.Certificate, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return wrong("%s: a certificate's name of at most %d printable bytes is wanted", c.Name, maxCertificateName)
	case !(c.Rate >= 0 && c.Rate <= maxRate) || math.IsNaN(c.Rate):
		return wrong("%s: rate %v: want 0 to %v a second", c.Name, c.Rate, maxRate)
	}
	if c.SHA256 != "" {
		if sum, err := hex.DecodeString(c.SHA256); err != nil || len(sum) != sha256.Size {
			return wrong("%s: its hash is none of SHA-256", c.Name)
		}
	}
	for i, x := range c.May {
		if !slices.Contains(everything, x) || slices.Contains(c.May[:i], x) {
			return wrong("%s may %q: want each of %s at most once", c.Name, clip(x), strings.Join(everything, ", "))
		}
	}
	for _, k := range c.Kinds {
		if k == AnyKind {
			continue
		}
		if err := events.CheckKind(k); err != nil {
			return wrong("%s: %w", c.Name, err)
		}
	}
	return nil
}

const maxCertificateName = 256

// Allows says whether the caller may do what with a kind.
func (c *Caller) Allows(what, kind string) bool {
	return slices.Contains(c.May, what) && (slices.Contains(c.Kinds, kind) || slices.Contains(c.Kinds, AnyKind))
}

// live says whether it is anybody now.
func (c *Caller) live(now time.Time) bool {
	return c.Revoked.IsZero() && (c.Expires.IsZero() || now.Before(c.Expires))
}

// State is what people call it.
func (c *Caller) State(now time.Time) string {
	switch {
	case !c.Revoked.IsZero():
		return "revoked"
	case !c.live(now):
		return "expired"
	}
	return "live"
}

// Decode refuses unknown members, text behind the end and a caller that cannot be.
func Decode(body []byte) (Caller, error) {
	var c Caller
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrCaller, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Caller{}, fmt.Errorf("%w: text behind its end", ErrCaller)
	}
	if err := c.Validate(); err != nil {
		return Caller{}, err
	}
	return c, nil
}

// A token is riskweir.<name>.<secret>, so that whoever finds one lying about knows what it is, and a scanner for secrets does too.
// The secret has 256 random bits: no search will find it from its hash, so that the hash need not be a slow one.
const (
	tokenPrefix = "riskweir."
	secretBytes = 32
	maxToken    = 128
)

var secretText = base64.RawURLEncoding

// NewToken makes one for the caller of that name.
func NewToken(name string) string {
	secret := make([]byte, secretBytes)
	rand.Read(secret) //nolint:errcheck // it never fails
	return tokenPrefix + name + "." + secretText.EncodeToString(secret)
}

// HashOf is what is kept of a token.
func HashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// nameIn returns whose token it says that it is. That is no secret.
func nameIn(token string) (string, bool) {
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || len(token) > maxToken {
		return "", false
	}
	name, secret, ok := strings.Cut(rest, ".")
	if !ok || !callerName.MatchString(name) || len(secret) != secretText.EncodedLen(secretBytes) {
		return "", false
	}
	return name, true
}

// same compares a token with a kept hash in a time that depends on neither.
func same(token, hash string) bool {
	sum := sha256.Sum256([]byte(token))
	kept, err := hex.DecodeString(hash)
	return subtle.ConstantTimeCompare(sum[:], kept) == 1 && err == nil
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}
