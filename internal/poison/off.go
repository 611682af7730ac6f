//go:build !poison

package poison

// Enabled says whether this build has poison in it.
const Enabled = false

func Take(entity string) {}

func Confine() error { return nil }
