package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/riskweir/riskweir/internal/testkit"
)

// newSigner is of a key of its own, and the trust in that key alone.
func newSigner(t *testing.T) (*Signer, *Trust) {
	t.Helper()
	s, err := CreateSigner(filepath.Join(t.TempDir(), "models.nk"))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := NewTrust(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return s, trust
}

func TestSignatureOfArtifact(t *testing.T) {
	ours, trust := newSigner(t)
	theirs, _ := newSigner(t)
	signed := func(s *Signer) *Artifact {
		a := testArtifact(-3)
		if err := a.Sign(s); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := signed(ours)
	body, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Verify(trust); err != nil {
		t.Errorf("as it was signed: %v", err)
	}
	for name, x := range map[string]struct {
		edit func(*Artifact)
		want string
	}{
		"a weight":           {func(a *Artifact) { a.Weights[2].Weight += 1e-12 }, "altered since"},
		"version":            {func(a *Artifact) { a.Version = 2 }, "altered since"},
		"kind":               {func(a *Artifact) { a.Kind = "claim" }, "altered since"},
		"no signature":       {func(a *Artifact) { a.Signature = nil }, "it has no signature"},
		"another's":          {func(a *Artifact) { a.Signature = signed(theirs).Signature }, "none of the 1 trusted here"},
		"another's, as ours": {func(a *Artifact) { a.Signature = &Signature{Key: ours.Public(), Sig: signed(theirs).Signature.Sig} }, "altered since"},
		"no base64":          {func(a *Artifact) { a.Signature = &Signature{Key: ours.Public(), Sig: "%"} }, "altered since"},
		"an empty one":       {func(a *Artifact) { a.Signature = &Signature{Key: ours.Public()} }, "altered since"},
		"another domain": {func(a *Artifact) {
			body, _ := a.Canonical()
			sig, err := ours.Sign("riskweir something else 1", body)
			if err != nil {
				t.Fatal(err)
			}
			a.Signature = &sig
		}, "altered since"},
	} {
		a := signed(ours)
		x.edit(a)
		if err := a.Verify(trust); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
		if err := a.Verify(nil); err != nil {
			t.Errorf("%s, where no signature is looked at: %v", name, err)
		}
	}
	both, err := trust.With(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Signer{ours, theirs} {
		if err := signed(s).Verify(both); err != nil {
			t.Errorf("of two trusted keys: %v", err)
		}
	}
}

// Every byte of a stored artifact counts: with another in its place it is not read, not trusted, or the same artifact.
func TestSignatureOfEveryByte(t *testing.T) {
	s, trust := newSigner(t)
	a := testArtifact(-3)
	if err := a.Sign(s); err != nil {
		t.Fatal(err)
	}
	body, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want, err := a.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		altered := bytes.Clone(body)
		altered[i] ^= 1
		b, err := Decode(altered)
		if err != nil || b.Verify(trust) != nil {
			continue
		}
		if got, err := b.Canonical(); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("byte %d, %q, was altered, and is trusted: %v", i, body[i], err)
		}
	}
}

func TestSigningKeyFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "models.nk")
	s, err := CreateSigner(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: want 0600", info.Mode(), err)
	}
	if again, err := ReadSigner(file); err != nil || again.Public() != s.Public() {
		t.Errorf("read again: %v, %v", again, err)
	}
	if _, err := CreateSigner(file); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("made again: %v", err)
	}
	seed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(seed))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the key: %v, %v", entries, err)
	}

	// Whatever prints a signer, or complains of a key, keeps the seed.
	asJSON, _ := json.Marshal(map[string]any{"signer": s})
	_, seedAsTrust := NewTrust(secret)
	_, seedAsFile := ReadTrust(secret)
	_, cut := NewSigner(seed[:20])
	for _, said := range []string{fmt.Sprintf("%v %+v %#v %s", s, s, s, s), string(asJSON), fmt.Sprint(seedAsTrust, seedAsFile, cut)} {
		if strings.Contains(said, secret[:12]) {
			t.Errorf("the seed is in %q", said)
		}
	}
	if seedAsTrust == nil || seedAsFile == nil || cut == nil {
		t.Errorf("taken: %v, %v, %v", seedAsTrust, seedAsFile, cut)
	}

	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSigner(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a seed for everybody: %v", err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	other, err := account.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSigner(other); err == nil || !strings.Contains(err.Error(), "user nkey") {
		t.Errorf("an account's seed: %v", err)
	}
}

