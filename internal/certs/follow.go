package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// Pair is a certificate and its key, in files that may be renewed while they are in use: a handshake gets what the files say
// now. While they do not belong together, or cannot be read, it gets what they said last. Safe for concurrent use.
type Pair struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	stamp  [2]stamp // of the files when loaded was read
	looked time.Time
}

// lookEvery bounds how often handshakes look at the files.
const lookEvery = time.Second

// stamp changes when a file does.
type stamp struct {
	at   time.Time
	size int64
}

// stampOf says what a file looks like. One that is not there has the zero stamp.
func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

// Follow reads both files.
func Follow(cert, key string) (*Pair, error) {
	p := &Pair{cert: cert, key: key}
	if err := p.load(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Pair) load() error {
	now := [2]stamp{stampOf(p.cert), stampOf(p.key)}
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", p.cert, p.key, err)
	}
	p.loaded, p.stamp = &pair, now
	return nil
}

func (p *Pair) current(now time.Time) *tls.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since := now.Sub(p.looked); since >= 0 && since < lookEvery {
		return p.loaded
	}
	p.looked = now
	if p.stamp != [2]stamp{stampOf(p.cert), stampOf(p.key)} {
		_ = p.load() // the one before is still good; the next look tries again
	}
	return p.loaded
}

// GetCertificate is for a server's tls.Config.
func (p *Pair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return p.current(time.Now()), nil
}

// GetClientCertificate is for a client's tls.Config.
func (p *Pair) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return p.current(time.Now()), nil
}

// Server is what a server of these files asks of those who come: TLS 1.3 and, if clients names a bundle, a certificate of it.
func (p *Pair) Server(clients string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: p.GetCertificate}
	if clients == "" {
		return c, nil
	}
	certs, err := readCerts(clients)
	if err != nil {
		return nil, fmt.Errorf("authority of clients: %w", err)
	}
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	for _, x := range certs {
		c.ClientCAs.AddCert(x)
	}
	return c, nil
}
