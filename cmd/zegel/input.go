package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// readInput reads a file that an officer names, at most limit octets of it. It ends with ctx, also where the
// file is a pipe that nobody writes to.
func readInput(ctx context.Context, path string, limit int) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := readAtMost(path, limit)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", path, context.Cause(ctx))
	}
}

func readAtMost(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > limit {
		return nil, fmt.Errorf("%s is longer than %d octets: it is another file than is meant", path, limit)
	}
	return text, nil
}

// writableFolder refuses a file that could not be made, before anything is signed for it.
func writableFolder(file string) error {
	const writeAndSearch = 2 | 1 // access(2): W_OK, X_OK
	folder := filepath.Dir(file)
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", folder)
	}
	if err := syscall.Access(folder, writeAndSearch); err != nil {
		return fmt.Errorf("make a file in %s: %w", folder, err)
	}
	return nil
}

// checkSerial refuses what is no serial before a daemon is asked: an empty one would be another call's path.
func checkSerial(text string) error {
	if text == "" {
		return badInput("parse serial: it is empty: give it in hex")
	}
	if _, err := journal.ParseSerial(text); err != nil {
		return badInput("%w", err)
	}
	return nil
}
