package managementapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Maintenance is what is done to the store as a whole. Only the endpoint of
// the process itself offers it: a copy of the store leaves the machine with
// nobody but who could read the file anyway.
type Maintenance interface {
	// Copy begins a copy of the store; see keystore.Copier. ErrNoCopy.
	Copy(ctx context.Context) (io.ReadCloser, error)
	// MasterKey says which key the store is sealed under.
	MasterKey(ctx context.Context) (MasterKey, error)
	// RotateMasterKey seals it under a new one. ErrMasterKeyConfigured.
	RotateMasterKey(ctx context.Context) (MasterKeyRotation, error)
	// FinishMasterKey lets no former one open it any more.
	// keystore.ErrFormerMasterKey.
	FinishMasterKey(ctx context.Context) (MasterKeyRotation, error)
}

// Why something cannot be done to this store, or not here.
var (
	ErrNoCopy              = errors.New("store has tools of its own to copy it")
	ErrMasterKeyConfigured = errors.New("master key is configured")
	errNotLocal            = errors.New("only the server's own endpoint does this")
)

// MasterKey is the key that the store is sealed under. It never shows it.
type MasterKey struct {
	Fingerprint string   `json:"fingerprint"`
	Former      []string `json:"former"`             // keys that open it, too, until the change is finished
	Source      string   `json:"source"`             // key_file or configured
	KeyFile     string   `json:"key_file,omitempty"` // where it is
}

// Where a master key can come from.
const (
	SourceKeyFile    = "key_file"
	SourceConfigured = "configured"
)

// MasterKeyRotation is the answer to a change of the master key.
type MasterKeyRotation struct {
	MasterKey
	Dropped []string `json:"dropped"` // the keys that do not open the store any more
}

// BackupType is the media type of a copy.
const BackupType = "application/vnd.sqlite3"

// digestTrailer (RFC 9530) comes after a copy, and only if all of it came: its
// lack tells that the end is missing.
const digestTrailer = "Content-Digest"

func digestOf(sum []byte) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

func (a *API) backup(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	if a.Maintenance == nil {
		return answer{}, errNotLocal
	}
	copied, err := a.Maintenance.Copy(c.Context())
	if err != nil {
		return answer{}, err
	}
	a.Service.Noted(c.Context(), c.caller, c.route.operation, nil, nil)
	return answer{stream: copied}, nil
}

func (a *API) masterKey(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	if a.Maintenance == nil {
		return answer{}, errNotLocal
	}
	key, err := a.Maintenance.MasterKey(c.Context())
	return answer{body: key}, err
}

func (a *API) rotateMasterKey(c *call) (answer, error) {
	return a.changeMasterKey(c, Maintenance.RotateMasterKey)
}

func (a *API) finishMasterKey(c *call) (answer, error) {
	return a.changeMasterKey(c, Maintenance.FinishMasterKey)
}

func (a *API) changeMasterKey(c *call, change func(Maintenance, context.Context) (MasterKeyRotation, error)) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	if a.Maintenance == nil {
		return answer{}, errNotLocal
	}
	// It goes on if the caller does not: half of it would be done.
	done, err := change(a.Maintenance, context.WithoutCancel(c.Context()))
	if err != nil {
		return answer{}, err
	}
	if len(done.Dropped) > 0 {
		a.Service.Noted(c.Context(), c.caller, c.route.operation,
			map[string]any{"dropped_master_keys": done.Dropped}, map[string]any{"master_key": done.Fingerprint})
	}
	return answer{body: done}, nil
}

const (
	streamChunk = 1 << 20
	// chunkTimeout ends a copy that nobody takes: what is written to the store
	// meanwhile piles up.
	chunkTimeout = 30 * time.Second
)

// stream sends a copy. After the first byte, only breaking off can tell that
// something has failed.
func (a *API) stream(w http.ResponseWriter, r *http.Request, copied io.ReadCloser) {
	defer copied.Close()
	h := w.Header()
	h.Set("Content-Type", BackupType)
	h.Set("Trailer", digestTrailer)
	if r.Method == http.MethodHead {
		return
	}
	sum := sha256.New()
	if err := sendChunks(w, io.TeeReader(copied, sum)); err != nil {
		if a.Log != nil {
			a.Log(r, fmt.Errorf("sending a copy of the store: %w", err))
		}
		panic(http.ErrAbortHandler)
	}
	h.Set(digestTrailer, digestOf(sum.Sum(nil)))
}

func sendChunks(w http.ResponseWriter, from io.Reader) error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // of the whole request, which is read; passing, it would end the context
	if err := control.Flush(); err != nil {  // it is an answer from here on
		return err
	}
	chunk := make([]byte, streamChunk)
	for {
		n, err := io.ReadFull(from, chunk)
		if n > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(chunkTimeout)) // what cannot be set is set by the server
			if _, err := w.Write(chunk[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return control.SetWriteDeadline(time.Time{})
		case err != nil:
			return err
		}
	}
}
