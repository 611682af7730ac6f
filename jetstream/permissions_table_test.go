package jetstream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
)

// covers says whether a permission pattern takes in all of a subject, which may hold wildcards itself. It is not the server's code.
func covers(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return i < len(s)
		case i >= len(s) || s[i] == ">":
			return false
		case token != "*" && token != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}

func anyCovers(patterns []string, subject string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, subject) })
}

func TestCovers(t *testing.T) {
	for _, x := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.b", "a.b.c", false}, {"a.b.c", "a.b", false},
		{"a.*", "a.b", true}, {"a.*", "a.*", true}, {"a.*", "a.>", false}, {"a.*", "a.b.c", false}, {"a.b", "a.*", false},
		{"a.>", "a.b.c", true}, {"a.>", "a.>", true}, {"a.>", "a.*", true}, {"a.>", "a", false}, {">", "a", true}, {"*", ">", false},
	} {
		if got := covers(x.pattern, x.subject); got != x.want {
			t.Errorf("%s covers %s: %v", x.pattern, x.subject, got)
		}
	}
}

// concrete is a subject that the pattern takes in.
func concrete(pattern string) string {
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		switch token {
		case "*":
			tokens[i] = "x"
		case ">":
			tokens[i] = "x.y"
		}
	}
	return strings.Join(tokens, ".")
}

// administration is what nobody but the operator may ask of a stream, a consumer, or the cluster.
func administration(streams []string) []string {
	var out []string
	for _, s := range streams {
		for _, verb := range []string{"STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE", "STREAM.SNAPSHOT", "STREAM.RESTORE",
			"STREAM.LEADER.STEPDOWN", "STREAM.PEER.REMOVE", "CONSUMER.CREATE", "CONSUMER.LIST", "CONSUMER.NAMES"} {
			out = append(out, "$JS.API."+verb+"."+s)
		}
		for _, verb := range []string{"CONSUMER.DURABLE.CREATE", "CONSUMER.CREATE", "CONSUMER.DELETE", "CONSUMER.PAUSE", "CONSUMER.RESET", "CONSUMER.UNPIN",
			"CONSUMER.LEADER.STEPDOWN", "CONSUMER.MSG.NEXT", "CONSUMER.INFO"} {
			out = append(out, "$JS.API."+verb+"."+s+".x")
		}
		out = append(out, "$JS.API.CONSUMER.CREATE."+s+".x.>", "$JS.API.STREAM.MSG.GET."+s, "$JS.API.DIRECT.GET."+s, "$JS.ACK."+s+".x.1.1.1.1.0")
	}
	return append(out, "$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE", "$JS.API.ACCOUNT.PURGE.APP", "$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.x.RELOAD",
		"$SYS.REQ.USER.INFO.x", "scores.payment.low.x", "rescores.payment.v000001.low.x", "events.payment.0.x")
}

// streamsOf are the streams that any permission names.
func streamsOf(roles []topology.Role) []string {
	var out []string
	for _, r := range roles {
		for _, p := range r.Publish {
			for _, verb := range []string{"$JS.API.STREAM.INFO.", "$JS.API.STREAM.MSG.GET.", "$JS.API.CONSUMER.INFO."} {
				if s, ok := strings.CutPrefix(p, verb); ok {
					out = append(out, concrete(strings.SplitN(s, ".", 2)[0]))
				}
			}
		}
	}
	out = append(out, "EVENTS_payment", "SCORES_payment", "RESCORES", "ALERTS", "ADVISORIES", "AUDIT")
	slices.Sort(out)
	return slices.Compact(out)
}

