package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/riskweir/riskweir/pkg/lr"
)

//go:embed peer.py
var peerProgram string

// peer is a Python process that holds the same data.
type peer struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	versions string
}

// fitted is what one fit gave.
type fitted struct {
	Seconds    float64
	Weights    []float64
	Intercept  float64
	Iterations int
	Error      string
}

func (f fitted) model() lr.Model { return lr.Model{Intercept: f.Intercept, Weights: f.Weights} }

// preparePython makes a virtual environment with the newest scikit-learn, or finds the one made
// before, and returns its interpreter.
func preparePython(ctx context.Context, python, folder string) (string, error) {
	interpreter := filepath.Join(folder, "bin", "python")
	if err := exec.CommandContext(ctx, interpreter, "-c", "import sklearn, threadpoolctl").Run(); err == nil {
		return interpreter, nil
	}
	for _, args := range [][]string{
		{python, "-m", "venv", folder},
		{interpreter, "-m", "pip", "install", "--quiet", "--upgrade", "scikit-learn", "threadpoolctl"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	return interpreter, nil
}

// startPeer reads the data in folder into a new process. Its BLAS and its threads are its own
// choice: nothing in our environment may tell it otherwise.
func startPeer(ctx context.Context, python, folder string, d *data) (*peer, error) {
	p := &peer{cmd: exec.CommandContext(ctx, python, "-c", peerProgram, folder, d.kind(), strconv.Itoa(d.rows), strconv.Itoa(d.cols))}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "OPENBLAS_") && !strings.HasPrefix(v, "OMP_") && !strings.HasPrefix(v, "MKL_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	var hello struct{ Versions string }
	if err := p.read(&hello); err != nil {
		return nil, errors.Join(fmt.Errorf("start python: %w", err), p.close())
	}
	p.versions = hello.Versions
	return p, nil
}

func (p *peer) fit(solver string, tolerance float64) (fitted, error) {
	if _, err := fmt.Fprintf(p.in, "{\"solver\": %q, \"tol\": %g}\n", solver, tolerance); err != nil {
		return fitted{}, fmt.Errorf("ask python: %w", err)
	}
	var f fitted
	return f, p.read(&f)
}

func (p *peer) read(v any) error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("hear from python: %w", err)
	}
	return json.Unmarshal(line, v)
}

func (p *peer) close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
