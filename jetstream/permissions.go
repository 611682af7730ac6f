package jetstream

import (
	"slices"

	"github.com/riskweir/riskweir/pkg/events"
)

// Roles of NATS users.
const (
	RoleIngest     = "ingest"
	RoleScorer     = "scorer"
	RoleTrainer    = "trainer"
	RoleMonitor    = "monitor"
	RoleOperator   = "operator"   // provisions and looks at everything
	RolePublisher  = "publisher"  // sends events and labels
	RoleSubscriber = "subscriber" // reads outcomes, live or through a durable consumer
	RoleCaller     = "caller"     // sends events and waits for their scores
)

// Role says what a NATS user of that role may do. Everything not listed is denied.
type Role struct {
	Name      string
	Publish   []string
	Subscribe []string
	All       bool // everything in the account
	Outside   bool // a user of an account of its own, which reaches the streams' through Outside's imports only
}

// Imports are what accounts of outsiders take from the account of the streams. A server answers a publish, and a request, with
// its own rights on whatever reply subject came with it: within the account an outsider could have an answer stored as an outcome, a position
// or a contract. Across accounts the reply is of the server's making.
type Imports struct {
	Publish []string // publishes, and requests with one answer
	Many    []string // requests with many answers
	Live    []string // subscriptions
}

// Outside is all that any outsider needs; its permissions say how much of that it may use. No two overlap.
func Outside() Imports {
	return Imports{
		Publish: []string{
			"events.*.*", "labels.*.*",
			"$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.DIRECT.GET.*.>",
			"$JS.API.CONSUMER.CREATE.*.*.>", "$JS.API.CONSUMER.INFO.*.*", "$JS.API.CONSUMER.DELETE.*.*",
			"$JS.ACK.>",
		},
		Many: []string{"$JS.API.CONSUMER.MSG.NEXT.*.*"},
		Live: []string{"scores.>"},
	}
}

// InboxPrefix of a role. Each has its own, so that none can read another's replies.
func InboxPrefix(role string) string { return "_INBOX_" + role }

