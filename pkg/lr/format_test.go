package lr

import (
	"crypto/sha256"
	"errors"
	"testing"
)

// sealed appends the checksum that belongs to a state.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(append([]byte(nil), body...), sum[:]...)
}

func mustBeTyped(t *testing.T, err error) {
	t.Helper()
	var (
		format  *FormatError
		version *VersionError
		shape   *ShapeError
		option  *OptionError
		value   *ValueError
	)
	if !errors.As(err, &format) && !errors.As(err, &version) && !errors.As(err, &shape) && !errors.As(err, &option) && !errors.As(err, &value) {
		t.Errorf("%T: %v", err, err)
	}
}
