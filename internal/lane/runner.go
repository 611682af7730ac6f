package lane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Stage makes outcomes of events. A lane calls it from one goroutine, but for Await.
type Stage interface {
	// Adopt takes the model that is in force now for the batches that follow and returns its revision, which never falls.
	Adopt() uint64
	// Await returns when a model of at least this revision can be adopted, or an error if that takes too long.
	Await(ctx context.Context, revision uint64) error
	// Prepare returns nil if Outcomes can be made of batch now, else what to wait for: a func that is called from another goroutine, while
	// the stage is not. If it fails the lane begins again from its position.
	Prepare(batch []Event) func(ctx context.Context) error
	// Outcomes returns one message an event, in order: it always has an outcome.
	Outcomes(batch []Event) []*nats.Msg
	// Beside returns the counts of before, and on top of them how the versions beside the champion fared on the events of the last Outcomes.
	Beside(before events.Besides) events.Besides
	// Unread is the outcome of an event that scorers died on.
	Unread(e Event, attempts int) *nats.Msg
	// Expired is the outcome of a range that left the stream unscored.
	Expired(first, last uint64) *nats.Msg
}

// Committer stores all of msgs, in order, or none, and returns the stream sequence of the last: topology.Committer,
// or a test that loses what it answers. Its errors are those of topology.Committer.
type Committer interface {
	Commit(ctx context.Context, msgs []*nats.Msg) (seq uint64, err error)
}

// Observer is told what happens; any func may be nil. They are called from the lanes' goroutines.
type Observer struct {
	Committed func(kind string, lane int, batch []Event, at time.Time)
	Position  func(kind string, lane int, p events.Position)
	Phase     func(kind string, lane int, p Phase)
	Note      func(kind string, lane int, what string)
	Halted    func(kind string, lane int, cause string)
}

// RunnerConfig is what one lane at one scorer needs.
type RunnerConfig struct {
	Conn       *nats.Conn
	JS         natsjs.JetStream
	Kind       string
	Lane       int
	Instance   string // of this scorer process
	Limits     Limits
	Stage      Stage
	Observer   Observer
	Committer  Committer
	Company    company // the lanes of this process
	APITimeout time.Duration
	Now        func() time.Time // time.Now if nil
}

const tickEvery = 100 * time.Millisecond

// runner carries a machine's actions to the broker and the answers back. Its loop owns every field.
type runner struct {
	RunnerConfig
	machine *Machine
	control chan Input  // Own, Release, Horizon, RunEnded: from the pool
	answers chan answer // from the goroutines that ask is counting
	asking  sync.WaitGroup
	alone   bool // the company is cleared for us
	opened  chan *run
	run     *run
	done    bool   // the machine has released the lane
	waiting uint64 // ID of the commit that the stage is being prepared for, 0 for none: it adopts no other model meanwhile
}

// answer to a question. alone: the company was cleared for what it is about, and whoever takes the answer opens it again.
type answer struct {
	in    Input
	alone bool
}

func newRunner(c RunnerConfig) *runner {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &runner{
		RunnerConfig: c,
		machine:      NewMachine(c.Instance, c.Limits),
		control:      make(chan Input, 16),
		answers:      make(chan answer, 16),
		opened:       make(chan *run, 4),
	}
}

