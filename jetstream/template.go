// Package jetstream is the topology: what streams, buckets and permissions there are (as data, in the JSON
// files beside this one), how they are planned and applied, and how outputs are committed with their position.
package jetstream

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"text/template"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

//go:embed *.json
var files embed.FS

// Templates of the streams, in the order in which they are made. SCORES_<kind> comes before EVENTS_<kind>:
// zeroPositions relies on it.
var (
	sharedTemplates = []string{"audit", "callers", "erasures", "kinds", "models", "memory", "scorers", "labels", "online", "rescores", "rollouts", "alerts", "advisories"}
	kindTemplates   = []string{"scores", "events"}
)

// values a template may name. Nothing in them needs escaping in JSON.
type values struct {
	Kind             string
	Lanes            int
	Replicas         int
	EventsMaxAge     int64 // ns, as are the others
	EventsDuplicates int64
	ScoresMaxAge     int64
	ScoresDuplicates int64
}

// duplicateWindow for messages with a Nats-Msg-Id. The window is kept in memory, and outcomes do not
// rely on it: it only spares a publisher who retries at once.
const duplicateWindow = 2 * time.Minute

func valuesOf(c events.Contract, replicas int) values {
	age := func(d events.Duration) (int64, int64) {
		return int64(d), min(int64(d), int64(duplicateWindow)) // the server refuses a window beyond max_age
	}
	v := values{Kind: c.Kind, Lanes: c.Lanes, Replicas: replicas}
	v.EventsMaxAge, v.EventsDuplicates = age(c.Retention.Events)
	v.ScoresMaxAge, v.ScoresDuplicates = age(c.Retention.Scores)
	return v
}

func checkReplicas(n int) error {
	if n != 1 && n != 3 && n != 5 {
		return fmt.Errorf("topology: %d replicas: want 3 or 5, or 1 on a single node", n)
	}
	return nil
}

// File is one rendered template: what `nats stream add --config` takes.
type File struct {
	Name string // of the stream
	JSON []byte
}

// SharedFiles renders the streams and buckets that all kinds share.
func SharedFiles(replicas int) ([]File, error) {
	if err := checkReplicas(replicas); err != nil {
		return nil, err
	}
	return render(sharedTemplates, values{Replicas: replicas})
}

// KindFiles renders the streams of one kind.
func KindFiles(c events.Contract, replicas int) ([]File, error) {
	if err := checkReplicas(replicas); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return render(kindTemplates, valuesOf(c, replicas))
}

// render uses [[ ]] as delimiters: the server's subject transforms have {{ }}.
func render(names []string, v values) ([]File, error) {
	out := make([]File, 0, len(names))
	for _, name := range names {
		t, err := template.New(name+".json").Delims("[[", "]]").ParseFS(files, name+".json")
		if err != nil {
			return nil, fmt.Errorf("topology: template %s: %w", name, err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, v); err != nil {
			return nil, fmt.Errorf("topology: template %s: %w", name, err)
		}
		cfg, err := decode(b.Bytes())
		if err != nil {
			return nil, fmt.Errorf("topology: template %s: %w", name, err)
		}
		out = append(out, File{Name: cfg.Name, JSON: b.Bytes()})
	}
	return out, nil
}

// decode is as strict as the server: an unknown field would be lost without a word.
func decode(text []byte) (natsjs.StreamConfig, error) {
	var cfg natsjs.StreamConfig
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// Shared are the configs of SharedFiles.
func Shared(replicas int) ([]natsjs.StreamConfig, error) {
	return configs(SharedFiles(replicas))
}

// ForKind are the configs of KindFiles.
func ForKind(c events.Contract, replicas int) ([]natsjs.StreamConfig, error) {
	return configs(KindFiles(c, replicas))
}

func configs(files []File, err error) ([]natsjs.StreamConfig, error) {
	if err != nil {
		return nil, err
	}
	out := make([]natsjs.StreamConfig, len(files))
	for i, f := range files {
		if out[i], err = decode(f.JSON); err != nil {
			return nil, fmt.Errorf("topology: stream %s: %w", f.Name, err)
		}
	}
	return out, nil
}
