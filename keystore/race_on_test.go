//go:build race

package keystore_test

// raceDetector: everything costs ten times as much.
const raceDetector = true
