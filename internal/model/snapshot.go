package model

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// ErrSnapshot says that bytes are not a snapshot that this program may score with.
var ErrSnapshot = errors.New("snapshot refused")

// Online is the member that goes on learning: as it is when the version is made, in the artifact, and later in snapshots.
//
//	len(Weights) = number of the columns of the version's spec
type Online struct {
	Intercept float64   `json:"intercept"`
	Weights   []float64 `json:"weights"` // log-odds per unit of the column, in the order of the spec
	// What is done to the fused logit while the member votes, since the level drifts: slope · logit + shift.
	Slope float64 `json:"slope"`
	Shift float64 `json:"shift"`
	// What the trainer goes on learning from: the covariance of slope and shift (slope², slope·shift, shift²), and the learner's state.
	Covariance [3]float64 `json:"covariance"`
	State      []byte     `json:"state,omitempty"`
}

func (o *Online) check(columns int) error {
	if len(o.Weights) != columns {
		return fmt.Errorf("%d weights: the spec makes %d columns", len(o.Weights), columns)
	}
	if !(math.Abs(o.Intercept) <= maxWeight) {
		return fmt.Errorf("intercept %v: want a number of at most %g in magnitude", o.Intercept, maxWeight)
	}
	if !(o.Slope > 0 && o.Slope <= maxFusion && math.Abs(o.Shift) <= maxFusion) {
		return fmt.Errorf("slope %v, shift %v: want a slope above 0, both of at most %g in magnitude", o.Slope, o.Shift, maxFusion)
	}
	for i, w := range o.Weights {
		if !(math.Abs(w) <= maxWeight) {
			return fmt.Errorf("weight %d is %v: want a number of at most %g in magnitude", i, w, maxWeight)
		}
	}
	return nil
}

// Snapshot is the member online as the trainer has learned it up to a label.
//
//	Checksum = SHA-256 of the compact JSON without checksum and signature
type Snapshot struct {
	Format  int       `json:"format"`
	Kind    string    `json:"kind"`
	Version int       `json:"version"` // of the artifact that it belongs to
	Labels  uint64    `json:"labels"`  // claims of LABELS up to this sequence were learned,
	Events  uint64    `json:"events"`  // or, where silence means good, events up to this sequence
	Rows    int       `json:"rows"`    // learned from
	Created time.Time `json:"created"`
	Online
	Checksum  string     `json:"checksum,omitempty"`
	Signature *Signature `json:"signature,omitempty"`
}

// SnapshotFormat is the version of the snapshot's own form.
const SnapshotFormat = 1

func (s *Snapshot) validate() error {
	switch {
	case s.Format != SnapshotFormat:
		return fmt.Errorf("format %d: this program reads format %d", s.Format, SnapshotFormat)
	case events.CheckKind(s.Kind) != nil || s.Version < 1 || s.Version > MaxVersion:
		return fmt.Errorf("it is of %s", Name(s.Kind, s.Version))
	}
	return s.check(len(s.Weights))
}

// canonical is what the checksum and the signature are of.
func (s *Snapshot) canonical() ([]byte, error) {
	c := *s
	c.Checksum, c.Signature = "", nil
	return marshal(&c)
}

// Sign puts the signer's signature in; a later change breaks it.
func (s *Snapshot) Sign(signer *Signer) error {
	body, err := s.canonical()
	if err != nil {
		return fmt.Errorf("snapshot of %s: %w", s.Kind, err)
	}
	sig, err := signer.Sign(DomainSnapshot, body)
	if err != nil {
		return fmt.Errorf("snapshot of %s: %w", s.Kind, err)
	}
	s.Signature = &sig
	return nil
}

// Verify returns an ErrUntrusted unless a trusted key signed the snapshot. Without trust, nil, all are taken.
func (s *Snapshot) Verify(t *Trust) error {
	body, err := s.canonical()
	if err != nil {
		return err
	}
	return t.Verify(DomainSnapshot, body, s.Signature)
}

func (s *Snapshot) checksum() (string, error) {
	body, err := s.canonical()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}

// Encode sets the checksum and returns what goes into ONLINE.
func (s *Snapshot) Encode() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", s.Kind, err)
	}
	var err error
	if s.Checksum, err = s.checksum(); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", s.Kind, err)
	}
	body, err := marshal(s)
	if err == nil && len(body) > MaxArtifact {
		err = fmt.Errorf("%d columns make %d bytes: want at most %d", len(s.Weights), len(body), MaxArtifact)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", s.Kind, err)
	}
	return body, nil
}

// DecodeSnapshot reads what Encode wrote; any error is an ErrSnapshot.
func DecodeSnapshot(body []byte) (*Snapshot, error) {
	var s Snapshot
	err := strict(body, &s)
	if err == nil {
		err = s.validate()
	}
	sum := ""
	if err == nil {
		sum, err = s.checksum()
	}
	if err == nil && sum != s.Checksum {
		err = fmt.Errorf("checksum %q: the content's is %q: it was altered or cut", s.Checksum, sum)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return &s, nil
}

// ReadOnline reads the body of a member of that kind.
func ReadOnline(m Member) (*Online, error) {
	var o Online
	if err := strict(m.Body, &o); err != nil {
		return nil, fmt.Errorf("member %s: %w", m.Kind, err)
	}
	return &o, o.check(len(o.Weights))
}