// loop runs until the lane is released (Release on control) or ctx ends, which stops it where it
// stands: what is not committed then is the next owner's.
func (r *runner) loop(ctx context.Context) {
	defer func() {
		r.closeRun()
		r.asking.Wait()
		r.openCompany()
		for {
			select {
			case late := <-r.opened:
				r.run = late
				r.closeRun()
			case late := <-r.answers:
				r.alone = late.alone
				r.openCompany()
			default:
				return
			}
		}
	}()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	revision := r.Stage.Adopt()
	r.step(ctx, Revised{revision})
	r.step(ctx, Own{})
	for !r.done {
		var msgs chan *nats.Msg
		if r.run != nil {
			msgs = r.run.msgs
		}
		select {
		case <-ctx.Done():
			return
		case in := <-r.control:
			if e, ok := in.(RunEnded); ok { // the pool does not know which run it is
				e.Run = r.machine.run
				in = e
			}
			r.step(ctx, in)
		case a := <-r.answers:
			if p, ok := a.in.(prepared); ok {
				r.prepared(ctx, p.commit)
				break
			}
			end, ok := a.in.(CommitEnd)
			r.alone = r.alone || a.alone
			if ok && (end.ID != r.machine.asked || r.machine.phase != Committing) {
				r.openCompany() // nobody waits for it any more
			}
			if ok && end.ID == r.waiting {
				r.waiting = 0
			}
			r.step(ctx, a.in)
		case opened := <-r.opened:
			r.adoptRun(ctx, opened)
		case msg := <-msgs:
			if in := r.run.read(msg); in != nil {
				r.step(ctx, in)
			}
		case <-tick.C:
			r.step(ctx, Tick{})
		}
		if r.waiting == 0 {
			if now := r.Stage.Adopt(); now != revision {
				revision = now
				r.step(ctx, Revised{revision})
			}
		}
		if r.run != nil {
			if err := r.run.pull(r.machine.Room(), r.Limits.MaxBuffered, r.Limits.HeartbeatGap); err != nil {
				r.step(ctx, RunEnded{r.run.id, "pull: " + err.Error()})
			}
		}
	}
}

func (r *runner) adoptRun(ctx context.Context, opened *run) {
	if opened.id != r.machine.run || r.machine.phase != Opening {
		stale := r.run
		r.run = opened
		r.closeRun()
		r.run = stale
		return
	}
	r.run = opened
	r.step(ctx, Opened{Run: opened.id})
}

func (r *runner) closeRun() {
	if r.run == nil {
		return
	}
	if err := r.run.close(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		r.note("close the run: " + err.Error())
	}
	r.run = nil
}

func (r *runner) note(what string) {
	if r.Observer.Note != nil {
		r.Observer.Note(r.Kind, r.Lane, what)
	}
}

// step feeds the machine and carries out what it decides.
func (r *runner) step(ctx context.Context, in Input) {
	before, position := r.machine.phase, r.machine.pos
	for _, action := range r.machine.Step(in, r.Now()) {
		switch a := action.(type) {
		case ReadPosition:
			r.ask(func() Input { return r.readPosition(ctx, a) })
		case Inspect:
			r.ask(func() Input { return r.inspect(ctx, a) })
		case OpenRun:
			r.ask(func() Input { return r.openRun(ctx, a) })
		case CloseRun:
			r.closeRun()
		case Commit:
			r.commit(ctx, a)
		case Halt:
			if r.Observer.Halted != nil {
				r.Observer.Halted(r.Kind, r.Lane, a.Cause)
			}
		case Note:
			r.note(a.What)
		case Released:
			r.done = true
		}
	}
	if r.machine.phase != Committing && r.machine.phase != Checking {
		r.openCompany()
	}
	if r.Observer.Phase != nil && r.machine.phase != before {
		r.Observer.Phase(r.Kind, r.Lane, r.machine.phase)
	}
	if r.Observer.Position != nil && r.machine.pos != position {
		r.Observer.Position(r.Kind, r.Lane, r.machine.pos)
	}
}

// ask answers in a goroutine of its own; loop waits for all of them when it ends.
func (r *runner) ask(f func() Input) {
	r.askAlone(func() (Input, bool) { return f(), false })
}

func (r *runner) askAlone(f func() (in Input, alone bool)) {
	r.asking.Add(1)
	go func() {
		defer r.asking.Done()
		in, alone := f()
		if in == nil {
			return
		}
		select {
		case r.answers <- answer{in, alone}:
		default: // more answers than questions can be open: the loop has ended
			if alone {
				r.Company.open()
			}
		}
	}()
}

func (r *runner) openCompany() {
	if r.alone {
		r.alone = false
		r.Company.open()
	}
}

