package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

const sensitiveContract = `
kind: payment
id: id
entity: card
fields:
  - {name: amount, type: number, required: true}
  - {name: words, type: category, sensitive: true}
  - {name: number, type: number, sensitive: true}
  - {name: money, type: money, currency: EUR, sensitive: true}
  - {name: day, type: time, sensitive: true}
  - {name: flag, type: bool, sensitive: true}
label: {column: fraud, positive: ["1"]}
lanes: 2
prior: 0.1
`

// Canaries stand for what nobody may read but those who may read EVENTS.
const (
	canaryText  = "CANARYTEXT"
	canaryDigit = "918273645"
	canaryTime  = "1987-06-05T04:03:02"
)

// sensitiveBodies are events whose sensitive fields hold canaries, good and bad in every way that a reader can tell.
func sensitiveBodies(t *testing.T) (good, bad [][]byte) {
	one := func(fields string) []byte { return []byte(`{"card":"c1","amount":1,` + fields + `}`) }
	good = [][]byte{
		one(`"words":"` + canaryText + `","number":` + canaryDigit + `.25,"money":"` + canaryDigit + `.11","day":"` + canaryTime + `Z","flag":true`),
		packed(t, map[string]any{"card": "c1", "amount": 1, "words": canaryText, "number": 918273645.25, "money": canaryDigit + ".11"}),
	}
	for _, field := range []string{"number", "money", "day", "flag"} {
		bad = append(bad, one(`"`+field+`":"`+canaryText+`"`), one(`"`+field+`":["`+canaryText+`"]`), one(`"`+field+`":{"x":"`+canaryText+`"}`), one(`"`+field+`":"`+canaryText),
			packed(t, map[string]any{"card": "c1", "amount": 1, field: []any{canaryText}}), packed(t, map[string]any{"card": "c1", "amount": 1, field: canaryText}))
	}
	bad = append(bad,
		one(`"words":["`+canaryText+`"]`), one(`"words":"`+strings.Repeat(canaryText, 500)+`"`), one(`"words":"`+canaryText+"\xff"+`"`), one(`"words":"`+canaryText+`\q"`),
		one(`"words":"a","words":"`+canaryText+`"`), one(`"number":`+canaryDigit+`e999`), one(`"number":`+canaryDigit+`x`), one(`"money":"`+canaryDigit+`.123456789"`), one(`"money":"`+canaryDigit+` EUR"`),
		one(`"day":"`+canaryTime+`"`), one(`"day":`+canaryDigit), one(`"flag":`+canaryDigit), one(`"flag":"`+canaryDigit+`"`))
	return good, bad
}

