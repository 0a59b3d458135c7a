//go:build race

package caddymodule

// raceDetector: everything costs ten times as much, and pools forget.
const raceDetector = true
