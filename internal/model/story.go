package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// storyBatch is how many records are asked for at once; each is some 10 KB.
const storyBatch = 50

// Story is History as far back as ROLLOUTS keeps it, to which the server copies each change of the record; of the changes of the last moments, which
// may not be copied yet, the bucket tells. Without the stream it is the bucket's history.
func (r *Registry) Story(ctx context.Context, js jetstream.JetStream, kind string) ([]Record, error) {
	records, err := r.History(ctx, kind)
	if err != nil {
		return nil, err
	}
	copies, err := copied(ctx, js, kind)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", events.RolloutsStream, err)
	}
	if len(copies) == 0 {
		return records, nil
	}
	if len(records) > 0 && records[0].Revision > copies[0].Revision {
		copies = slices.DeleteFunc(copies, func(x Record) bool { return x.Revision >= records[0].Revision })
		records = append(copies, records...)
	}
	return putBack(records), nil
}

// copied are the records of a kind that ROLLOUTS holds; none where there is no such stream, as before it was made.
func copied(ctx context.Context, js jetstream.JetStream, kind string) ([]Record, error) {
	var list []Record
	for next := uint64(1); ; {
		batch, err := jetstreamext.GetBatch(ctx, js, events.RolloutsStream, storyBatch, jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchSubject(events.RolloutSubject(kind)))
		if err != nil {
			return nil, err
		}
		last := uint64(0)
		for m, err := range batch {
			if errors.Is(err, jetstreamext.ErrNoMessages) || errors.Is(err, nats.ErrNoResponders) {
				break
			}
			if err != nil {
				return nil, err
			}
			last = m.Sequence
			rec, err := recordOfCopy(m)
			if err != nil {
				return nil, fmt.Errorf("message %d: %w", m.Sequence, err)
			}
			list = append(list, rec)
		}
		if last == 0 {
			return list, nil
		}
		next = last + 1
	}
}

func recordOfCopy(m *jetstream.RawStreamMsg) (Record, error) {
	revision, err := topology.CopiedFrom(m.Header)
	if err != nil {
		return Record{}, err
	}
	rec := Record{Revision: revision, Stored: m.Time, Deleted: m.Header.Get("KV-Operation") != "", body: m.Data}
	if !rec.Deleted {
		rec.Rollout, rec.Err = DecodeRollout(m.Data)
	}
	return rec, nil
}

// putBack notes of each record which earlier one had the same bytes.
func putBack(records []Record) []Record {
	for i := range records {
		records[i].PutBack = 0
		for _, earlier := range records[:i] {
			if !records[i].Deleted && !earlier.Deleted && bytes.Equal(earlier.body, records[i].body) {
				records[i].PutBack = earlier.Revision
			}
		}
	}
	return records
}
