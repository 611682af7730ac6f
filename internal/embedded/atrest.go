package embedded

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// Encryption of what a node stores: messages, and the logs and states of raft. Subjects are encrypted with their messages; the names of
// streams and consumers are not, for they are names of directories.
type Encryption struct {
	KeyFile string // holds the key; empty: the environment does, as EncryptionKeyEnv
	Cipher  string // chacha or aes; chacha if empty
}

// EncryptionKeyEnv holds the key where no file does. Other users of the machine cannot read the environment of a process.
const EncryptionKeyEnv = "RISKWEIR_ENCRYPTION_KEY"

// minKey is in bytes: of a passphrase that can be guessed, nothing is protected.
const minKey = 16

// checkFile lies beside what is encrypted and tells whether a key is the one. It is not the key, nor helps to find it more than any
// encrypted block does.
const checkFile = "key.check"

type keyCheck struct {
	Cipher string
	Salt   []byte
	MAC    []byte // HMAC-SHA256 by the key
}

func (e Encryption) cipher() string {
	if e.Cipher == "" {
		return "chacha"
	}
	return e.Cipher
}

func (e Encryption) key() (string, error) {
	key, from := os.Getenv(EncryptionKeyEnv), EncryptionKeyEnv
	if e.KeyFile != "" {
		text, err := os.ReadFile(e.KeyFile)
		if err != nil {
			return "", fmt.Errorf("encryption key: %w", err)
		}
		key, from = string(text), e.KeyFile
	}
	if key = strings.TrimSpace(key); len(key) < minKey {
		return "", fmt.Errorf("encryption key: %s has %d characters: want at least %d, such as of 'openssl rand -hex 32'", from, len(key), minKey)
	}
	return key, nil
}

// atRest checks that the key is the one that dir was made with, and returns it; empty: nothing is encrypted. The check is written before anything
// is stored: who dies then has an empty directory with a key.
func (c Config) atRest() (key string, err error) {
	file := filepath.Join(c.Dir, checkFile)
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", fmt.Errorf("encryption: %w", err)
	case c.Encryption == nil:
		return "", fmt.Errorf("what %s holds is encrypted: give the key that it was made with", c.Dir)
	}
	if c.Encryption == nil {
		return "", nil
	}
	if key, err = c.Encryption.key(); err != nil {
		return "", err
	}
	if text == nil {
		if _, err := os.Stat(filepath.Join(c.Dir, "jetstream")); err == nil {
			return "", fmt.Errorf("what %s holds is not encrypted, and was written in clear: begin with an empty directory, and restore a backup into it", c.Dir)
		}
		check := keyCheck{Cipher: c.Encryption.cipher(), Salt: make([]byte, 16)}
		if _, err := rand.Read(check.Salt); err != nil {
			return "", fmt.Errorf("encryption: %w", err)
		}
		check.MAC = check.mac(key)
		if text, err = json.Marshal(check); err != nil {
			return "", fmt.Errorf("encryption: %w", err)
		}
		if err := errors.Join(os.WriteFile(file+".tmp", text, 0o600), os.Rename(file+".tmp", file)); err != nil {
			return "", fmt.Errorf("encryption: %w", err)
		}
		return key, nil
	}
	var check keyCheck
	if err := json.Unmarshal(text, &check); err != nil {
		return "", fmt.Errorf("encryption: %s: %w", file, err)
	}
	if !hmac.Equal(check.MAC, check.mac(key)) {
		return "", fmt.Errorf("the encryption key is not the one that %s was made with: give that one; without it what is there cannot be read", c.Dir)
	}
	if check.Cipher != c.Encryption.cipher() {
		return "", fmt.Errorf("%s was made with the cipher %s, not %s", c.Dir, check.Cipher, c.Encryption.cipher())
	}
	return key, nil
}

// CheckEncryption says what Run would say of the key, for who wants to say it earlier.
func (c Config) CheckEncryption() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("node %s: make data directory: %w", c.Name, err)
	}
	if _, err := c.atRest(); err != nil {
		return fmt.Errorf("node %s: %w", c.Name, err)
	}
	return nil
}

func (k keyCheck) mac(key string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte("riskweir at rest\x00" + k.Cipher + "\x00"))
	h.Write(k.Salt)
	return h.Sum(nil)
}

// encrypt puts the key into the options, and nowhere else: no config text holds it.
func (c Config) encrypt(opts *server.Options, key string) {
	if key == "" {
		return
	}
	opts.JetStreamKey, opts.JetStreamCipher = key, server.ChaCha
	if c.Encryption.cipher() == "aes" {
		opts.JetStreamCipher = server.AES
	}
}