func TestReadTrust(t *testing.T) {
	a, _ := newSigner(t)
	b, _ := newSigner(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	list := write("models.pub", "# whose models are served\n"+a.Public()+" # since March\n\n"+b.Public()+"\n")
	trust, err := ReadTrust(list)
	if err != nil || len(trust.Keys()) != 2 {
		t.Errorf("a file of two: %v, %v", trust.Keys(), err)
	}
	if trust, err = ReadTrust(a.Public(), list); err != nil || len(trust.Keys()) != 2 {
		t.Errorf("a key and a file: %v, %v", trust.Keys(), err)
	}
	for name, from := range map[string][]string{
		"none is given": nil, "none is given ": {write("empty", "# nobody\n")}, "neither a public key": {"Unonsense"}, "want the public key": {write("bad", "nonsense\n")},
	} {
		if _, err := ReadTrust(from...); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%v: %v, want %q", from, err, name)
		}
	}
}

// What is not what a trusted key signed does not come into force: it is told of once, and the champion goes on.
func TestWatcherRefusesUntrusted(t *testing.T) {
	kv := newBucket(t)
	ours, trust := newSigner(t)
	theirs, _ := newSigner(t)
	signing := NewRegistry(kv).Keyed(ours, trust)
	w := watchTrusting(t, kv, time.Second, trust)

	publish(t, signing, 1)                            // v1
	publish(t, NewRegistry(kv), 2)                    // v2: unsigned
	publish(t, NewRegistry(kv).Keyed(theirs, nil), 3) // v3: somebody else's
	altered := publish(t, signing, 4)                 // v4: altered, with its checksum made anew
	spoiled := publish(t, signing, 5)                 // v5: altered, without
	copied := publish(t, NewRegistry(kv), 6)          // v6: v1 under another number, with v1's signature
	publish(t, signing, 7)                            // v7
	rewrite := func(version int, edit func(a *Artifact)) {
		a, err := NewRegistry(kv).Get(testkit.Context(t), "payment", version)
		if err != nil {
			t.Fatal(err)
		}
		edit(a)
		body, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		put(t, kv, Name("payment", version), string(body))
	}
	rewrite(altered, func(a *Artifact) { a.Intercept = 40 })
	first, err := NewRegistry(kv).Get(testkit.Context(t), "payment", 1)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(copied, func(a *Artifact) { a.Intercept, a.Signature = first.Intercept, first.Signature })
	entry, err := kv.Get(testkit.Context(t), Name("payment", spoiled))
	if err != nil {
		t.Fatal(err)
	}
	put(t, kv, Name("payment", spoiled), strings.Replace(string(entry.Value()), `"intercept":5`, `"intercept":6`, 1))

	w.await(t, 1, promote(t, kv, 1))
	for _, x := range []struct {
		version int
		want    string
	}{{2, "no signature"}, {3, "none of the 1 trusted"}, {altered, "altered since"}, {spoiled, "altered or cut"}, {copied, "altered since"}} {
		before := promoted(t, kv)
		if _, _, err := signing.Promote(testkit.Context(t), "payment", x.version, "test", "because"); !errors.Is(err, ErrUntrusted) {
			t.Errorf("promote v%d with the trusted key known: %v", x.version, err)
		}
		// Somebody who may write to MODELS, and asks nobody.
		at, err := NewRegistry(kv).SetRollout(testkit.Context(t), "payment", Rollout{Champion: x.version, UpdatedBy: "mallory", At: time.Now()}, before)
		if err != nil {
			t.Fatal(err)
		}
		w.awaitReport(t, at, x.want)
		if err := w.WaitRevision(testkit.Context(t), "payment", at); !errors.Is(err, ErrRefused) || !errors.Is(err, ErrUntrusted) {
			t.Errorf("v%d: waiting for it: %v", x.version, err)
		}
		if live := w.Live("payment"); live.Version != 1 {
			t.Errorf("v%d was put in force, and version %d is", x.version, live.Version)
		}
		w.mu.Lock()
		n := 0
		for _, e := range w.events {
			if e.Revision == at {
				n++
				if e.Version != x.version || !errors.Is(e.Err, ErrUntrusted) {
					t.Errorf("told of version %d: %v, want %d", e.Version, e.Err, x.version)
				}
			}
		}
		w.mu.Unlock()
		if n != 1 {
			t.Errorf("v%d: told %d times", x.version, n)
		}
	}
	w.await(t, 7, promote(t, kv, 7))

	// Signed, it is taken, at the revision that was refused.
	at, err := NewRegistry(kv).SetRollout(testkit.Context(t), "payment", Rollout{Champion: 2, UpdatedBy: "test", At: time.Now()}, promoted(t, kv))
	if err != nil {
		t.Fatal(err)
	}
	w.awaitReport(t, at, "no signature")
	if _, err := signing.Resign(testkit.Context(t), "payment", 2); err != nil {
		t.Fatal(err)
	}
	w.await(t, 2, at)
	if n := w.Refused(); n != 6 {
		t.Errorf("%d refusals counted, want one for each revision: 6", n)
	}
}

