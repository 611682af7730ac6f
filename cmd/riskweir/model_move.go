package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

const modelExportHelp = `Write a version to stdout as it is stored: weights, feature spec, what it was trained on, its signature.

It holds no event, but bounds of fields and levels of categories that events had.

Example: riskweir model export payment v3 > v3.json`

func (a *app) modelExport(ctx context.Context, f *modelFlags, r registered) error {
	version, err := model.ParseVersion(f.kind, f.version)
	if err != nil {
		return err
	}
	artifact, err := r.registry.Keyed(nil, nil).Get(ctx, f.kind, version) // signed or not: who imports it looks
	if err != nil {
		return advised(err, f.kind)
	}
	body, err := artifact.Encode()
	if err != nil {
		return err
	}
	_, err = a.out.Write(body)
	return err
}

const modelImportHelp = `Take a version in that 'model export' wrote, here or elsewhere, or that was made by hand in the same form.

It becomes a new version of its kind, as a candidate: what is in force stays. It must be whole, read only what the declared contract lets a
model read, and is signed with your key: look at it first. A signature that it comes with is checked if it is by a key that is trusted
here; by another it is only noted.

Exit status: 0 it is a version now, 2 it is not.

Examples:

  riskweir model import v3.json --context prod
  ssh test riskweir model export payment v3 | riskweir model import - --context prod`

func (a *app) modelImport(cmd *fisk.CmdClause, f *modelFlags) {
	var file string
	cmd.Arg("file", "What 'model export' wrote; - is stdin").Required().StringVar(&file)
	cmd.Flag("json", "As JSON").UnNegatableBoolVar(&f.json)
	cmd.Flag("by", "Who; you by default").PlaceHolder("NAME").StringVar(&f.by)
	a.run(cmd, func(ctx context.Context) error {
		artifact, err := readArtifact(file)
		if err != nil {
			return err
		}
		keysBeside(&f.keys, f.connect)
		signer, trust, err := f.keys.Signer()
		if err != nil {
			return err
		}
		f.kind = artifact.Kind
		act := audit.Action{What: cmd.FullCommand(), Kind: f.kind, About: artifact.Name() + " of " + file, By: f.by}
		return a.changes(ctx, f.connect, act, func(js natsjs.JetStream, on *audit.Entry) error {
			r, err := openRegistry(ctx, js, f.kind)
			if err != nil {
				return err
			}
			r.registry, r.trust = r.registry.Keyed(signer, trust), trust
			return a.importModel(ctx, f, r, artifact, on)
		})
	})
}

func readArtifact(file string) (*model.Artifact, error) {
	in := os.Stdin
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		defer in.Close()
	}
	body, err := io.ReadAll(io.LimitReader(in, model.MaxArtifact+1))
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", file, err)
	}
	artifact, err := model.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", file, err)
	}
	return artifact, nil
}

// imported is what an import came to.
type imported struct {
	Model    string `json:"model"`
	Origin   string `json:"origin"`
	SignedBy string `json:"signed_by,omitempty"`
}

func (a *app) importModel(ctx context.Context, f *modelFlags, r registered, artifact *model.Artifact, on *audit.Entry) error {
	rollout, _, err := r.registry.Rollout(ctx, f.kind)
	if err != nil && !errors.Is(err, model.ErrRollout) {
		return err
	}
	next := *artifact
	next.Parent = rollout.Champion
	if next.Origin, err = originOf(artifact, r.trust); err != nil {
		return err
	}
	if next.Training, err = trainingHere(ctx, r.js, artifact.Kind, artifact.Training); err != nil {
		return err
	}
	version, err := r.registry.PublishFit(ctx, r.schema, &next)
	if err != nil {
		return advised(err, f.kind)
	}
	done := imported{Model: model.Name(f.kind, version), Origin: next.Origin}
	stored, err := r.registry.Get(ctx, f.kind, version)
	if err == nil && stored.Signature != nil {
		done.SignedBy = stored.Signature.Key
	}
	on.About(done.Model)
	on.After(done)
	if f.json {
		return a.printJSON(done)
	}
	_, err = fmt.Fprintf(a.out, "%s is there, a candidate; it was %s\nnothing was put in force: 'riskweir model promote %s v%d' does that\n", done.Model, done.Origin, f.kind, version)
	return err
}

// originOf is what an artifact was before it was imported. It refuses one that a key trusted here has signed and that was altered since.
func originOf(a *model.Artifact, trust *model.Trust) (string, error) {
	signed := "unsigned"
	if a.Signature != nil {
		signed = "signed by " + a.Signature.Key
		for _, key := range trust.Keys() {
			if key != a.Signature.Key {
				continue
			}
			if err := a.Verify(trust); err != nil {
				return "", fmt.Errorf("import %s: %w: if you altered it, take its signature out", a.Name(), err)
			}
		}
	}
	origin := fmt.Sprintf("%s, SHA-256 %s, %s", a.Name(), a.Checksum, signed)
	if a.Origin != "" && len(a.Origin) < 1000 {
		origin += "; before: " + a.Origin
	}
	return origin, nil
}

// trainingHere leaves out sequences that count in another EVENTS than there is here: a trainer would take them for its own.
func trainingHere(ctx context.Context, js natsjs.JetStream, kind string, t model.Training) (model.Training, error) {
	if t.Stream == "" {
		return t, nil
	}
	stream, err := js.Stream(ctx, events.EventsStream(kind))
	if err != nil {
		return t, fmt.Errorf("look at %s: %w", events.EventsStream(kind), err)
	}
	if t.Stream == events.EventsStream(kind) && t.Incarnation.Equal(stream.CachedInfo().Created) {
		return t, nil
	}
	t.Stream, t.Incarnation, t.FirstSeq, t.LastSeq, t.LabelsSeq = "", time.Time{}, 0, 0, 0
	return t, nil
}
