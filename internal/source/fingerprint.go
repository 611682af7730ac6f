package source

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Fingerprint identifies the file by its head and by all that shapes its rows. It names how many bytes it covers, so
// that a file which has grown since still matches.
func (r *Reader) Fingerprint() string { return r.fingerprint(len(r.head.kept)) }

func (r *Reader) fingerprint(n int) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %q %q\n", r.format, r.delimiter, r.columns)
	h.Write(r.head.kept[:n])
	return strconv.Itoa(n) + ":" + hex.EncodeToString(h.Sum(nil))
}

// Matches says whether fingerprint, made when the file was perhaps shorter, was of this file and these options. It is to
// be called before Next and ResumeAt.
func (r *Reader) Matches(fingerprint string) bool {
	size, _, _ := strings.Cut(fingerprint, ":")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > headBytes {
		return false
	}
	for len(r.head.kept) < n && r.w.err == nil { // a pipe, of which less has come yet
		r.w.fill()
	}
	return n <= len(r.head.kept) && r.fingerprint(n) == fingerprint
}