// Keys change without a pause: first scorers trust both, then the new one signs, what may be gone back to is signed anew, and
// the old one is trusted no more.
func TestRotationOfKeys(t *testing.T) {
	kv := newBucket(t)
	before, trustBefore := newSigner(t)
	after, trustAfter := newSigner(t)
	both, err := trustBefore.With(after)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, NewRegistry(kv).Keyed(before, trustBefore), 1)
	promote(t, kv, 1)

	during := watchTrusting(t, kv, time.Second, both)
	during.await(t, 1, promoted(t, kv))
	publish(t, NewRegistry(kv).Keyed(after, both), 2)
	during.await(t, 2, promote(t, kv, 2))

	late := watchTrusting(t, kv, time.Second, trustAfter)
	late.await(t, 2, promoted(t, kv))
	ctx := testkit.Context(t)
	back := promote(t, kv, 1)
	late.awaitReport(t, back, "none of the 1 trusted")
	if late.Live("payment").Version != 2 {
		t.Error("what the old key signed is served, and it is trusted no more")
	}
	if _, err := NewRegistry(kv).Keyed(after, trustAfter).Resign(ctx, "payment", 1); !errors.Is(err, ErrUntrusted) {
		t.Errorf("signing what a key signed that is not trusted: %v", err)
	}
	keyed := NewRegistry(kv).Keyed(after, both)
	if changed, err := keyed.Resign(ctx, "payment", 1); err != nil || !changed {
		t.Fatalf("signed anew: %v, %v", changed, err)
	}
	if changed, err := keyed.Resign(ctx, "payment", 1); err != nil || changed {
		t.Errorf("once more: %v, %v: want no change", changed, err)
	}
	promote(t, kv, 2)
	late.await(t, 1, promote(t, kv, 1))
}

func TestResignSurvivesLostWrites(t *testing.T) {
	bucket := newBucket(t)
	s, trust := newSigner(t)
	for _, x := range []struct {
		name   string
		faults []fault
	}{{"not applied", []fault{notApplied}}, {"applied, unsaid", []fault{appliedUnsaid}}, {"both", []fault{notApplied, appliedUnsaid}}} {
		version := publish(t, NewRegistry(bucket), 1)
		kv := &faultyKV{KeyValue: bucket}
		kv.fail(x.faults...)
		if changed, err := NewRegistry(kv).Keyed(s, nil).Resign(testkit.Context(t), "payment", version); err != nil || !changed {
			t.Errorf("%s: %v, %v", x.name, changed, err)
		}
		if _, err := NewRegistry(bucket).Keyed(nil, trust).Get(testkit.Context(t), "payment", version); err != nil {
			t.Errorf("%s: then: %v", x.name, err)
		}
	}
	version := publish(t, NewRegistry(bucket), 1)
	kv := &faultyKV{KeyValue: bucket, before: func() { put(t, bucket, Name("payment", version), "{}") }}
	if _, err := NewRegistry(kv).Keyed(s, nil).Resign(testkit.Context(t), "payment", version); err == nil || !strings.Contains(err.Error(), "look again") {
		t.Errorf("somebody wrote it meanwhile: %v", err)
	}
}
