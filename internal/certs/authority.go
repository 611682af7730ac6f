// Package certs makes and renews the certificates of a system whose machines are few and known, and follows files that are
// renewed while they are in use. It is a development authority: its key lies beside what it signs. Where an organisation has
// an authority, the same files come from there.
package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Lives of what is made. A leaf is renewed when a third of its life is left, and the authority before a leaf would outlive it.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	LeafLife      = 90 * 24 * time.Hour
	RenewBefore   = LeafLife / 3

	backdate = time.Hour // for those whose clock is behind
)

// Loopback are the names of this machine to itself.
func Loopback() []string { return []string{"localhost", "127.0.0.1", "::1"} }

// Authority signs certificates. Its directory holds
//
//	ca.pem  ca-key.pem            the authority: its certificate, and those before it; its key
//	NAME.pem  NAME-key.pem        what it signed
//
// A key is written before its certificate, and each file in one step: whoever dies in between leaves a key to which the next
// Open, or Issue, makes the certificate.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CAFile is the bundle by which others know the authority of dir.
func CAFile(dir string) string { return filepath.Join(dir, "ca.pem") }

// CertFile and KeyFile are those of a name.
func CertFile(dir, name string) string { return filepath.Join(dir, name+".pem") }

// KeyFile is readable by its owner only.
func KeyFile(dir, name string) string { return filepath.Join(dir, name+"-key.pem") }

// Open takes the authority in dir, and makes one if there is none or its time is nearly over. Then certificates of the one
// before stay good until they end, for its certificate stays in the bundle.
func Open(dir string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a := &Authority{dir: dir}
	bundle, err := readCerts(CAFile(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("authority: %w", err)
	}
	keyFile := KeyFile(dir, "ca")
	a.key, err = readKey(keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(bundle) > 0:
		return nil, fmt.Errorf("authority: %s is there and %s is not: bring the key back, or remove both, and all who know this authority must learn of a new one",
			CAFile(dir), keyFile)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("authority: %w", err)
	}
	if a.key != nil && len(bundle) > 0 && a.key.PublicKey.Equal(bundle[0].PublicKey) {
		a.cert = bundle[0]
		if now.Add(LeafLife).Before(a.cert.NotAfter) {
			return a, nil
		}
		a.key = nil
	}
	if a.key == nil {
		if a.key, err = newKey(keyFile); err != nil {
			return nil, fmt.Errorf("authority: %w", err)
		}
	}
	t := &x509.Certificate{
		Subject: pkix.Name{Organization: []string{"Riskweir"}, CommonName: "Riskweir development authority " + now.UTC().Format("2006-01-02")},
		IsCA:    true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(AuthorityLife),
	}
	der, err := sign(t, t, a.key, a.key)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	text := encode("CERTIFICATE", der)
	for _, old := range bundle {
		if old.NotAfter.After(now) {
			text = append(text, encode("CERTIFICATE", old.Raw)...)
		}
	}
	if err := replace(CAFile(dir), text, 0o644); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return a, nil
}

// Issue makes the certificate of name for the hosts, names and addresses; without hosts it is a client's. One that is good, for at least
// RenewBefore, stays. It returns the certificate in force, and whether it is new.
func (a *Authority) Issue(name string, hosts []string, now time.Time) (cert *x509.Certificate, made bool, err error) {
	if name == "ca" || name == "" || name != filepath.Base(name) || name[0] == '.' {
		return nil, false, fmt.Errorf("certificate %q: want a plain name, and not ca", name)
	}
	if cert = a.current(name, hosts, now); cert != nil {
		return cert, false, nil
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Riskweir"}, CommonName: name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore:   now.Add(-backdate), NotAfter: now.Add(LeafLife),
	}
	if len(hosts) > 0 { // nodes are clients of each other
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	key, err := newKey(KeyFile(a.dir, name))
	if err != nil {
		return nil, false, fmt.Errorf("certificate %s: %w", name, err)
	}
	der, err := sign(t, a.cert, key, a.key)
	if err != nil {
		return nil, false, fmt.Errorf("certificate %s: %w", name, err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return nil, false, fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := replace(CertFile(a.dir, name), encode("CERTIFICATE", der), 0o644); err != nil {
		return nil, false, fmt.Errorf("certificate %s: %w", name, err)
	}
	return cert, true, nil
}

// current is the certificate of name if it still does, or nil.
func (a *Authority) current(name string, hosts []string, now time.Time) *x509.Certificate {
	certs, err := readCerts(CertFile(a.dir, name))
	if err != nil {
		return nil
	}
	c := certs[0]
	key, err := readKey(KeyFile(a.dir, name))
	if err != nil || !key.PublicKey.Equal(c.PublicKey) || c.CheckSignatureFrom(a.cert) != nil {
		return nil
	}
	if now.Add(RenewBefore).After(c.NotAfter) || now.Before(c.NotBefore) {
		return nil
	}
	for _, h := range hosts {
		if c.VerifyHostname(h) != nil {
			return nil
		}
	}
	if len(hosts) > 0 != slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return nil
	}
	return c
}

func sign(t, parent *x509.Certificate, key, by *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, by)
}

func newKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, replace(file, encode("PRIVATE KEY", der), 0o600)
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: a %T, want an ECDSA key", file, key)
	}
	return private, nil
}

// readCerts returns at least one certificate, or an error.
func readCerts(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: no certificate in PEM", file)
	}
	return certs, nil
}

func encode(kind string, der []byte) []byte {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) // into memory: cannot fail
	return b.Bytes()
}

// replace writes the file in one step: half of it is never seen, nor is a key by others for a moment.
func replace(file string, text []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
