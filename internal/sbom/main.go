// Sbom writes a bill of materials (CycloneDX 1.6, JSON) of the binaries that are named: the modules that the linker says are in them.
// The same binaries give the same bytes.
//
//	go build -trimpath -o bin/ ./cmd/... && go run ./internal/sbom bin/* > sbom.json
package main

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(2)
	}
}

// Names are those of CycloneDX 1.6.
type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

func run(files []string, out io.Writer) error {
	if len(files) == 0 {
		return errors.New("name the binaries: go run ./internal/sbom bin/*")
	}
	slices.Sort(files)
	b := bom{Format: "CycloneDX", Spec: "1.6", Version: 1}
	modules := map[string]component{}
	for _, file := range files {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return err
		}
		sum, err := sumOf(file)
		if err != nil {
			return err
		}
		if b.Metadata.Component.Name == "" {
			b.Metadata.Component = component{Type: "application", Ref: info.Main.Path, Name: info.Main.Path}
		} else if b.Metadata.Component.Name != info.Main.Path {
			return fmt.Errorf("%s is of %s, and the others of %s", file, info.Main.Path, b.Metadata.Component.Name)
		}
		own := component{Type: "application", Ref: "binary/" + filepath.Base(file), Name: filepath.Base(file), Hashes: []hash{{"SHA-256", sum}}}
		for _, s := range info.Settings {
			if s.Key == "-trimpath" || s.Key == "CGO_ENABLED" || s.Key == "GOARCH" || s.Key == "GOOS" || strings.HasPrefix(s.Key, "vcs.") {
				own.Properties = append(own.Properties, property{"go:" + s.Key, s.Value})
			}
		}
		b.Components = append(b.Components, own)
		d := dependency{Ref: own.Ref, On: []string{}}
		for _, m := range append([]*debug.Module{{Path: "std", Version: info.GoVersion}}, info.Deps...) {
			if m.Replace != nil {
				m = m.Replace
			}
			c := component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
			c.Ref = c.PURL
			if m.Sum != "" {
				c.Properties = []property{{"go:sum", m.Sum}}
			}
			modules[c.Ref] = c
			d.On = append(d.On, c.Ref)
		}
		slices.Sort(d.On)
		b.Dependencies = append(b.Dependencies, d)
	}
	for _, c := range modules {
		b.Components = append(b.Components, c)
	}
	slices.SortFunc(b.Components, func(x, y component) int { return cmp.Or(cmp.Compare(x.Type, y.Type), cmp.Compare(x.Ref, y.Ref)) })
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(b); err != nil {
		return err
	}
	return w.Flush()
}

func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
