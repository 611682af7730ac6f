package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/access"
	"github.com/riskweir/riskweir/internal/certs"
	"github.com/riskweir/riskweir/internal/service"
)

// localCaller is who calls over HTTP on this machine: its token is in the data directory, for its owner only.
const localCaller = "local"

func (l *layout) tokenFile() string { return filepath.Join(l.dir, "http.token") }

// curlFile is a configuration for curl -K. A token among a command's arguments would be seen by everybody on the machine.
func (l *layout) curlFile() string { return filepath.Join(l.dir, "http.curl") }

// token of the local caller, which is made at the first start.
func (l *layout) token() (string, error) {
	text, err := os.ReadFile(l.tokenFile())
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("token: %w", err)
	}
	token := access.NewToken(localCaller)
	if err := writeSecret(l.tokenFile(), token+"\n"); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return token, nil
}

// writeSecret replaces the file in one step; nobody else can read it for a moment.
func writeSecret(file, text string) error {
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// httpURL is where ingest listens.
func (l *layout) httpURL() string {
	if l.noTLS {
		return "http://127.0.0.1:" + strconv.Itoa(l.ports.http)
	}
	return "https://127.0.0.1:" + strconv.Itoa(l.ports.http)
}

// httpTrust is whom a caller of this machine believes.
func (l *layout) httpTrust() (*tls.Config, error) {
	if l.noTLS {
		return nil, nil
	}
	text, err := os.ReadFile(certs.CAFile(l.tlsDir()))
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	c.RootCAs.AppendCertsFromPEM(text)
	return c, nil
}

// httpFlags are ingest's.
func (l *layout) httpFlags() []string {
	args := []string{"--listen", "127.0.0.1:" + strconv.Itoa(l.ports.http)}
	if !l.noTLS {
		args = append(args, "--http-cert", certs.CertFile(l.tlsDir(), httpName), "--http-key", certs.KeyFile(l.tlsDir(), httpName))
	}
	return args
}

// admitLocal lets the local caller in. If we die before, the next start does it, with the token that is there.
func (l *layout) admitLocal(ctx context.Context, js natsjs.JetStream) error {
	token, err := l.token()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("header = \"Authorization: Bearer %s\"\n", token)
	if !l.noTLS {
		text += fmt.Sprintf("cacert = %q\n", certs.CAFile(l.tlsDir()))
	}
	if err := writeSecret(l.curlFile(), text); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	c := access.Caller{
		Name: localCaller, May: []string{access.Publish, access.Label, access.Score}, Kinds: []string{access.AnyKind},
		SHA256: access.HashOf(token), Created: time.Now().UTC(), By: whoami() + "@" + service.Hostname(),
	}
	book := access.NewBook(js, func(error) {})
	if err := book.Load(ctx); err == nil {
		if _, known := book.ByToken(token, time.Now()); known {
			return nil
		}
	}
	if _, err := access.Put(ctx, js, c, true); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}