// Roles is the permission table. With kinds given it holds for those alone. Without, it holds for kinds yet to
// come; but a wildcard stands for a whole token, so that EVENTS_<kind> cannot be told from other streams:
// then a role that reads one kind of stream through a consumer may also pull from, and delete, consumers
// of other streams, whose names it would have to guess. README.md says what permissions cannot hold.
func Roles(kinds ...string) []Role {
	if len(kinds) == 0 {
		kinds = []string{anyToken}
	}
	g := grants{kinds: kinds}
	kindsAndModels := concat(kvRead(events.KindsBucket), kvRead(events.ModelsBucket))
	roles := []Role{
		{
			Name: RoleIngest,
			Publish: concat(
				g.each(func(k string) []string {
					return concat(
						[]string{"events." + k + ".*", "labels." + k + ".*", "position." + k + ".ingest.*"},
						streamInfos(eventsOf(k), scoresOf(k), events.LabelsStream),
						// How far a file has been ingested is read from the stream's leader.
						[]string{"$JS.API.STREAM.MSG.GET." + eventsOf(k), direct(eventsOf(k), "position."+k+".ingest.*")},
						[]string{direct(scoresOf(k), "scores."+k+".*.*")},
						consume(scoresOf(k), "scores."+k+".>"),
					)
				}),
				kvRead(events.KindsBucket),
				kvRead(events.CallersBucket),
				service(RoleIngest),
			),
			Subscribe: concat(serviceSubjects(RoleIngest), g.live()),
		},
		{
			Name: RoleScorer,
			Publish: concat(
				g.each(func(k string) []string {
					return concat(
						[]string{"commit." + k + ".*.*", "position." + k + ".*"},
						streamInfos(eventsOf(k), scoresOf(k)),
						// The position, and where a run begins, are read from the streams' leaders.
						[]string{"$JS.API.STREAM.MSG.GET." + scoresOf(k), "$JS.API.STREAM.MSG.GET." + eventsOf(k), direct(scoresOf(k), "position."+k+".*")},
						consume(eventsOf(k), "events."+k+".*.*"),
						// The stray lane's consumer has two filters, which no subject can name; the memory's has none.
						[]string{"$JS.API.CONSUMER.CREATE." + eventsOf(k) + ".*"},
						[]string{direct(events.OnlineStream, events.OnlineSubject(k))},
					)
				}),
				streamInfos(events.OnlineStream),
				kindsAndModels,
				kvRead(events.ScorersBucket),
				[]string{"$KV." + events.ScorersBucket + ".>", "members.scorer"},
				objectsRead(events.MemoryBucket),
				[]string{"$O." + events.MemoryBucket + ".>", "$JS.API.STREAM.PURGE.OBJ_" + events.MemoryBucket},
				service(RoleScorer),
			),
			Subscribe: append(serviceSubjects(RoleScorer), "members.scorer"),
		},
		{
			Name: RoleTrainer,
			Publish: concat(
				g.each(func(k string) []string {
					return concat(
						streamInfos(eventsOf(k)),
						[]string{direct(scoresOf(k), "position."+k+".*")}, // for how versions fare at the scorers
						consume(eventsOf(k), "events."+k+".*.*"),
						consume(eventsOf(k), events.KnownFilter(k)), // which has what the log has been told, too
						[]string{events.KnownSubject(k)},
						consume(events.LabelsStream, "labels."+k+".*"),
					)
				}),
				streamInfos(events.LabelsStream, events.OnlineStream),
				g.each(func(k string) []string {
					return []string{events.OnlineSubject(k), direct(events.OnlineStream, events.OnlineSubject(k))}
				}),
				kindsAndModels,
				[]string{"$KV." + events.ModelsBucket + ".>"},
				objectsRead(events.MemoryBucket),
				service(RoleTrainer),
			),
			Subscribe: serviceSubjects(RoleTrainer),
		},
		{
			Name: RoleMonitor,
			Publish: concat(
				[]string{
					"alerts.*.*",
					"$KV." + events.ModelsBucket + ".monitor.*", // who leads; beside it, models are not the monitor's to write
					"$JS.API.STREAM.INFO.*", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES",
					"$JS.API.CONSUMER.INFO.*.*", "$JS.API.CONSUMER.LIST.*", "$JS.API.CONSUMER.NAMES.*",
					"$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>",
					"$SRV.>", "riskweir.*.>",
				},
				kindsAndModels,
				kvRead(events.ScorersBucket),
				service(RoleMonitor),
			),
			Subscribe: append(serviceSubjects(RoleMonitor), "heartbeats.>", "alerts.>", "scores.>", "members.scorer", "$JS.EVENT.>"),
		},
		{Name: RoleOperator, All: true},
		{
			Name: RolePublisher, Outside: true,
			Publish:   g.publisher(),
			Subscribe: []string{InboxPrefix(RolePublisher) + ".>"},
		},
		{
			Name: RoleSubscriber, Outside: true,
			Publish:   g.subscriber(),
			Subscribe: append(g.live(), InboxPrefix(RoleSubscriber)+".>"),
		},
		{
			Name: RoleCaller, Outside: true,
			Publish:   concat(g.publisher(), g.subscriber()),
			Subscribe: append(g.live(), InboxPrefix(RoleCaller)+".>"),
		},
	}
	for i := range roles {
		roles[i].Publish = sorted(roles[i].Publish)
		roles[i].Subscribe = sorted(roles[i].Subscribe)
	}
	return roles
}

const anyToken = "*"

// grants are made for each kind, or for any.
type grants struct{ kinds []string }

func (g grants) each(f func(kind string) []string) []string {
	var out []string
	for _, k := range g.kinds {
		out = append(out, f(k)...)
	}
	return out
}

// live is the live view: what SCORES republishes.
func (g grants) live() []string {
	return g.each(func(k string) []string {
		if k == anyToken {
			return []string{"scores.>"}
		}
		return []string{"scores." + k + ".>"}
	})
}

