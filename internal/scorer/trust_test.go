package scorer

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// An unsigned version is put in force behind the registry's back: events go on being scored by the champion, and the heartbeat
// and the metrics say what was refused, until another version is taken.
func TestUntrustedModelScoresNothing(t *testing.T) {
	w := newWorld(t)
	signer, err := model.CreateSigner(filepath.Join(t.TempDir(), "models.nk"))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := model.NewTrust(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	unsigned := w.registry
	w.registry = unsigned.Keyed(signer, trust)
	metrics := w.runTrusting(t, trust)
	beats, err := w.js.Conn().SubscribeSync("heartbeats." + Service + ".>")
	if err != nil {
		t.Fatal(err)
	}
	defer beats.Unsubscribe()
	refused := func() (r events.RefusedModel, all string) {
		msg, err := beats.NextMsg(testkit.Deadline)
		if err != nil {
			t.Fatal(err)
		}
		var h events.Heartbeat
		if err := json.Unmarshal(msg.Data, &h); err != nil {
			t.Fatal(err)
		}
		return h.Refused["payment"], string(msg.Data)
	}
	scoredBy := func(want string) {
		t.Helper()
		seq := w.publish(t, "events.payment.c1", nil, []byte(`{"amount": 12}`))
		o := w.outcomes(t, []uint64{seq})[seq]
		score, err := events.DecodeScore(o.body)
		if err != nil || score.Model != want {
			t.Errorf("scored by %q (%v), want %s:\n%s", score.Model, err, want, o.body)
		}
	}
	champion, revision := w.promote(t, -1)
	testkit.Eventually(t, testkit.Deadline, "the champion scores", func() (bool, string) {
		seq := w.publish(t, "events.payment.c1", nil, []byte(`{"amount": 12}`))
		score, err := events.DecodeScore(w.outcomes(t, []uint64{seq})[seq].body)
		return err == nil && score.Revision == revision, fmt.Sprintf("%+v, %v", score, err)
	})

	w.registry = unsigned
	bad, at := w.promote(t, 3)
	testkit.Eventually(t, testkit.Deadline, "the heartbeat says what is refused", func() (bool, string) {
		r, all := refused()
		return r.Model == bad && r.Revision == at && r.Untrusted, all
	})
	scoredBy(champion)
	if n := value(t, metrics, "riskweir_scorer_models_refused_total"); n != 1 {
		t.Errorf("counted %v refusals, want 1", n)
	}

	w.registry = unsigned.Keyed(signer, trust)
	good, _ := w.promote(t, 1)
	testkit.Eventually(t, testkit.Deadline, "nothing is refused any more", func() (bool, string) {
		r, all := refused()
		return r == events.RefusedModel{}, all
	})
	scoredBy(good)
}