func (r *runner) readPosition(ctx context.Context, a ReadPosition) Input {
	var reply struct {
		Error   *natsjs.APIError `json:"error"`
		Message *struct {
			Seq  uint64 `json:"seq"`
			Data []byte `json:"data"`
		} `json:"message"`
	}
	body := fmt.Appendf(nil, `{"last_by_subj":%q}`, events.PositionSubject(r.Kind, r.Lane))
	if err := r.api(ctx, "$JS.API.STREAM.MSG.GET."+events.ScoresStream(r.Kind), body, &reply); err != nil {
		return PositionRead{ID: a.ID, Err: err}
	}
	switch {
	case reply.Error != nil && reply.Error.ErrorCode == natsjs.JSErrCodeMessageNotFound:
		return PositionRead{ID: a.ID}
	case reply.Error != nil:
		return PositionRead{ID: a.ID, Err: reply.Error}
	case reply.Message == nil:
		return PositionRead{ID: a.ID, Err: errors.New("the answer has no message")}
	}
	var p events.Position
	if err := json.Unmarshal(reply.Message.Data, &p); err != nil {
		return PositionRead{ID: a.ID, Err: fmt.Errorf("position message %d of %s: %w", reply.Message.Seq, events.ScoresStream(r.Kind), err)}
	}
	return PositionRead{ID: a.ID, Found: true, Token: reply.Message.Seq, Position: p}
}

func (r *runner) inspect(ctx context.Context, a Inspect) Input {
	if err := r.Stage.Await(ctx, a.Revision); err != nil {
		return Inspected{ID: a.ID, Err: err}
	}
	s, err := inspectStream(ctx, r.Conn, r.Kind, r.APITimeout)
	in := Inspected{ID: a.ID, Err: err, Incarnation: s.Created, First: s.State.First, Last: s.State.Last}
	if err == nil && a.Begin && a.After < s.State.Last && r.Lane != events.StrayLane { // whose events no filter finds for sure
		in.Next, in.Err = r.nextEvent(ctx, a.After)
	}
	return in
}

