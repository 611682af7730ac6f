package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ServerFiles are what a listener proves itself with, and whom it believes. They may be replaced while it listens: the next handshake
// uses them, or goes on with what there was, and says why, if they cannot be read.
type ServerFiles struct {
	Cert     string // PEM, with the intermediate certificates behind it
	Key      string // PEM
	ClientCA string // PEM; empty: clients show no certificate. With one, a client may show a certificate, and it must be good
}

// Config reads the files for the first time. report is told when they are read again, and why they could not be: nil for the former.
func (f ServerFiles) Config(report func(error)) (*tls.Config, error) {
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a certificate and its key go together")
	}
	r := &reloading{files: f, report: report}
	first, err := f.read()
	if err != nil {
		return nil, err
	}
	r.stamp, r.current = f.stamp(), first
	outer := first.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.config(), nil }
	return outer, nil
}

func (f ServerFiles) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if f.ClientCA == "" {
		return c, nil
	}
	text, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("client authority: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("client authority %s: no certificate in it", f.ClientCA)
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	return c, nil
}

// stamp changes when a file is replaced or written to.
func (f ServerFiles) stamp() (s [3]fileStamp) {
	for i, name := range []string{f.Cert, f.Key, f.ClientCA} {
		if info, err := os.Stat(name); name != "" && err == nil {
			s[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

type fileStamp struct {
	modified time.Time
	size     int64
}

// reloading is the config that handshakes take.
type reloading struct {
	files  ServerFiles
	report func(error)

	mu      sync.Mutex
	stamp   [3]fileStamp // of the files when they were last looked at
	looked  time.Time
	failed  bool // half of a pair has been replaced, or the like: it is tried again
	current *tls.Config
}

// lookEvery bounds what many handshakes cost.
const lookEvery = 200 * time.Millisecond

func (r *reloading) config() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) < lookEvery {
		return r.current
	}
	r.looked = time.Now()
	stamp := r.files.stamp()
	if stamp == r.stamp && !r.failed {
		return r.current
	}
	again := stamp == r.stamp
	r.stamp = stamp
	next, err := r.files.read()
	r.failed = err != nil
	if err == nil {
		r.current = next
	}
	if !again || err == nil {
		r.report(err)
	}
	return r.current
}
