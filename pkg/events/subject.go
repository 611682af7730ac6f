package events

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxEntityBytes bounds an entity id before escaping. The server refuses a
// protocol line of more than 4,096 bytes, and an escaped byte takes three.
const MaxEntityBytes = 256

// MaxLanes is bounded by the server's 50 atomic batches in flight a stream.
const MaxLanes = 50

// StrayLane, which every kind has beside its others, holds the events that the server stores without giving them a
// lane: those published to the literal subjects events.<kind>.* and events.<kind>.>, which no subject transform takes
// and no permission can keep out. Their outcome is invalid.
const StrayLane = MaxLanes

// StrayToken is the entity of the events of StrayLane, which name none.
const StrayToken = "unknown"

// Bands of an outcome, as they stand in its subject.
const (
	BandLow     = "low"
	BandMedium  = "medium"
	BandHigh    = "high"
	BandHistory = "history" // feeds training only: no decision leaves
	BandInvalid = "invalid"
	BandExpired = "expired"

	BandRepeat   = "repeat"   // an earlier event has the id, and the same content
	BandConflict = "conflict" // an earlier event has the id, and other content
)

// Streams and buckets that all kinds share.
const (
	LabelsStream     = "LABELS"
	RescoresStream   = "RESCORES"
	RolloutsStream   = "ROLLOUTS"
	OnlineStream     = "ONLINE"
	AlertsStream     = "ALERTS"
	AdvisoriesStream = "ADVISORIES"
	AuditStream      = "AUDIT"
	ModelsBucket     = "MODELS"
	KindsBucket      = "KINDS"
	ScorersBucket    = "SCORERS"
	ErasuresBucket   = "ERASURES" // tombstones
	CallersBucket    = "CALLERS"  // who may call over HTTP
	MemoryBucket     = "MEMORY"   // an object store
)

var (
	ErrEntity = errors.New("entity id")
	ErrKind   = errors.New("kind name")
)

var kindName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// CheckKind refuses a name that could not stand in a stream name and a subject.
func CheckKind(kind string) error {
	if !kindName.MatchString(kind) {
		return fmt.Errorf("%w %q: want a lower-case letter, then up to 31 of a-z, 0-9 and _", ErrKind, kind)
	}
	return nil
}

func EventsStream(kind string) string { return "EVENTS_" + kind }
func ScoresStream(kind string) string { return "SCORES_" + kind }

// EventSubject is where a publisher sends an event of an entity. The server
// stores it under StoredEventSubject: publishers know nothing of lanes.
func EventSubject(kind, entity string) (string, error) {
	token, err := EscapeEntity(entity)
	if err != nil {
		return "", err
	}
	return "events." + kind + "." + token, nil
}

func LabelSubject(kind, entity string) (string, error) {
	token, err := EscapeEntity(entity)
	if err != nil {
		return "", err
	}
	return "labels." + kind + "." + token, nil
}

// LaneNumbers are those of a kind's lanes: 0 to lanes-1, then StrayLane.
func LaneNumbers(lanes int) []int {
	numbers := make([]int, lanes+1)
	for lane := range lanes {
		numbers[lane] = lane
	}
	numbers[lanes] = StrayLane
	return numbers
}

// LaneFilter matches the stored events of one lane; of StrayLane, those that a single filter can: see StrayFilters.
func LaneFilter(kind string, lane int) string {
	if lane == StrayLane {
		return "events." + kind + ".*"
	}
	return "events." + kind + "." + strconv.Itoa(lane) + ".*"
}

// StrayFilters match the stored events of StrayLane. The server compares a single filter with a subject as patterns, where
// the literal events.<kind>.> is no part of events.<kind>.*; two filters it compares token by token, where it is.
// Nothing is ever stored under the second.
func StrayFilters(kind string) []string {
	return []string{"events." + kind + ".*", "position." + kind + ".ingest.%"}
}

// StoredEvent is the parsed subject of an event as EVENTS_<kind> stores it: events.<kind>.<lane>.<token>, or
// one of the two of StrayLane.
type StoredEvent struct {
	Kind  string
	Lane  int
	Token string // the entity, escaped
}

func ParseStoredEvent(subject string) (StoredEvent, error) {
	rest, ok := strings.CutPrefix(subject, "events.")
	kind, rest, ok2 := strings.Cut(rest, ".")
	if ok && kind != "" && (rest == "*" || rest == ">") {
		return StoredEvent{Kind: kind, Lane: StrayLane, Token: StrayToken}, nil
	}
	lane, token, ok3 := strings.Cut(rest, ".")
	n, laneOK := laneNumber(lane)
	if !ok || !ok2 || !ok3 || !laneOK || token == "" || strings.Contains(token, ".") {
		return StoredEvent{}, fmt.Errorf("subject %q: want events.<kind>.<lane>.<entity>", subject)
	}
	return StoredEvent{Kind: kind, Lane: n, Token: token}, nil
}

// laneNumber reads a lane as subjects have it: 007 and +7 are other subjects, and no lane.
func laneNumber(token string) (lane int, ok bool) {
	lane, err := strconv.Atoi(token)
	return lane, err == nil && lane >= 0 && strconv.Itoa(lane) == token
}

