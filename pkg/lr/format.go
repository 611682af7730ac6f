package lr

import "fmt"

// FormatError says that bytes are not a model file or a learner's state, or not one
// that was left as it was written.
type FormatError struct {
	Format  string // what was to be read, such as "model file"
	Where   string // member or offset; "" for the whole
	Problem string
}

func (e *FormatError) Error() string {
	if e.Where == "" {
		return fmt.Sprintf("lr: %s %s", e.Format, e.Problem)
	}
	return fmt.Sprintf("lr: %s: %s %s", e.Format, e.Where, e.Problem)
}

// VersionError says that a file is of a version that this program does not know.
type VersionError struct {
	Format  string
	Version uint64
	Want    uint64 // the only version that can be read
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("lr: %s has version %d, this program reads version %d", e.Format, e.Version, e.Want)
}