// Every line of the table is tried on a real server, and so is every subject of any other role, and of administration, that a role does not
// have: what it has is allowed, and all else refused. A row that is added is tried by itself.
func TestPermissionTable(t *testing.T) {
	for _, kinds := range [][]string{{"payment"}, nil} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			roles := topology.Roles(kinds...)
			var users []embedded.User
			var publish, subscribe []string // all there is to try
			for _, r := range roles {
				users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, All: r.All, Outside: r.Outside})
				for _, p := range r.Publish {
					publish = append(publish, concrete(p))
				}
				subscribe = append(append(subscribe, r.Subscribe...), topology.InboxPrefix(r.Name)+".>")
			}
			publish = append(publish, administration(streamsOf(roles))...)
			subscribe = append(append(subscribe, publish...), ">", "*", "*.>", "_INBOX.>", "$JS.>", "$SYS.>", "commit.>", "events.>", "position.>", "$KV.>", "labels.>", "scores.>", "scores.*.*.*")
			publish, subscribe = unique(publish), unique(subscribe)
			c := testkit.Start(t, 1, testkit.Users(users...))
			var allowed, refused int
			for _, r := range roles {
				if r.All {
					continue
				}
				a := as(t, c, r.Name)
				may, mayNot := [2][]string{}, [2][]string{}
				for i, x := range []struct{ rows, all []string }{{r.Publish, publish}, {r.Subscribe, subscribe}} {
					for _, s := range x.all {
						if anyCovers(x.rows, s) {
							may[i] = append(may[i], s)
						} else {
							mayNot[i] = append(mayNot[i], s)
						}
					}
					for _, row := range x.rows { // each row is tried
						if !slices.ContainsFunc(may[i], func(s string) bool { return covers(row, s) }) {
							t.Errorf("%s: nothing tries %s", r.Name, row)
						}
					}
				}
				a.try(may[0], may[1])
				if got := a.settle(); len(got) > 0 {
					t.Errorf("%s was refused what the table allows: %s", r.Name, strings.Join(got, ", "))
				}
				a.mayNot(mayNot[0], mayNot[1])
				allowed += len(may[0]) + len(may[1])
				refused += len(mayNot[0]) + len(mayNot[1])
				t.Logf("%-10s %3d rows; publish: %3d allowed, %3d refused; subscribe: %3d allowed, %3d refused",
					r.Name, len(r.Publish)+len(r.Subscribe), len(may[0]), len(mayNot[0]), len(may[1]), len(mayNot[1]))
			}
			t.Logf("%d allowed, %d refused", allowed, refused)
			named(t, roles)
		})
	}
}

// named are the refusals that matter most, by name.
func named(t *testing.T, roles []topology.Role) {
	t.Helper()
	for _, r := range roles {
		if r.All {
			continue
		}
		may := func(subject string) bool { return anyCovers(r.Publish, subject) }
		reads := func(subject string) bool { return anyCovers(r.Subscribe, subject) }
		for _, s := range []string{"STREAM.DELETE.x", "STREAM.PURGE.x", "STREAM.MSG.DELETE.x", "STREAM.CREATE.x", "STREAM.UPDATE.x", "STREAM.RESTORE.x", "STREAM.SNAPSHOT.x"} {
			if may("$JS.API." + s) {
				t.Errorf("%s may %s", r.Name, s)
			}
		}
		for _, row := range r.Publish { // the one exception is a cache, whose old pieces its writers remove
			verb := strings.TrimPrefix(row, "$JS.API.STREAM.")
			if strings.HasPrefix(verb, "PURGE") || strings.HasPrefix(verb, "DELETE") || strings.HasPrefix(verb, "MSG.DELETE") {
				if r.Name != topology.RoleScorer || row != "$JS.API.STREAM.PURGE.OBJ_MEMORY" {
					t.Errorf("%s may %s", r.Name, row)
				}
			}
		}
		if r.Name != topology.RoleScorer && (may("commit.payment.low.x") || may("position.payment.0")) {
			t.Errorf("%s may commit", r.Name)
		}
		if r.Name != topology.RoleTrainer && may("$KV.MODELS.payment.rollout") {
			t.Errorf("%s may change models", r.Name)
		}
		if may("scores.payment.low.x") || may("$KV.KINDS.payment") {
			t.Errorf("%s may say what looks committed, or declare kinds", r.Name)
		}
		if r.Name == topology.RolePublisher && (reads("scores.payment.low.x") || len(r.Subscribe) != 1 || len(slices.DeleteFunc(slices.Clone(r.Publish), func(s string) bool {
			return strings.HasPrefix(s, "events.") || strings.HasPrefix(s, "labels.")
		})) > 0) {
			t.Error("a publisher may do more than send")
		}
		for _, other := range roles {
			if other.Name != r.Name && reads(topology.InboxPrefix(other.Name)+".x") {
				t.Errorf("%s reads what is answered to %s", r.Name, other.Name)
			}
		}
	}
}

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// try publishes and subscribes without looking at what comes of it.
func (a *actor) try(publish, subscribe []string) {
	a.t.Helper()
	for _, s := range publish {
		if err := a.nc.Publish(s, nil); err != nil {
			a.t.Fatal(err)
		}
	}
	var subs []*nats.Subscription
	for _, s := range subscribe {
		sub, err := a.nc.SubscribeSync(s)
		if err != nil {
			a.t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	for _, sub := range subs {
		if err := sub.Unsubscribe(); err != nil {
			a.t.Fatal(err)
		}
	}
}
