package managementapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// ErrIncomplete: of a copy not all has come, or not what was sent.
var ErrIncomplete = errors.New("the copy is incomplete")

// Download writes what a route streams to w, and returns its SHA-256. It may
// take as long as it goes on. Without an error all of it is there, as it was
// sent: ErrIncomplete. What it cannot write is w's own error.
func (c *Client) Download(ctx context.Context, in Request, w io.Writer) ([]byte, error) {
	if err := c.meet(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(clientTimeout, cancel)
	defer stalled.Stop()
	r, err := c.request(ctx, in)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); resp.StatusCode != http.StatusOK || media != BackupType {
		_, err := c.read(resp)
		if err == nil {
			err = fmt.Errorf("%w: %s sent no copy", ErrNotWarder, c.place)
		}
		return nil, err
	}
	sum := sha256.New()
	if err := c.receive(resp, io.MultiWriter(w, sum), func() { stalled.Reset(clientTimeout) }); err != nil {
		return nil, err
	}
	if resp.Trailer.Get(digestTrailer) != digestOf(sum.Sum(nil)) {
		return nil, fmt.Errorf("%w: its digest is another", ErrIncomplete)
	}
	return sum.Sum(nil), nil
}

func (c *Client) receive(resp *http.Response, w io.Writer, alive func()) error {
	chunk := make([]byte, streamChunk)
	for {
		n, err := resp.Body.Read(chunk)
		if n > 0 {
			alive()
			if _, err := w.Write(chunk[:n]); err != nil {
				return err
			}
			alive()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %s broke off: %w", ErrIncomplete, c.place, err)
		}
	}
}