// Values of sensitive fields come in by every way, good and bad, are scored and trained on, and are told of nowhere: not in logs, metrics, alerts, outcomes,
// answers or what commands print.
func TestNothingSensitiveIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := up(t, upConfig{nodes: 1, source: "none", dir: dir, logLevel: "debug"})
	file := filepath.Join(t.TempDir(), "payment.yaml")
	if err := os.WriteFile(file, []byte(sensitiveContract), 0o600); err != nil {
		t.Fatal(err)
	}
	told := map[string]string{} // what was said, by where
	tell := func(args ...string) int {
		out, errOut, code := riskweir(t, append(args, "--context", u.context)...)
		told[fmt.Sprintf("riskweir %v %d", args, len(told))] = out + errOut
		return code
	}
	if code := tell("kind", "apply", file); code != 0 {
		t.Fatalf("kind apply: exit status %d: %v", code, told)
	}
	ctx := testkit.Context(t)
	s := &sender{system: u, http: u.layout.httpURL(), found: map[uint64]*natsjs.RawStreamMsg{}, next: 1}
	good, bad := sensitiveBodies(t)
	testkit.Eventually(t, long, "ingest knows the kind", func() (bool, string) {
		resp, err := http.Get("http" + strings.TrimPrefix(s.http, "https")) //nolint:noctx // that it listens is all
		if err != nil {
			return false, err.Error()
		}
		resp.Body.Close()
		fate, said := s.postTo(t, "/v1/score/payment?deadline=5s", "", good[0])
		return fate == scored, said
	})
	refused := 0
	for i, body := range append(good, bad...) {
		if _, err := u.js.Publish(ctx, fmt.Sprintf("events.payment.n%d", i), body); err != nil {
			t.Fatal(err)
		}
		if _, err := u.js.Publish(ctx, "events.payment.c1", body); err != nil {
			t.Fatal(err)
		}
		fate, said := s.postTo(t, "/v1/score/payment?deadline=10s", "", body)
		told[fmt.Sprintf("answer %d", i)] = said
		if fate != scored {
			refused++
		}
	}
	if refused < len(bad)-5 {
		t.Errorf("%d of %d bad ones were refused: are they bad?", refused, len(bad))
	}
	rows := "id,card,amount,words,number,money,day,flag,fraud\n"
	for i := range 400 {
		rows += fmt.Sprintf("r%d,c%d,%d,%s,%s,%s.10,%sZ,true,%d\n", i, i, i, canaryText, canaryDigit, canaryDigit, canaryTime, i%2)
	}
	for i, cell := range []string{canaryText + ",1,1,,", ",x" + canaryText + ",1,,", ",1," + canaryText + ",,", ",1,1," + canaryText + ",", ",1,1,," + canaryText} {
		rows += fmt.Sprintf("b%d,c,1,%s,0\n", i, cell)
	}
	data := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(data, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := tell("ingest", data, "--kind", "payment", "--label-delay", "1ms"); code != 0 {
		t.Fatalf("ingest: exit status %d: %v", code, told)
	}
	if code := tell("verify", "payment"); code != 0 {
		t.Errorf("verify: exit status %d: %v", code, told)
	}
	if reply, err := u.conn.Request("riskweir.trainer.train", []byte("payment"), long); err != nil {
		t.Errorf("train: %v", err)
	} else {
		told["trainer"] = string(reply.Data)
	}
	tell("status")
	tell("explain", "payment/c7/r7")
	tell("kind", "show", "payment")
	for _, stream := range []string{events.ScoresStream("payment"), events.AlertsStream, events.AuditStream, events.AdvisoriesStream} {
		all, err := u.js.Stream(ctx, stream)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for seq := max(all.CachedInfo().State.FirstSeq, 1); seq <= all.CachedInfo().State.LastSeq; seq++ {
			m, err := all.GetMsg(ctx, seq)
			if errors.Is(err, natsjs.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
			told[fmt.Sprintf("%s %d", stream, seq)] = fmt.Sprintf("%s %v %s", m.Subject, m.Header, m.Data)
		}
		t.Logf("%s: %d messages", stream, n)
	}
	admin := regexp.MustCompile(`"msg":"admin".*"listen":"([^"]+)"`)
	logs, err := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	if err != nil || len(logs) < 5 {
		t.Fatalf("%v, %v", logs, err)
	}
	scraped := 0
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		told[log] = string(text)
		if m := admin.FindSubmatch(text); m != nil {
			resp, err := http.Get("http://" + string(m[1]) + "/metrics") //nolint:noctx
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !strings.Contains(string(body), "go_goroutines") {
				t.Fatalf("%s: %s %v", log, body, err)
			}
			told["metrics of "+log] = string(body)
			scraped++
		}
	}
	if scraped < 4 {
		t.Errorf("metrics of %d processes were read", scraped)
	}
	for where, said := range told {
		for _, canary := range []string{canaryText, canaryDigit, canaryTime} {
			if i := strings.Index(said, canary); i >= 0 {
				t.Errorf("%s tells: ...%s...", where, said[max(0, i-150):min(len(said), i+60)])
			}
		}
	}
	in, err := u.js.Stream(ctx, events.EventsStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := in.GetMsg(ctx, in.CachedInfo().State.FirstSeq); err != nil || !strings.Contains(string(m.Data), canaryText) {
		t.Errorf("EVENTS does not hold what the test looks for: %v", err)
	}
}