// CommitSubject is where a scorer publishes an outcome; only scorers may.
// SCORES_<kind> stores it under ScoreSubject.
func CommitSubject(kind, band, token string) string {
	return "commit." + kind + "." + band + "." + token
}

func ScoreSubject(kind, band, token string) string {
	return "scores." + kind + "." + band + "." + token
}

// StoredScore is the parsed subject of an outcome: scores.<kind>.<band>.<token>.
type StoredScore struct {
	Kind, Band string
	Token      string // the entity, escaped
}

func ParseStoredScore(subject string) (StoredScore, error) {
	p := strings.Split(subject, ".")
	if len(p) != 4 || p[0] != "scores" || p[1] == "" || p[2] == "" || p[3] == "" {
		return StoredScore{}, fmt.Errorf("subject %q: want scores.<kind>.<band>.<entity>", subject)
	}
	return StoredScore{Kind: p[1], Band: p[2], Token: p[3]}, nil
}

// PositionSubject is the subject, in SCORES_<kind>, of the position that a lane has reached.
func PositionSubject(kind string, lane int) string {
	return "position." + kind + "." + strconv.Itoa(lane)
}

// ParsePositionSubject returns the lane of position.<kind>.<lane>.
func ParsePositionSubject(subject string) (kind string, lane int, err error) {
	p := strings.Split(subject, ".")
	if len(p) == 3 && p[0] == "position" {
		if lane, ok := laneNumber(p[2]); ok {
			return p[1], lane, nil
		}
	}
	return "", 0, fmt.Errorf("subject %q: want position.<kind>.<lane>", subject)
}

// RescoreSubject is where a replay publishes what a model version says of a stored event: model is <kind>.v<NNNNNN>.
func RescoreSubject(model, band, token string) string {
	return "rescores." + model + "." + band + "." + token
}

// RescorePositionSubject is the subject, in RESCORES, of how far a version's rescores have come.
func RescorePositionSubject(model string) string { return "rescores." + model + ".position" }

// RescoreFilter matches the rescores of a version, and their positions.
func RescoreFilter(model string) string { return "rescores." + model + ".>" }

// SourcePositionSubject is the subject, in EVENTS_<kind>, of how far a file has been ingested.
func SourcePositionSubject(kind, source string) (string, error) {
	token, err := EscapeEntity(source)
	if err != nil {
		return "", err
	}
	return "position." + kind + ".ingest." + token, nil
}

// AlertSubject is alerts.<severity>.<what>.
func AlertSubject(severity, what string) string { return "alerts." + severity + "." + what }

// HeartbeatSubject carries a service's own account of itself, once a second, over core NATS.
func HeartbeatSubject(service, instance string) string {
	return "heartbeats." + service + "." + instance
}

const hexDigits = "0123456789ABCDEF"

// plain says which bytes stand for themselves in a subject token.
func plain(b byte) bool { return b > ' ' && b != '.' && b != '*' && b != '>' && b != '%' && b != 0x7f }

// EscapeEntity turns an entity id into one subject token: bytes that would change
// the subject's shape become %XX. Two ids never share a token.
func EscapeEntity(id string) (string, error) {
	switch {
	case id == "":
		return "", fmt.Errorf("%w is empty: every event needs one", ErrEntity)
	case len(id) > MaxEntityBytes:
		return "", fmt.Errorf("%w of %d bytes: at most %d", ErrEntity, len(id), MaxEntityBytes)
	case !utf8.ValidString(id):
		return "", fmt.Errorf("%w %q is not UTF-8", ErrEntity, id)
	}
	i := 0
	for i < len(id) && plain(id[i]) {
		i++
	}
	if i == len(id) {
		return id, nil
	}
	out := append(make([]byte, 0, len(id)+16), id[:i]...)
	for ; i < len(id); i++ {
		if b := id[i]; plain(b) {
			out = append(out, b)
		} else {
			out = append(out, '%', hexDigits[b>>4], hexDigits[b&15])
		}
	}
	return string(out), nil
}

// UnescapeEntity is the inverse of EscapeEntity. A token that EscapeEntity could not have made (someone
// published it by hand) stands for itself, so that no token is without an entity.
func UnescapeEntity(token string) string {
	if strings.IndexByte(token, '%') < 0 {
		return token
	}
	out := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		if token[i] != '%' {
			out = append(out, token[i])
			continue
		}
		if i+2 >= len(token) {
			return token
		}
		hi, lo := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
		if hi < 0 || lo < 0 || plain(byte(hi<<4|lo)) {
			return token
		}
		out = append(out, byte(hi<<4|lo))
		i += 2
	}
	return string(out)
}

// RolloutSubject of a kind in ROLLOUTS, to which the server copies each change of its rollout record in MODELS.
func RolloutSubject(kind string) string { return "rollouts." + kind }

// OnlineSubject is where the snapshots of a kind's member that learns online stand.
func OnlineSubject(kind string) string { return "online." + kind }
