package tokenissuer

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// Bounds of a body. maxReading is how many are read at the same time: each may
// take maxBody of memory for bodyTime, whoever sends it.
const (
	maxBody    = 16 << 10
	bodyTime   = 10 * time.Second
	maxReading = 1024
)

var errTooManyBodies = errors.New("too many bodies are being read")

// read has one request read, if there is a place for it.
func read[T any](e *Endpoints, w http.ResponseWriter, r *http.Request, by func(http.ResponseWriter, *http.Request) (T, error)) (T, error) {
	select {
	case e.reading <- struct{}{}:
		defer func() { <-e.reading }()
		return by(w, r)
	default:
		var none T
		return none, refusedUnavailable.because(errTooManyBodies)
	}
}

// readBody reads the whole body within its bounds. A writer without read
// deadlines does not make it wait any longer.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, refusedTooLarge
	}
	limited := http.MaxBytesReader(w, r.Body, maxBody)
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(bodyTime)) != nil {
		body, err := readBodyUntil(limited, time.After(bodyTime))
		if err != nil && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // or the server waits for the rest before it answers
		}
		return body, err
	}
	body, err := io.ReadAll(limited)
	if err != nil {
		return nil, bodyRefusal(err) // the deadline stays: nobody waits for the rest either
	}
	_ = control.SetReadDeadline(time.Time{}) // what follows has its own bounds
	return body, nil
}

// readBodyUntil leaves a read that is late to itself: it ends when the server
// closes the body after the answer.
func readBodyUntil(body io.Reader, late <-chan time.Time) ([]byte, error) {
	type result struct {
		body []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		body, err := io.ReadAll(body)
		done <- result{body, err}
	}()
	select {
	case read := <-done:
		if read.err != nil {
			return nil, bodyRefusal(read.err)
		}
		return read.body, nil
	case <-late:
		return nil, refusedTooSlow
	}
}

func bodyRefusal(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refusedTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusedTooSlow
	default:
		return refusedBody.because(err)
	}
}
