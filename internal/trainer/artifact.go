package trainer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// Artifact makes a model of a kind of what Fit found, not yet with a version: publishing gives it one.
func (r *FitResult) Artifact(kind, by string, created time.Time, parent int, contract model.ContractRef, training model.Training) *model.Artifact {
	a := &model.Artifact{
		Format: model.Format, Kind: kind, Created: created.UTC(), CreatedBy: by, Parent: parent, Code: model.CodeVersion(),
		Contract: contract, Training: training, Metrics: metrics(r.Test), Scale: model.DefaultScale,
		Calibration: model.Calibration{Method: model.CalibrationNone},
		Fingerprint: r.Spec.Fingerprint(), Spec: r.Spec, Intercept: r.Model.Intercept,
		Weights: make([]model.Weight, len(r.Columns)),
	}
	if r.Ensemble != nil {
		a.Format, a.Calibration.Method, a.Ensemble = model.FormatEnsemble, model.CalibrationFusion, r.Ensemble
	}
	for j, c := range r.Columns {
		a.Weights[j] = model.Weight{Column: c.Name, Field: c.Field, Weight: r.Model.Weights[j], Baseline: r.Baseline[j]}
	}
	return a
}

func metrics(m lr.Metrics) model.Metrics {
	return model.Metrics{Rows: m.N, Positives: m.Positives, AUC: m.AUC, AUCSE: m.AUCSE, LogLoss: m.LogLoss, Brier: m.Brier, ECE: m.ECE}
}

// Hash is the SHA-256, in hexadecimal, of the records and labels in their order: the same for the same data, however it
// came.
func (d *Dataset) Hash() string {
	h := sha256.New()
	var rec events.Record
	for i := range d.Len() {
		d.Record(i, &rec)
		writeUint(h, uint64(d.times[i]))
		writeUint(h, math.Float64bits(d.Label(i)))
		for _, v := range rec.Values {
			writeUint(h, uint64(v.State))
			switch v.State {
			case events.HasNum:
				writeUint(h, math.Float64bits(v.Num))
			case events.HasText:
				writeUint(h, uint64(len(v.Text)))
				h.Write(v.Text)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func writeUint(h hash.Hash, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	h.Write(b[:])
}
