package events

import "time"

// Decisions of a kind's policy.
const (
	Approve = "approve"
	Review  = "review"
	Decline = "decline"
	None    = "none" // history: no decision leaves
)

// Lists of entities by which a decision is made, whatever the score.
const (
	Allow = "allow" // approve
	Deny  = "deny"  // decline
)

// Overridden is what a list decides.
func Overridden(list string) string {
	if list == Allow {
		return Approve
	}
	return Decline
}

// Reason is what one source field added to the logit, against the model's baseline.
type Reason struct {
	Field string  `json:"field" msgpack:"field"`
	Add   float64 `json:"add" msgpack:"add"`                       // log-odds
	Code  string  `json:"code,omitempty" msgpack:"code,omitempty"` // of the field, as the model has it; empty: it is of before there were codes
}

// Score is the outcome of a valid event. It is a pure function of the event, the
// artifact that Model names, the snapshot, who voted by Mode, the contract and the policy.
type Score struct {
	ID       string    `json:"id" msgpack:"id"`
	Seq      uint64    `json:"seq" msgpack:"seq"` // EVENTS sequence
	Kind     string    `json:"kind" msgpack:"kind"`
	Entity   string    `json:"entity" msgpack:"entity"`
	P        float64   `json:"p" msgpack:"p"`           // probability of the bad outcome, [0, 1]
	Points   int       `json:"points" msgpack:"points"` // rise as risk falls
	Band     string    `json:"band" msgpack:"band"`
	Decision string    `json:"decision" msgpack:"decision"`
	Reasons  []Reason  `json:"reasons,omitempty" msgpack:"reasons,omitempty"`
	Model    string    `json:"model,omitempty" msgpack:"model,omitempty"`       // <kind>.v<NNNNNN>; empty: the prior
	Revision uint64    `json:"revision" msgpack:"revision"`                     // of the rollout record
	Contract uint64    `json:"contract" msgpack:"contract"`                     // revision of the contract in KINDS
	Mode     string    `json:"mode" msgpack:"mode"`                             // see ParseMode
	Snapshot uint64    `json:"snapshot,omitempty" msgpack:"snapshot,omitempty"` // sequence in ONLINE of what the member online voted with
	Time     time.Time `json:"time" msgpack:"time"`                             // the event's, or when it was stored

	// Override is the list, allow or deny, that made the decision, and OverrideRevision the revision of the kind's lists in MODELS. Empty and 0: the
	// contract made it.
	Override         string `json:"override,omitempty" msgpack:"override,omitempty"`
	OverrideRevision uint64 `json:"override_revision,omitempty" msgpack:"override_revision,omitempty"`
}

// Invalid is the outcome of an event that cannot be scored.
type Invalid struct {
	ID       string `json:"id,omitempty" msgpack:"id,omitempty"`
	Seq      uint64 `json:"seq" msgpack:"seq"`
	Kind     string `json:"kind" msgpack:"kind"`
	Entity   string `json:"entity" msgpack:"entity"`
	Field    string `json:"field,omitempty" msgpack:"field,omitempty"`
	Reason   string `json:"reason" msgpack:"reason"`
	Attempts int    `json:"attempts,omitempty" msgpack:"attempts,omitempty"` // scorers that died on it
	Contract uint64 `json:"contract" msgpack:"contract"`
}

// Repeat is the outcome of an event whose id an earlier one of the kind has. It is not scored, and not remembered.
type Repeat struct {
	ID       string `json:"id" msgpack:"id"`
	Seq      uint64 `json:"seq" msgpack:"seq"`
	First    uint64 `json:"first_seq" msgpack:"first_seq"` // the event that had the id, whose outcome counts; 0 < First < Seq
	Kind     string `json:"kind" msgpack:"kind"`
	Entity   string `json:"entity" msgpack:"entity"`
	Conflict bool   `json:"conflict,omitempty" msgpack:"conflict,omitempty"` // its content is another than that of First
	Contract uint64 `json:"contract" msgpack:"contract"`
}

// Band of the outcome.
func (r *Repeat) Band() string {
	if r.Conflict {
		return BandConflict
	}
	return BandRepeat
}

// Expired is the outcome of the events of a lane that left EVENTS before they were scored.
type Expired struct {
	First uint64 `json:"first"` // EVENTS sequences, both inclusive
	Last  uint64 `json:"last"`
	Kind  string `json:"kind"`
	Lane  int    `json:"lane"`
}
