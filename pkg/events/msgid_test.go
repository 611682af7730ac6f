package events

import "testing"

func TestMessageID(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"a", "a ", " a", "a\n", "a\r\n", "a b", "a\tb", "ä", "\xff", "", "a\x00", string(make([]byte, 300))} {
		m := MessageID(id)
		if was, ok := seen[m]; ok {
			t.Errorf("%q and %q have one message id", was, id)
		}
		seen[m] = id
		for _, c := range []byte(m) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("%q becomes %q, which a header cannot hold", id, m)
			}
		}
	}
	if MessageID("p-1") != "p-1" {
		t.Error("a plain id does not stay as it is")
	}
	// The same in every release: a repetition may come from an older one.
	if got, want := MessageID("a b"), "sha256-c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
