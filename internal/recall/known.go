package recall

import (
	"errors"

	"github.com/riskweir/riskweir/pkg/events"
)

// errKnown says that a message was no event.
var errKnown = errors.New("it is no event, but says what became known of some")

// know folds a message about labels, all of it or, if it cannot be read, nothing; it returns an error in any case.
func (f *Folder) know(body []byte) error {
	list, err := events.DecodeKnown(body)
	if err != nil {
		return err
	}
	for i := range list {
		f.Store.Know(&list[i])
	}
	return errKnown
}
