package chaos

import "sync"

// Acks is what the load was told: under which sequence each of its events is stored; 4 bytes an event. Its methods may
// be called from any goroutine.
type Acks struct {
	mu    sync.Mutex
	seq   []uint32 // by number of the event; 0: not acknowledged
	count uint64
	moved []uint64 // events that were acknowledged under two sequences; at most maxNamed are named
	moves uint64
}

const maxNamed = 20

// Add notes that event n was acknowledged as stored under seq. Again is no harm, under another sequence is: n was stored twice.
func (a *Acks) Add(n, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n >= uint64(len(a.seq)) {
		a.seq = append(a.seq, 0)
	}
	switch a.seq[n] {
	case 0:
		a.seq[n] = uint32(seq)
		a.count++
	case uint32(seq):
	default:
		if a.moves++; len(a.moved) < maxNamed {
			a.moved = append(a.moved, n)
		}
	}
}

func (a *Acks) Count() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// Stored is what EVENTS holds of the load's events, compared with what was acknowledged.
type Stored struct {
	Acknowledged   uint64   `json:"acknowledged"`
	Unacknowledged uint64   `json:"unacknowledged"` // stored, and nobody was told: no harm
	Lost           uint64   `json:"lost"`           // acknowledged, and not there
	Doubled        uint64   `json:"doubled"`        // there more than once
	Misplaced      uint64   `json:"misplaced"`      // acknowledged under another sequence
	Named          []string `json:"named,omitempty"`
}

func (s Stored) OK() bool { return s.Lost == 0 && s.Doubled == 0 && s.Misplaced == 0 }