// nextEvent asks the leader of EVENTS for the lane's first event after seq; 0: there is none.
func (r *runner) nextEvent(ctx context.Context, seq uint64) (uint64, error) {
	var reply struct {
		Error   *natsjs.APIError `json:"error"`
		Message *struct {
			Seq uint64 `json:"seq"`
		} `json:"message"`
	}
	body := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q}`, seq+1, events.LaneFilter(r.Kind, r.Lane))
	if err := r.api(ctx, "$JS.API.STREAM.MSG.GET."+events.EventsStream(r.Kind), body, &reply); err != nil {
		return 0, err
	}
	switch {
	case reply.Error != nil && reply.Error.ErrorCode == natsjs.JSErrCodeMessageNotFound:
		return 0, nil
	case reply.Error != nil:
		return 0, reply.Error
	case reply.Message == nil:
		return 0, errors.New("the answer has no message")
	}
	return reply.Message.Seq, nil
}

func (r *runner) openRun(ctx context.Context, a OpenRun) Input {
	ctx, cancel := context.WithTimeout(ctx, r.APITimeout)
	defer cancel()
	opened, err := openRun(ctx, r.Conn, r.JS, r.Kind, r.Lane, r.Instance, a, r.Limits.MaxBuffered)
	if err != nil {
		return Opened{Run: a.Run, Err: err}
	}
	r.opened <- opened
	return nil
}

// commit makes the outcomes here, so that no batch mixes two models, and publishes them elsewhere, so that
// the run is read meanwhile.
func (r *runner) commit(ctx context.Context, a Commit) {
	if a.Treatment == Scored && len(a.Events) > 0 {
		if wait := r.Stage.Prepare(a.Events); wait != nil {
			r.waiting = a.ID
			r.ask(func() Input {
				if err := wait(ctx); err != nil {
					return CommitEnd{ID: a.ID, Result: Refused, Err: fmt.Errorf("prepare to score: %w", err)}
				}
				return prepared{a}
			})
			return
		}
	}
	r.finish(ctx, a)
}

// prepared says, to the loop and not to the machine, that the outcomes of a commit can be made.
type prepared struct{ commit Commit }

// prepared goes on with a commit that the machine still waits for.
func (r *runner) prepared(ctx context.Context, a Commit) {
	if a.ID == r.waiting {
		r.waiting = 0
	}
	if r.machine.phase == Committing && r.machine.asked == a.ID {
		r.finish(ctx, a)
	}
}

func (r *runner) finish(ctx context.Context, a Commit) {
	msgs, err := r.messages(ctx, a)
	alone := r.alone
	r.alone = false
	r.askAlone(func() (Input, bool) {
		if err == nil && a.SetsOut {
			err = r.Company.clear(ctx)
			alone = err == nil
		}
		if err != nil {
			return CommitEnd{ID: a.ID, Result: Refused, Err: err}, alone
		}
		token, err := r.Committer.Commit(ctx, msgs)
		end := CommitEnd{ID: a.ID, Token: token, Err: err, Result: Unknown}
		switch {
		case err == nil:
			end.Result = Stored
			if r.Observer.Committed != nil && len(a.Events) > 0 {
				r.Observer.Committed(r.Kind, r.Lane, a.Events, time.Now())
			}
		case errors.Is(err, topology.ErrFenced):
			end.Result = Fenced
		case errors.Is(err, topology.ErrRefused):
			end.Result = Refused
		}
		if alone && !a.SetsOut { // what we set out upon has ended
			r.Company.open()
			alone = false
		}
		return end, alone
	})
}

func (r *runner) messages(ctx context.Context, a Commit) ([]*nats.Msg, error) {
	var msgs []*nats.Msg
	switch {
	case a.Treatment == Unread:
		msgs = append(msgs, r.Stage.Unread(a.Events[0], a.Attempts))
	case a.Treatment == Expired:
		msgs = append(msgs, r.Stage.Expired(a.First, a.Last))
	case len(a.Events) > 0 && r.alone:
		msgs = r.outcomes(&a)
	case len(a.Events) > 0:
		if err := r.Company.join(ctx); err != nil {
			return nil, fmt.Errorf("wait for another lane to try alone what scorers died of: %w", err)
		}
		msgs = r.outcomes(&a)
		r.Company.leave()
	}
	body, err := json.Marshal(a.Position)
	if err != nil {
		return nil, fmt.Errorf("encode the position: %w", err)
	}
	position := nats.NewMsg(events.PositionSubject(r.Kind, r.Lane))
	position.Data = body
	topology.Fence(position, a.Fence)
	return append(msgs, position), nil
}

// outcomes of a commit, whose position then has the counts of the same events.
func (r *runner) outcomes(a *Commit) []*nats.Msg {
	msgs := r.Stage.Outcomes(a.Events)
	a.Position.Beside = r.Stage.Beside(a.Position.Beside)
	r.machine.Counted(a.ID, a.Position.Beside)
	return msgs
}

func (r *runner) api(ctx context.Context, subject string, body []byte, reply any) error {
	return api(ctx, r.Conn, r.APITimeout, subject, body, reply)
}

// api asks again where no answer comes: a request that reaches a stream's leader as it steps down is dropped without a word. So it
// is for questions that may be asked twice.
func api(ctx context.Context, conn *nats.Conn, timeout time.Duration, subject string, body []byte, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	inbox := conn.NewInbox() // one for all times: an answer that is late is as good
	sub, err := conn.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	var msg *nats.Msg
	err = again(ctx, func(ctx context.Context) (err error) {
		if err = conn.PublishRequest(subject, inbox, body); err == nil {
			msg, err = sub.NextMsgWithContext(ctx)
		}
		return err
	})
	if gone := sub.Unsubscribe(); err == nil && len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		err = nats.ErrNoResponders
	} else if err == nil {
		err = gone
	}
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	if err := json.Unmarshal(msg.Data, reply); err != nil {
		return fmt.Errorf("%s: answer: %w", subject, err)
	}
	return nil
}

// askAgain is how long an answer may take before the question is asked again, doubled each time; it takes some 1 ms.
const askAgain = 250 * time.Millisecond

// again does f, and does it again when it has had no answer in time, until ctx ends.
func again(ctx context.Context, f func(context.Context) error) error {
	for wait := askAgain; ; wait *= 2 {
		once, cancel := context.WithTimeout(ctx, wait)
		err := f(once)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

type streamState struct {
	Created time.Time `json:"created"`
	State   struct {
		First uint64 `json:"first_seq"`
		Last  uint64 `json:"last_seq"`
	} `json:"state"`
	Error *natsjs.APIError `json:"error"`
}

// inspectStream asks the leader of EVENTS_<kind>.
func inspectStream(ctx context.Context, conn *nats.Conn, kind string, timeout time.Duration) (streamState, error) {
	var s streamState
	if err := api(ctx, conn, timeout, "$JS.API.STREAM.INFO."+events.EventsStream(kind), nil, &s); err != nil {
		return s, err
	}
	if s.Error != nil {
		return s, s.Error
	}
	return s, nil
}
