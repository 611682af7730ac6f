// Package model keeps the versions of a model in a KV bucket, watches which of them is in force, and turns a
// record into a probability with its reasons.
package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/pkg/events"
)

// Versions of the artifact's own form. A program reads those that it knows only: what it does not know could change what
// the model means.
const (
	Format         = 1 // one regression
	FormatEnsemble = 2 // members and their fusion
)

// MaxArtifact bounds the encoded form, in bytes. A message is at most 1 MiB at the server's default, of which
// some is left to headers.
const MaxArtifact = 1<<20 - 4<<10

// MaxVersion is bounded by the six digits of a version's key.
const MaxVersion = 999_999

// Bounds on numbers, so that no event can make a logit or points that are not finite: the encoder keeps columns
// within feature.MaxMagnitude.
const (
	maxWeight = 1e12
	maxScale  = 1e6
)

// Calibrations: one for each format.
const (
	CalibrationNone   = "none"   // the logit is used as it is fitted
	CalibrationFusion = "fusion" // slope and shift are in the fusions' weights
)

// ErrArtifact says that bytes are not an artifact that this program may serve.
var ErrArtifact = errors.New("model artifact refused")

// Weight is one column of the model, in the order of the spec's columns.
type Weight struct {
	Column   string  `json:"column"`
	Field    string  `json:"field"`    // the source field, as reasons name it
	Weight   float64 `json:"weight"`   // log-odds per unit of the column
	Baseline float64 `json:"baseline"` // the column's value that contributions are measured from: its training mean
}

// Scale turns a logit into points, which rise as risk falls:
//
//	points = Base + PDO/ln 2 (ln(good:bad odds) - ln Odds), rounded half away from zero, kept in 0..1000
type Scale struct {
	Base float64 `json:"base"` // points at odds of Odds good to one bad
	Odds float64 `json:"odds"`
	PDO  float64 `json:"pdo"` // points that double the odds
}

// DefaultScale is that of many scorecards: 600 points at 50 good to one bad, 20 points double the odds.
var DefaultScale = Scale{Base: 600, Odds: 50, PDO: 20}

// Calibration is what is done to the logit before the sigmoid.
type Calibration struct {
	Method string `json:"method"`
}

// Metrics are measured on data later than what the weights were fitted on.
type Metrics struct {
	Rows      int     `json:"rows"`
	Positives int     `json:"positives"`
	AUC       float64 `json:"auc"`
	AUCSE     float64 `json:"auc_se"`   // standard error, DeLong
	LogLoss   float64 `json:"log_loss"` // mean, nats
	Brier     float64 `json:"brier"`
	ECE       float64 `json:"ece"` // expected calibration error, 10 bins of equal width
}

// Training says what the weights were learned from.
type Training struct {
	Stream      string    `json:"stream,omitempty"`      // empty: a file
	Incarnation time.Time `json:"incarnation,omitzero"`  // creation time of the stream that the sequences count in
	FirstSeq    uint64    `json:"first_seq,omitempty"`   // of the events used, both inclusive
	LastSeq     uint64    `json:"last_seq,omitempty"`    //
	LabelsSeq   uint64    `json:"labels_seq,omitempty"`  // labels up to this sequence of LABELS were known
	LabelCutoff time.Time `json:"label_cutoff,omitzero"` // events stored before it less the maturity, without a label, count as good
	FirstTime   time.Time `json:"first_time,omitzero"`   // of the events used, both inclusive
	LastTime    time.Time `json:"last_time,omitzero"`    //
	Rows        int       `json:"rows"`
	Positives   int       `json:"positives"`
	Silent      int       `json:"silent,omitempty"` // of Rows, good by silence
	DataHash    string    `json:"data_hash"`        // SHA-256 of the rows and labels, in the order of training
}

// ContractRef names the contract that the training records were decoded under.
type ContractRef struct {
	Version  int    `json:"version"`
	Revision uint64 `json:"revision,omitempty"` // in KINDS; 0: it was not there
}

// Artifact is one version of a model. It is not changed after Encode or Decode; whoever holds one only reads it.
//
//	len(Weights) = number of the spec's columns
//	Checksum = SHA-256 of Canonical, the compact JSON without the checksum and the signature
//	Signature, if there is one, is of Canonical too
type Artifact struct {
	Format    int       `json:"format"`
	Kind      string    `json:"kind"`
	Version   int       `json:"version"`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
	Parent    int       `json:"parent,omitempty"` // the champion when this was made
	Origin    string    `json:"origin,omitempty"` // of one that was imported: what it was, and who signed it there
	// Codes of reasons, by source field: what a score says of a field does not change when the contract does. nil: reasons have none.
	Codes       map[string]string `json:"codes,omitempty"`
	Code        string            `json:"code"` // build of the trainer
	Contract    ContractRef       `json:"contract"`
	Training    Training          `json:"training"`
	Metrics     Metrics           `json:"metrics"`
	Scale       Scale             `json:"scale"`
	Calibration Calibration       `json:"calibration"`
	Fingerprint string            `json:"fingerprint"` // of Spec
	Spec        feature.Spec      `json:"spec"`
	Intercept   float64           `json:"intercept"`
	Weights     []Weight          `json:"weights"`
	Ensemble    *Ensemble         `json:"ensemble,omitempty"` // format 2; Intercept and Weights are then the member batch
	Checksum    string            `json:"checksum,omitempty"`
	Signature   *Signature        `json:"signature,omitempty"`
}

