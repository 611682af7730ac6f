package chaos

import (
	"iter"
	"math/bits"
	"sync"
)

// Marks is a set of counters, one bit each. Its methods may be called from any goroutine.
type Marks struct {
	mu    sync.Mutex
	words []uint64
	count uint64
}

// Set adds n and says whether it was new.
func (m *Marks) Set(n uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	word, bit := n/64, uint64(1)<<(n%64)
	for word >= uint64(len(m.words)) {
		m.words = append(m.words, 0)
	}
	if m.words[word]&bit != 0 {
		return false
	}
	m.words[word] |= bit
	m.count++
	return true
}

func (m *Marks) Has(n uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return n/64 < uint64(len(m.words)) && m.words[n/64]&(1<<(n%64)) != 0
}

func (m *Marks) Count() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// Without yields what is in m and not in o, rising. Neither may be changed meanwhile by who ranges.
func (m *Marks) Without(o *Marks) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		o.mu.Lock()
		defer o.mu.Unlock()
		for i, w := range m.words {
			if i < len(o.words) {
				w &^= o.words[i]
			}
			for ; w != 0; w &= w - 1 {
				if !yield(uint64(i)*64 + uint64(bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
