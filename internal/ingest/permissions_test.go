package ingest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// All that ingest does it may do as the user of its role, and the server refuses it nothing on the way.
func TestAsItsOwnUser(t *testing.T) {
	t.Parallel()
	var users []embedded.User
	for _, r := range jetstream.Roles("payment") {
		users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, All: r.All, Outside: r.Outside})
	}
	admin := &broker{Cluster: testkit.Start(t, 1, testkit.Users(users...))}
	admin.nc = admin.Connect(t)
	var err error
	if admin.js, err = natsjs.New(admin.nc); err != nil {
		t.Fatal(err)
	}
	if _, err := jetstream.ApplyShared(t.Context(), admin.js, jetstream.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	admin.declare(t, nil)
	admin.scorer(t)

	var mu sync.Mutex
	var refused []string
	own := *admin
	own.nc = admin.ConnectAs(t, jetstream.RoleIngest, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		refused = append(refused, err.Error())
	}))
	text, ids, bad := manyRows(100)
	path := write(t, "day.csv", text)
	for range 2 {
		if _, err := own.ingest(t, FileConfig{Path: path}); err != nil {
			t.Fatal(err)
		}
	}
	admin.check(t, path, ids, bad)

	w := own.serve(t, nil, func(c *ServerConfig) { c.Deadline = testkit.Deadline })
	if got := w.post("/v1/labels/payment", jsonType, []byte(`{"id":"a","label":1}`)); got.status != 202 {
		t.Errorf("labels: %d %s", got.status, got.body)
	}
	for i := range 9 {
		if got := w.post("/v1/score/payment", jsonType, fmt.Appendf(nil, `{"id":"s%d","card":"hot","amount":%d}`, i, i)); got.status != 200 {
			t.Errorf("score: %d %s", got.status, got.body)
		}
	}
	// The score of long ago, which is not the entity's last, has to be looked for.
	got := w.post("/v1/score/payment?deadline=20s", jsonType, []byte(`{"id":"s2","card":"hot","amount":2}`))
	if s, err := events.DecodeScore(got.body); err != nil || s.ID != "s2" || s.Mode != events.ModeModel {
		t.Errorf("scored before: %d %s: %v", got.status, got.body, err)
	}
	scores, err := admin.js.Stream(t.Context(), events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	// Sooner than the server forgets one by itself.
	testkit.Eventually(t, 5*time.Second, "the search has left no consumer", func() (bool, string) {
		info, err := scores.Info(t.Context())
		return err == nil && info.State.Consumers == 0, fmt.Sprint(info, err)
	})
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if err := own.nc.FlushWithContext(testkit.Context(t)); err != nil { // refusals come before the answer to this
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(refused) > 0 {
		t.Errorf("refused: %s", strings.Join(refused, "\n"))
	}
}