// Name is how scores name a version: payment.v000003. It is also its key in MODELS.
func Name(kind string, version int) string { return fmt.Sprintf("%s.v%06d", kind, version) }

var versionKey = regexp.MustCompile(`^v([0-9]{6})$`)

// ParseName is the inverse of Name.
func ParseName(name string) (kind string, version int, err error) {
	kind, v, _ := strings.Cut(name, ".")
	m := versionKey.FindStringSubmatch(v)
	if m == nil || events.CheckKind(kind) != nil {
		return "", 0, fmt.Errorf("model name %q: want one such as payment.v000003", name)
	}
	version, err = strconv.Atoi(m[1])
	if err != nil || version < 1 {
		return "", 0, fmt.Errorf("model name %q: versions count from 1", name)
	}
	return kind, version, nil
}

func (a *Artifact) Name() string { return Name(a.Kind, a.Version) }

// CodeVersion names the build that is running: its commit where it was built from one, else its module version.
func CodeVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			version = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if version == "" {
		return "unknown"
	}
	return version + dirty
}

// Validate returns all that is wrong with the artifact, joined.
func (a *Artifact) Validate() error {
	var errs []error
	bad := func(format string, x ...any) { errs = append(errs, fmt.Errorf(format, x...)) }
	switch {
	case a.Format != Format && a.Format != FormatEnsemble:
		bad("format %d: this program reads %d and %d", a.Format, Format, FormatEnsemble)
	case (a.Format == FormatEnsemble) != (a.Ensemble != nil):
		bad("format %d: want an ensemble in format %d, and in no other", a.Format, FormatEnsemble)
	case a.Ensemble != nil:
		if err := a.Ensemble.check(); err != nil {
			bad("ensemble: %w", err)
		}
	}
	if err := events.CheckKind(a.Kind); err != nil {
		errs = append(errs, err)
	}
	if err := checkCodes(a.Codes); err != nil {
		errs = append(errs, err)
	}
	if a.Version < 1 || a.Version > MaxVersion {
		bad("version %d: want 1 to %d", a.Version, MaxVersion)
	}
	if a.Parent < 0 || a.Parent >= max(a.Version, 1) {
		bad("parent %d: want a version before %d", a.Parent, a.Version)
	}
	if buckets := a.buckets(); buckets > len(a.Weights) { // before the spec lists its columns, however many it claims
		bad("%d weights: the spec makes more than %d columns", len(a.Weights), len(a.Weights))
	} else if err := a.Spec.Validate(); err != nil {
		errs = append(errs, err)
	} else if got := a.Spec.Fingerprint(); got != a.Fingerprint {
		bad("fingerprint %q: the spec's is %q", a.Fingerprint, got)
	} else {
		errs = append(errs, a.checkColumns()...)
	}
	if want := map[int]string{Format: CalibrationNone, FormatEnsemble: CalibrationFusion}[a.Format]; a.Calibration.Method != want && want != "" {
		bad("calibration %q: format %d has only %q", a.Calibration.Method, a.Format, want)
	}
	if s := a.Scale; !(math.Abs(s.Base) <= maxScale && s.Odds >= 1/maxScale && s.Odds <= maxScale && s.PDO >= 1/maxScale && s.PDO <= maxScale) {
		bad("scale base %v, odds %v, pdo %v: want numbers of at most %g in magnitude, odds and pdo above 0", s.Base, s.Odds, s.PDO, maxScale)
	}
	if m := a.Metrics; !finite(m.AUC, m.AUCSE, m.LogLoss, m.Brier, m.ECE) {
		bad("metrics %+v: want finite numbers", m)
	}
	if !(math.Abs(a.Intercept) <= maxWeight) {
		bad("intercept %v: want a number of at most %g in magnitude", a.Intercept, maxWeight)
	}
	for _, w := range a.Weights {
		if !(math.Abs(w.Weight) <= maxWeight && math.Abs(w.Baseline) <= feature.MaxMagnitude) {
			bad("column %s: weight %v, baseline %v: want numbers of at most %g and %g in magnitude", w.Column, w.Weight, w.Baseline, maxWeight, float64(feature.MaxMagnitude))
			break
		}
	}
	return errors.Join(errs...)
}

