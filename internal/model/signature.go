package model

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"
)

// ErrUntrusted says that something is not what the holder of a trusted key signed: it has no signature, was altered since,
// or is signed by a key that is not, or no longer, trusted here.
var ErrUntrusted = errors.New("not signed by a trusted key")

// Signature of bytes by an nkey (Ed25519).
type Signature struct {
	Key string `json:"key"` // public, U...
	Sig string `json:"sig"` // base64
}

// Domains keep apart what is signed: a signature of one thing is none of another, though the bytes be the same. A new thing that is
// signed gets a domain of its own here.
const (
	DomainArtifact = "riskweir model artifact 1" // Artifact.Canonical
	DomainSnapshot = "riskweir model snapshot 1" // Snapshot.canonical
)

// inDomain is what is signed. No domain holds a zero byte, so that none is the beginning of another's message.
func inDomain(domain string, body []byte) []byte {
	return slices.Concat([]byte(domain), []byte{0}, body)
}

// Signer holds a private key. Neither it nor the seed is ever written out.
type Signer struct {
	pair   nkeys.KeyPair
	public string
}

// NewSigner reads a seed (SU...), with or without the decoration that the nk tool writes.
func NewSigner(seed []byte) (*Signer, error) {
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err != nil {
		return nil, errors.New("signing key: want the seed of an nkey, which begins with SU") // the error may quote the seed
	}
	public, err := pair.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, errors.New("signing key: want the seed of a user nkey, SU...: seeds of accounts and others are refused")
	}
	return &Signer{pair: pair, public: public}, nil
}

// ReadSigner reads the seed in a file, which others than its owner and group must not be able to read.
func ReadSigner(file string) (*Signer, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("signing key %s has mode %#o, so that anybody here can sign models: chmod 600 it, and make another key if somebody may have read it", file, info.Mode().Perm())
	}
	seed, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	defer clear(seed)
	s, err := NewSigner(seed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// CreateSigner makes a key and writes its seed to a file that is not there yet, for its owner only.
func CreateSigner(file string) (*Signer, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	defer clear(seed)
	s, err := NewSigner(seed)
	if err != nil {
		return nil, err
	}
	// Written beside and linked, so that half a key is never there, and none that is there is lost.
	beside, err := os.CreateTemp(filepath.Dir(file), ".signing-key-*") // 0600
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	line := append(slices.Clone(seed), '\n')
	defer clear(line)
	_, err = beside.Write(line)
	if err = errors.Join(err, beside.Sync(), beside.Close()); err == nil {
		err = os.Link(beside.Name(), file)
	}
	err = errors.Join(err, os.Remove(beside.Name()))
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("signing key %s is there already, and is not written over: a key that is lost signs no more", file)
	}
	if err != nil {
		return nil, fmt.Errorf("write signing key %s: %w", file, err)
	}
	return s, nil
}

// Public key, U..., by which its signatures are verified.
func (s *Signer) Public() string { return s.public }

// String keeps the seed out of whatever prints a Signer.
func (s *Signer) String() string   { return "signer " + s.public }
func (s *Signer) GoString() string { return s.String() }

// Sign signs bytes in a domain.
func (s *Signer) Sign(domain string, body []byte) (Signature, error) {
	sig, err := s.pair.Sign(inDomain(domain, body))
	if err != nil {
		return Signature{}, fmt.Errorf("sign: %w", err)
	}
	return Signature{Key: s.public, Sig: base64.StdEncoding.EncodeToString(sig)}, nil
}

// Trust is the set of public keys whose signatures count. A nil Trust looks at no signature.
type Trust struct {
	keys map[string]nkeys.KeyPair // by public key; verifies only
}

// NewTrust pins public keys (U...). It refuses an empty set: that would trust nobody, or, mistaken for nil, anybody.
func NewTrust(keys ...string) (*Trust, error) {
	t := &Trust{keys: map[string]nkeys.KeyPair{}}
	for _, key := range keys {
		if strings.HasPrefix(key, "S") {
			return nil, errors.New("trusted key: this looks like a seed, which is secret: want the public key, which begins with U")
		}
		pair, err := nkeys.FromPublicKey(key)
		if err != nil || !nkeys.IsValidPublicUserKey(key) {
			return nil, fmt.Errorf("trusted key %q: want the public key of a user nkey, which begins with U", key)
		}
		t.keys[key] = pair
	}
	if len(t.keys) == 0 {
		return nil, errors.New("trusted keys: none is given")
	}
	return t, nil
}

// ReadTrust pins what is given: public keys, and files of them, one a line, in which # begins a comment.
func ReadTrust(from ...string) (*Trust, error) {
	var keys []string
	for _, x := range from {
		if nkeys.IsValidPublicUserKey(x) {
			keys = append(keys, x)
			continue
		}
		if strings.HasPrefix(x, "SU") && !strings.ContainsAny(x, "/\\.") {
			return nil, errors.New("trusted key: this looks like a seed, which is secret: want the public key, U..., or a file of them")
		}
		text, err := os.ReadFile(x)
		if err != nil {
			return nil, fmt.Errorf("trusted key %q is neither a public key, U..., nor a file of them: %w", x, err)
		}
		n := len(keys)
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			line, _, _ := strings.Cut(lines.Text(), "#")
			if line = strings.TrimSpace(line); line != "" {
				keys = append(keys, line)
			}
		}
		if _, err := NewTrust(keys[n:]...); err != nil {
			return nil, fmt.Errorf("%s: %w", x, err)
		}
	}
	return NewTrust(keys...)
}

// With also trusts a signer's own key.
func (t *Trust) With(s *Signer) (*Trust, error) {
	keys := []string{s.public}
	if t != nil {
		keys = append(keys, t.Keys()...)
	}
	return NewTrust(keys...)
}

// Keys that are trusted, ascending.
func (t *Trust) Keys() []string {
	if t == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.keys))
}

// Verify returns an ErrUntrusted, which says why, unless sig is the signature of body in the domain by a trusted key.
func (t *Trust) Verify(domain string, body []byte, sig *Signature) error {
	if t == nil {
		return nil
	}
	if sig == nil {
		return fmt.Errorf("%w: it has no signature", ErrUntrusted)
	}
	pair, ok := t.keys[sig.Key]
	if !ok {
		return fmt.Errorf("%w: it says that %q signed it, which is none of the %d trusted here", ErrUntrusted, sig.Key, len(t.keys))
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(sig.Sig)
	if err == nil {
		err = pair.Verify(inDomain(domain, body), raw)
	}
	if err != nil {
		return fmt.Errorf("%w: the signature of %s is not of this content: it was altered since", ErrUntrusted, sig.Key)
	}
	return nil
}

// Sign puts the signature of the content in its place. Encode does not change what is signed.
func (a *Artifact) Sign(s *Signer) error {
	body, err := a.Canonical()
	if err != nil {
		return fmt.Errorf("model %s: %w", a.Name(), err)
	}
	sig, err := s.Sign(DomainArtifact, body)
	if err != nil {
		return fmt.Errorf("model %s: %w", a.Name(), err)
	}
	a.Signature = &sig
	return nil
}

// Verify is nil if a trusted key signed the content as it is.
func (a *Artifact) Verify(t *Trust) error {
	if t == nil {
		return nil
	}
	body, err := a.Canonical()
	if err != nil {
		return err
	}
	return t.Verify(DomainArtifact, body, a.Signature)
}