func (g grants) publisher() []string {
	return g.each(func(k string) []string { return []string{"events." + k + ".*", "labels." + k + ".*"} })
}

func (g grants) subscriber() []string {
	return append(g.each(func(k string) []string {
		return concat(
			streamInfos(scoresOf(k)),
			[]string{direct(scoresOf(k), "scores."+k+".*.*")},
			consume(scoresOf(k), "scores."+k+".>"),
		)
	}), "$JS.API.INFO")
}

func eventsOf(kind string) string {
	if kind == anyToken {
		return anyToken
	}
	return events.EventsStream(kind)
}

func scoresOf(kind string) string {
	if kind == anyToken {
		return anyToken
	}
	return events.ScoresStream(kind)
}

func streamInfos(streams ...string) []string {
	out := make([]string, len(streams))
	for i, s := range streams {
		out[i] = "$JS.API.STREAM.INFO." + s
	}
	return out
}

// direct reads the last message of a subject, from any replica.
func direct(stream, subject string) string { return "$JS.API.DIRECT.GET." + stream + "." + subject }

// consume reads a stream through pull consumers of one's own, which must be filtered: the filter is part of the
// subject by which a consumer is made. Acknowledgements have two shapes, the second since server 2.14 behind
// a feature flag: $JS.ACK.<stream>.<consumer>... and $JS.ACK.<domain>.<account>.<stream>.<consumer>...
func consume(stream, filter string) []string {
	return []string{
		"$JS.API.CONSUMER.CREATE." + stream + ".*." + filter,
		"$JS.API.CONSUMER.INFO." + stream + ".*",
		"$JS.API.CONSUMER.MSG.NEXT." + stream + ".*",
		"$JS.API.CONSUMER.DELETE." + stream + ".*",
		"$JS.ACK." + stream + ".>",
		"$JS.ACK.*.*." + stream + ".>",
	}
}

// kvRead gets, lists and watches a bucket.
func kvRead(bucket string) []string {
	stream, keys := "KV_"+bucket, "$KV."+bucket+".>"
	return []string{
		"$JS.API.STREAM.INFO." + stream,
		"$JS.API.STREAM.MSG.GET." + stream,
		"$JS.API.DIRECT.GET." + stream,
		"$JS.API.DIRECT.GET." + stream + "." + keys,
		"$JS.API.CONSUMER.CREATE." + stream + ".*." + keys,
		"$JS.API.CONSUMER.INFO." + stream + ".*",
		"$JS.API.CONSUMER.DELETE." + stream + ".*",
		"$JS.FC." + stream + ".>",
	}
}

// objectsRead gets and lists an object store.
func objectsRead(bucket string) []string {
	stream, subjects := "OBJ_"+bucket, "$O."+bucket+".>"
	return []string{
		"$JS.API.STREAM.INFO." + stream,
		"$JS.API.STREAM.MSG.GET." + stream,
		"$JS.API.DIRECT.GET." + stream + "." + subjects,
		"$JS.API.CONSUMER.CREATE." + stream + ".*." + subjects,
		"$JS.API.CONSUMER.INFO." + stream + ".*",
		"$JS.API.CONSUMER.DELETE." + stream + ".*",
		"$JS.FC." + stream + ".>",
	}
}

// service is what every service publishes: heartbeats, and answers to those who may ask it. Permission to answer
// whatever comes (allow_responses) would do for the latter too, but the server then keeps every message
// delivered with a reply subject in mind, and so every event of a run.
func service(role string) []string {
	return []string{
		"$JS.API.INFO",
		"heartbeats." + role + ".>",
		InboxPrefix(RoleOperator) + ".>",
		InboxPrefix(RoleMonitor) + ".>",
	}
}

// serviceSubjects are what every service listens to: its inbox, the micro protocol, its own endpoints.
func serviceSubjects(role string) []string {
	return []string{InboxPrefix(role) + ".>", "$SRV.>", "riskweir." + role + ".>"}
}

func concat(lists ...[]string) []string { return slices.Concat(lists...) }

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
