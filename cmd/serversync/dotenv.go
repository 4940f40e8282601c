package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/joho/godotenv"
)

// loadDotenv sets what a file of NAME=value lines says, where the environment does
// not say it already. No file is no fault. Errors name the line, and never repeat
// what stands there: it may be a secret.
func loadDotenv(path string) error {
	content, err := os.ReadFile(path) //nolint:gosec // G304: .env of the working directory
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	content = bytes.TrimPrefix(content, []byte("\ufeff")) // as some editors begin a file
	values, err := parseDotenv(content)
	if err != nil {
		return fmt.Errorf("line %d cannot be understood: say NAME=value, and put values with spaces, #, $ or quotes in single quotes", faultyLine(content))
	}
	for name, value := range values {
		if _, set := os.LookupEnv(name); set {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: say a value without a NUL byte", name)
		}
	}
	return nil
}

func parseDotenv(content []byte) (map[string]string, error) {
	values, err := godotenv.UnmarshalBytes(content)
	if _, nameless := values[""]; nameless && err == nil { // words at the end of the file
		err = errors.New("a value without a name")
	}
	return values, err
}

// faultyLine is the line, from 1, behind the longest beginning of a wrong file
// that can be read.
func faultyLine(content []byte) int {
	lines := bytes.SplitAfter(content, []byte("\n"))
	for n := len(lines) - 1; n > 0; n-- {
		if _, err := parseDotenv(bytes.Join(lines[:n], nil)); err == nil {
			return n + 1
		}
	}
	return 1
}