// buckets counts the hashed columns, up to one more than there are weights.
func (a *Artifact) buckets() int {
	n := 0
	for _, t := range a.Spec.Fields {
		n += min(max(t.Buckets, 0), len(a.Weights)+1)
		if n > len(a.Weights) {
			break
		}
	}
	return n
}

// checkColumns holds the weights against the columns that the spec makes. The field of the event's own time is
// the contract's matter, so only a spec's own fields are compared.
func (a *Artifact) checkColumns() []error {
	columns := a.Spec.Columns("")
	if len(columns) != len(a.Weights) {
		return []error{fmt.Errorf("%d weights: the spec makes %d columns", len(a.Weights), len(columns))}
	}
	for i, c := range columns {
		if w := a.Weights[i]; c.Field != "" && (w.Column != c.Name || w.Field != c.Field) {
			return []error{fmt.Errorf("weight %d is of column %q (field %q): the spec makes %q (field %q)", i, w.Column, w.Field, c.Name, c.Field)}
		}
	}
	return nil
}

func finite(vs ...float64) bool {
	for _, v := range vs {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

// Canonical is the form that the checksum is taken over, and that is signed: compact JSON, members in the order of the struct,
// without checksum and signature, the shortest numbers that read back to the same bits.
func (a *Artifact) Canonical() ([]byte, error) {
	c := *a
	c.Checksum, c.Signature = "", nil
	return marshal(&c)
}

func (a *Artifact) checksum() (string, error) {
	c, err := a.Canonical()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(c)
	return hex.EncodeToString(sum[:]), nil
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("write as JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Encode sets the checksum of the artifact and returns the JSON that goes into MODELS: the canonical form and the
// checksum, laid out for people, one member and one weight a line.
func (a *Artifact) Encode() ([]byte, error) {
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("model %s: %w", a.Name(), err)
	}
	sum, err := a.checksum()
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.Name(), err)
	}
	a.Checksum = sum
	compact, err := marshal(a)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.Name(), err)
	}
	body := layOut(compact)
	if len(body) > MaxArtifact {
		return nil, fmt.Errorf("model %s: %d columns make %d bytes, and MODELS holds at most %d a version: use fewer levels or hash buckets",
			a.Name(), len(a.Weights), len(body), MaxArtifact)
	}
	return body, nil
}

// layOut breaks the lines of a compact JSON object before its members, and before the objects of an array within.
// It puts white space between tokens only.
func layOut(compact []byte) []byte {
	out := make([]byte, 0, len(compact)+len(compact)/8)
	depth, quoted := 0, false
	for i := 0; i < len(compact); i++ {
		c := compact[i]
		if quoted {
			out = append(out, c)
			if c == '\\' {
				i++
				out = append(out, compact[i])
			} else if c == '"' {
				quoted = false
			}
			continue
		}
		switch c {
		case '"':
			quoted = true
			out = append(out, c)
		case '{', '[':
			depth++
			out = append(out, c)
			if depth == 1 {
				out = append(out, '\n')
			} else if c == '[' && i+1 < len(compact) && compact[i+1] == '{' {
				out = append(out, "\n "...)
			}
		case '}', ']':
			depth--
			if depth == 0 {
				out = append(out, '\n')
			}
			out = append(out, c)
		case ',':
			out = append(out, c)
			if depth == 1 {
				out = append(out, '\n')
			} else if i > 0 && compact[i-1] == '}' {
				out = append(out, "\n "...)
			}
		default:
			out = append(out, c)
		}
	}
	return append(out, '\n')
}

// Decode reads what Encode wrote. It refuses another format, unknown members, numbers that are not finite, weights
// that do not match the spec's columns, and a checksum that is not the content's; any error is an ErrArtifact.
func Decode(body []byte) (*Artifact, error) {
	a, err := decode(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArtifact, err)
	}
	return a, nil
}

func decode(body []byte) (*Artifact, error) {
	if len(body) > MaxArtifact {
		return nil, fmt.Errorf("%d bytes: want at most %d", len(body), MaxArtifact)
	}
	var head struct {
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return nil, fmt.Errorf("read as JSON: %w", err)
	}
	if head.Format == nil || *head.Format != Format && *head.Format != FormatEnsemble {
		return nil, fmt.Errorf("format %s: this program reads %d and %d", formatText(head.Format), Format, FormatEnsemble)
	}
	var a Artifact
	if err := strict(body, &a); err != nil {
		return nil, err
	}
	if err := a.Validate(); err != nil {
		return nil, err
	}
	sum, err := a.checksum()
	if err != nil {
		return nil, err
	}
	if a.Checksum != sum {
		return nil, fmt.Errorf("%w: checksum %q, and the content's is %q: it was altered or cut", ErrUntrusted, a.Checksum, sum)
	}
	return &a, nil
}

func formatText(f *int) string {
	if f == nil {
		return "missing"
	}
	return strconv.Itoa(*f)
}

// strict reads exactly one JSON value without unknown members.
func strict(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("read as JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read as JSON: more than one value")
	}
	return nil
}
