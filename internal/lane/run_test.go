package lane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestParseDelivery(t *testing.T) {
	want := delivery{consumer: "lane-3-7-x", streamSeq: 41, consumerSeq: 9, stored: time.Unix(0, 1767225600123456789).UTC()}
	for _, reply := range []string{
		"$JS.ACK.EVENTS_payment.lane-3-7-x.1.41.9.1767225600123456789.0",
		"$JS.ACK._.ACCHASH.EVENTS_payment.lane-3-7-x.1.41.9.1767225600123456789.0",
		"$JS.ACK.hub.ACCHASH.EVENTS_payment.lane-3-7-x.1.41.9.1767225600123456789.0.token",
		"$JS.ACK.hub.ACCHASH.EVENTS_payment.lane-3-7-x.1.41.9.1767225600123456789.0.token.more.and.more",
	} {
		if got, ok := parseDelivery(reply); !ok || got != want {
			t.Errorf("%s: %+v, %t", reply, got, ok)
		}
	}
	for _, reply := range []string{
		"", "$JS.ACK.", "$JS.ACK", "_INBOX.x", "$JS.ACK.S.c.1.2.3.4", "$JS.ACK.S.c.1.2.3.4.5.6",
		"$JS.ACK.S.c.1.x.3.4.5", "$JS.ACK.S.c.1.2.x.4.5", "$JS.ACK.S.c.1.2.3.x.5", "$JS.ACK.S.c.1.-2.3.4.5",
		"$JS.ACK.S.c.1.18446744073709551616.3.4.5",
	} {
		if got, ok := parseDelivery(reply); ok {
			t.Errorf("%q is taken for %+v", reply, got)
		}
	}
}

// FuzzParseDelivery holds it against a dumb reading of the same subject.
func FuzzParseDelivery(f *testing.F) {
	f.Add("$JS.ACK.S.c.1.2.3.4.5")
	f.Add("$JS.ACK.d.a.S.c.1.2.3.4.5")
	f.Add("$JS.ACK.d.a.S.c.1.2.3.4.5.6.7")
	f.Add("$JS.ACK.S.c.1.2.3.-4.5")
	f.Add("$JS.ACK......")
	f.Fuzz(func(t *testing.T, reply string) {
		got, ok := parseDelivery(reply)
		p := strings.Split(reply, ".")
		if len(p) < 2 || p[0] != "$JS" || p[1] != "ACK" {
			p = nil
		}
		var tail []string // consumer, delivered, stream, consumer, time
		switch {
		case len(p) == 9:
			tail = p[3:]
		case len(p) >= 11:
			tail = p[5:]
		}
		if !ok {
			return
		}
		if tail == nil {
			t.Fatalf("%q has %d tokens and is taken for %+v", reply, len(p), got)
		}
		if tail[0] != got.consumer {
			t.Fatalf("%q: consumer %q", reply, got.consumer)
		}
		for i, n := range []uint64{got.streamSeq, got.consumerSeq} {
			if s := strings.TrimLeft(tail[2+i], "0"); s != fmt.Sprint(n) && !(s == "" && n == 0) {
				t.Fatalf("%q: %d is not %s", reply, n, tail[2+i])
			}
		}
	})
}

func TestRunReads(t *testing.T) {
	const inbox = "_INBOX.run"
	status := func(code, text string, header ...string) *nats.Msg {
		m := nats.NewMsg(inbox + ".1")
		m.Header.Set("Status", code)
		m.Header.Set("Description", text)
		for i := 0; i < len(header); i += 2 {
			m.Header.Set(header[i], header[i+1])
		}
		return m
	}
	event := func(reply string) *nats.Msg {
		return &nats.Msg{Subject: "events.payment.3.c1", Reply: reply, Data: []byte("{}"),
			Header: nats.Header{"Content-Type": {"application/msgpack"}, "Riskweir-History": {"1"}}}
	}
	for _, c := range []struct {
		name        string
		msg         *nats.Msg
		want        Input
		outstanding int // of 10
	}{
		{"event", event("$JS.ACK.S.mine.1.41.9.5.0"), Delivered{Run: 4, Consumer: 9, Event: Event{
			Seq: 41, Stored: time.Unix(0, 5).UTC(), Subject: "events.payment.3.c1", History: true, Type: "application/msgpack", Body: []byte("{}")}}, 9},
		{"another run's event", event("$JS.ACK.S.other.1.41.9.5.0"), RunEnded{4, `message with reply "$JS.ACK.S.other.1.41.9.5.0" is none of this run`}, 10},
		{"no event", event("reply"), RunEnded{4, `message with reply "reply" is none of this run`}, 10},
		{"heartbeat", status("100", "Idle Heartbeat", "Nats-Last-Consumer", "9", "Nats-Last-Stream", "50"), Heartbeat{Run: 4, Consumer: 9, Stream: 50}, 10},
		{"pull expired", status("408", "Request Timeout", "Nats-Pending-Messages", "7"), nil, 3},
		{"pull expired twice over", status("408", "Request Timeout", "Nats-Pending-Messages", "70"), nil, 0},
		{"no messages", status("404", "No Messages", "Nats-Pending-Messages", "2"), nil, 8},
		{"pull full", status("409", "Batch Completed", "Nats-Pending-Messages", "1"), nil, 9},
		{"consumer deleted", status("409", "Consumer Deleted"), RunEnded{4, "status 409 Consumer Deleted"}, 10},
		{"leader change", status("409", "Leadership Change"), RunEnded{4, "status 409 Leadership Change"}, 10},
		{"no responders", status("503", ""), RunEnded{4, "status 503"}, 10},
		{"no status", nats.NewMsg(inbox + ".1"), RunEnded{4, "status"}, 10},
	} {
		r := &run{id: 4, name: "mine", inbox: inbox, outstanding: 10}
		got := r.read(c.msg)
		if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", c.want) || r.outstanding != c.outstanding {
			t.Errorf("%s: %#v with %d outstanding, want %#v with %d", c.name, got, r.outstanding, c.want, c.outstanding)
		}
	}
	r := &run{id: 4, inbox: inbox}
	if _, ok := r.read(status("100", "Idle Heartbeat", "Nats-Last-Consumer", "nine", "Nats-Last-Stream", "50")).(RunEnded); !ok {
		t.Error("a heartbeat that cannot be read does not end the run")
	}
}
