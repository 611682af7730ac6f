package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Names of the files that 'up' keeps beside the seeds of its users.
const (
	signingFile = "models.nk"
	trustFile   = "models.pub"
)

func (l *layout) signingKey() string { return filepath.Join(l.dir, "keys", signingFile) }
func (l *layout) trustKey() string   { return filepath.Join(l.dir, "keys", trustFile) }

// signed are the flags of a service that has to do with models.
func (l *layout) signed(role string) []string {
	switch role {
	case topology.RoleScorer:
		return []string{"--trust-key", l.trustKey()}
	case topology.RoleTrainer:
		return []string{"--trust-key", l.trustKey(), "--signing-key", l.signingKey()}
	}
	return nil
}

// keysBeside takes, for what was not given, the files that lie beside the seed that the connection is made with: 'up' puts them there.
func keysBeside(k *command.Keys, c service.Connection) {
	seed := seedOf(c)
	if seed == "" {
		return
	}
	there := func(name string) string {
		file := filepath.Join(filepath.Dir(seed), name)
		if _, err := os.Stat(file); err != nil {
			return ""
		}
		return file
	}
	k.Default(there(signingFile), there(trustFile))
}

// seedOf is the file of the seed that a connection is made with; empty: none, or it cannot be told.
func seedOf(c service.Connection) string {
	if c.NKey != "" || c.Context == "" {
		return c.NKey
	}
	dir, err := contextDir()
	if err != nil {
		return ""
	}
	var settings struct {
		NKey string `json:"nkey"`
	}
	text, err := os.ReadFile(filepath.Join(dir, c.Context+".json"))
	if err != nil || json.Unmarshal(text, &settings) != nil {
		return "" // connecting says what is wrong with it
	}
	return settings.NKey
}

// sign makes the key that signs models, at the first start. A data directory from before there were signatures
// has models without: this user made them, so they are signed, once, and whoever writes others later is not trusted.
// The file of trusted keys comes last: who dies before it signs them again, which changes nothing.
func (u *upRun) sign(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(u.layout.signingKey()), 0o700); err != nil {
		return err
	}
	signer, err := model.ReadSigner(u.layout.signingKey())
	if errors.Is(err, fs.ErrNotExist) {
		signer, err = model.CreateSigner(u.layout.signingKey())
	}
	if err != nil {
		return err
	}
	_, err = os.Stat(u.layout.trustKey())
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	kv, err := u.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	registry := model.NewRegistry(kv).Keyed(signer, nil)
	kinds, err := topology.Kinds(ctx, u.js)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		versions, err := registry.List(ctx, k.Contract.Kind)
		if err != nil {
			return err
		}
		n := 0
		for _, v := range versions {
			changed, err := registry.Resign(ctx, k.Contract.Kind, v.Version)
			switch {
			case errors.Is(err, model.ErrArtifact) || errors.Is(err, model.ErrNoVersion): // scorers would not serve it before either
				continue
			case err != nil:
				return err
			case changed:
				n++
			}
		}
		if n > 0 {
			fmt.Fprintf(u.status, "note: %d version(s) of %s were made before models were signed, and have been signed now\n", n, k.Contract.Kind)
		}
	}
	return writeFile(u.layout.trustKey(), "# Public keys whose models are served, one a line. 'riskweir model key FILE' makes another.\n"+signer.Public()+"\n")
}

const modelKeyHelp = `Print the public key of a signing key; make the key first if the file is not there.

The file holds the seed: who has it can sign models. Give it to trainers (--signing-key), and the public key to scorers (--trust-key).

Example: riskweir model key /etc/riskweir/models.nk`

func (a *app) modelKey(file string) error {
	signer, err := model.ReadSigner(file)
	if errors.Is(err, fs.ErrNotExist) {
		if signer, err = model.CreateSigner(file); err == nil {
			fmt.Fprintf(a.err, "made %s: keep it secret, and a copy of it in a safe place\n", file)
		}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, signer.Public())
	return err
}

const modelSignHelp = `Sign versions that are there already: with no signature, or with that of another trusted key.

Only the signature changes. Whoever signs a version vouches for it: look at it first ('riskweir model show'). One that is signed by a key
that is not trusted is refused.

Exit status: 0 each is signed by the key, 1 some could not be, 2 nothing was done.

Examples:

  riskweir model sign payment v3 --signing-key models.nk
  riskweir model sign payment --all --signing-key new.nk --trust-key UOLD...   # after a change of keys`

func (a *app) modelSign(ctx context.Context, f *modelFlags, r registered, on *audit.Entry) error {
	signer, trust, err := f.keys.Signer()
	if err != nil {
		return err
	}
	if signer == nil {
		return errors.New("--signing-key FILE says with what")
	}
	registry := r.registry.Keyed(signer, trust)
	var versions []int
	switch {
	case f.all == (f.version != ""):
		return errors.New("say which version, or --all")
	case f.all:
		entries, err := registry.List(ctx, f.kind)
		if err != nil {
			return err
		}
		for _, e := range entries {
			versions = append(versions, e.Version)
		}
	default:
		v, err := model.ParseVersion(f.kind, f.version)
		if err != nil {
			return err
		}
		versions = []int{v}
	}
	on.After(struct {
		Key      string `json:"key"`
		Versions []int  `json:"versions"`
	}{signer.Public(), versions})
	failed := false
	for _, v := range versions {
		changed, err := registry.Resign(ctx, f.kind, v)
		name := model.Name(f.kind, v)
		switch {
		case err != nil && !f.all:
			return advised(err, f.kind)
		case errors.Is(err, model.ErrArtifact) || errors.Is(err, model.ErrNoVersion) || errors.Is(err, model.ErrUntrusted):
			failed = true
			_, err = fmt.Fprintf(a.out, "%s is not signed: %v\n", name, err)
		case err != nil:
			return err
		case changed:
			_, err = fmt.Fprintf(a.out, "%s is signed by %s\n", name, signer.Public())
		default:
			_, err = fmt.Fprintf(a.out, "%s was signed by %s already\n", name, signer.Public())
		}
		if err != nil {
			return err
		}
	}
	if failed {
		return errBroken
	}
	return nil
}

// openSigned opens the registry with the keys that are given, or that lie beside the connection's.
func openSigned(ctx context.Context, js natsjs.JetStream, f *modelFlags) (registered, error) {
	r, err := openRegistry(ctx, js, f.kind)
	if err != nil {
		return r, err
	}
	keysBeside(&f.keys, f.connect)
	trust, err := f.keys.IfAny()
	if err != nil {
		return r, err
	}
	r.registry, r.trust = r.registry.Keyed(nil, trust), trust
	return r, nil
}
