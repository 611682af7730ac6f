package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/ingest"
	"github.com/riskweir/riskweir/internal/supervise"
	"github.com/riskweir/riskweir/internal/testkit"
)

const loanContract = `
kind: loan
id: loan_id
entity: customer
fields:
  - {name: amount, type: number, required: true}
  - {name: channel, type: category}
label: {column: defaulted, positive: ["1"]}
lanes: 4
prior: 0.1
`

// loanFile has good rows and some bad ones, after whose numbers it is asked.
func loanFile(t *testing.T, rows int) (file string, good int, bad []int64) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("loan_id,customer,amount,channel,defaulted\n")
	for i := 1; i <= rows; i++ {
		amount := fmt.Sprintf("%d.%02d", 100+i*37%900, i%100)
		switch {
		case i%400 == 1: // not a number
			amount = "a lot"
		case i%400 == 2: // missing and required
			amount = ""
		case i%400 == 3: // a cell too many
			amount += ",9"
		}
		if i%400 >= 1 && i%400 <= 3 {
			bad = append(bad, int64(i))
		} else {
			good++
		}
		defaulted := 0
		if i*37%900 > 700 && i%5 != 0 || i%23 == 0 {
			defaulted = 1
		}
		fmt.Fprintf(&b, "L%d,c.%d,%s,%s,%d\n", i, i%97, amount, []string{"web", "branch", `"a, b"`}[i%3], defaulted)
	}
	file = filepath.Join(t.TempDir(), "loans.csv")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, good, bad
}

func TestUpFileUntilDone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, good, bad := loanFile(t, 1600)
	contract := filepath.Join(t.TempDir(), "loan.yaml")
	if err := os.WriteFile(contract, []byte(loanContract), 0o600); err != nil {
		t.Fatal(err)
	}
	nats, http := freePorts()
	out, errOut, code := riskweir(t, "up", "--nodes", "1", "--dir", dir, "--nats-port", nats, "--http-port", http, "--context-name", "", "--summary", "json",
		"--source", file, "--contract", contract, "--rate", "2000", "--label-delay", "300ms", "--until-done")
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, errOut)
	}
	s := decodeSummary(t, []byte(out))
	if !s.OK || s.Kind != "loan" || s.Events != uint64(good) || s.Scored != uint64(good) || s.Invalid != 0 || s.Restarts != 0 {
		t.Errorf("of %d good rows: %+v", good, s)
	}
	invalid := filepath.Join(dir, "loans.csv.invalid.jsonl")
	if got := badRows(t, invalid); !slices.Equal(got, bad) {
		t.Errorf("bad rows %v, want %v", got, bad)
	}

	// Again on the same directory: all of it is there already.
	u := up(t, upConfig{nodes: 1, dir: dir, source: file, contract: contract, labelDelay: 300 * time.Millisecond, rate: 2000})
	testkit.Eventually(t, long, "the source finishes", func() (bool, string) {
		all := u.sup.Status()
		i := slices.IndexFunc(all, func(c supervise.Status) bool { return c.Name == "source" })
		return i >= 0 && all[i].State == supervise.Finished, fmt.Sprint(all)
	})
	if got := badRows(t, invalid); !slices.Equal(got, bad) {
		t.Errorf("bad rows after the second life %v, want %v", got, bad)
	}
	other, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	longer := filepath.Join(t.TempDir(), "loans.csv")
	if err := os.WriteFile(longer, append(other, "L9999,c.1,5,web,0\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	another := filepath.Join(t.TempDir(), "loans.csv")
	if err := os.WriteFile(another, []byte("loan_id,customer,amount\nX1,c.1,5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(strings.Replace(loanContract, "prior: 0.1", "prior: 0.2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args string
		code int
		want []string
	}{
		{"verify loan --source " + file, 0, []string{fmt.Sprintf("events=%d scored=%d invalid=0 missing=0 duplicate=0 disorder=0", good, good)}},
		{"verify --json", 0, []string{`"missing": 0`}},
		{"verify loan --source " + longer, 1, []string{"L9999", "no outcome has this id"}},
		{"verify nokind", 2, nil},
		{"kind list", 0, []string{"loan", "4 lanes"}},
		{"kind show loan", 0, []string{"entity: customer", "prior: 0.1"}},
		{"kind diff " + contract, 0, nil},
		{"kind diff " + changed, 1, []string{"prior: 0.1 -> 0.2"}},
		{"topology plan", 0, []string{"nothing to change"}},
		{"topology show loan", 0, []string{`"name": "EVENTS_loan"`}},
		{"doctor", 0, []string{"ok             api level", "ok             topology", "ok             permissions", "cannot see it  fsync"}},
		{"explain loan/c.5", 0, []string{"c.5"}},
		{"explain loan/nobody", 2, nil},
		{"replay loan --model all --assert-equal", 0, []string{"different=0 not_comparable=0"}},
		{"replay --model all --assert-equal --json", 0, []string{`"different": 0`}},
		{"replay loan --model v99999", 2, []string{"loan.v099999: no such model version"}},
		{"replay loan --model v99999 --assert-equal", 1, []string{"compared=0", "proves nothing"}},
		{"replay loan --model all", 2, []string{"--model all needs --assert-equal"}},
		{"replay loan --model all --assert-equal --publish", 2, []string{"--assert-equal writes nothing"}},
		{"replay loan --model v1 --amount x", 2, []string{"--against"}},
		{"replay loan --model v1 --svg x.svg", 2, []string{"--against"}},
		{"replay loan --model v1 --from yesterday", 2, []string{`--from "yesterday": want a sequence`}},
		{"ingest " + file + " --kind loans", 2, []string{"kind loans is not declared: riskweir kind infer"}},
		{"ingest " + another + " --kind loan", 2, []string{"the source's name belongs to another file"}},
		{"ingest " + another + " --kind loan --source-name another", 0, []string{"1 rows, 0 of them bad"}},
		{"ingest " + longer + " --kind loan", 0, []string{"1601 rows, 12 of them bad"}}, // it has grown
		{"verify loan --source " + longer, 0, []string{fmt.Sprintf("events=%d scored=%d invalid=0 missing=0 duplicate=0 disorder=0", good+2, good+2)}},
	} {
		out, errOut, code := riskweir(t, slices.Concat(strings.Fields(x.args), []string{"--context", u.context})...)
		if code != x.code {
			t.Errorf("%s: exit status %d, want %d: %s%s", x.args, code, x.code, out, errOut)
		}
		if code == 2 && (errOut == "" || strings.Contains(errOut, "panic")) {
			t.Errorf("%s: %q", x.args, errOut)
		}
		for _, want := range x.want {
			if !strings.Contains(out+errOut, want) {
				t.Errorf("%s printed %q, want %q", x.args, out+errOut, want)
			}
		}
	}
}

// A source that cannot be read ends the run with the reason, rather than never.
func TestUpFileThatFails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "loans.csv")
	contract := filepath.Join(t.TempDir(), "loan.yaml")
	if err := errors.Join(os.WriteFile(file, []byte("loan_id,customer,channel\nL1,c.1,web\n"), 0o600), os.WriteFile(contract, []byte(loanContract), 0o600)); err != nil {
		t.Fatal(err)
	}
	nats, http := freePorts()
	out, errOut, code := riskweir(t, "up", "--nodes", "1", "--dir", t.TempDir(), "--nats-port", nats, "--http-port", http, "--context-name", "", "--summary", "json",
		"--source", file, "--contract", contract, "--until-done")
	if code != 2 || !strings.Contains(errOut, "the source failed: ingest "+file) || !strings.Contains(errOut, "amount") {
		t.Errorf("exit status %d: %s", code, errOut)
	}
	if s := decodeSummary(t, []byte(out)); s.Events != 0 || !s.Verified {
		t.Errorf("%+v", s)
	}
}

// badRows lists the row numbers in a file of bad rows.
func badRows(t *testing.T, file string) (rows []int64) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var b ingest.BadRow
		if err := json.Unmarshal(line, &b); err != nil {
			t.Fatal(err)
		}
		if b.Reason == "" || b.Line != b.Row+1 || !strings.HasPrefix(b.Text, fmt.Sprintf("L%d,", b.Row)) {
			t.Errorf("%+v", b)
		}
		rows = append(rows, b.Row)
	}
	return rows
}
