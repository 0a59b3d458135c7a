package keystore

import (
	"errors"
	"fmt"
)

// Why a credential does not pass. The adapter in front decides which of these
// a caller may be told; see the table in package caddymodule.
var (
	// ErrNoCredential: the request carries nothing in credential position,
	// or a scheme that is not ours.
	ErrNoCredential = errors.New("no credential")
	// ErrMalformed: what stands in credential position is ambiguous or
	// broken as a message (repeated, comma-joined, control characters).
	ErrMalformed = errors.New("malformed credential")
	// ErrInvalid: undecodable, made up, unknown or wrong. Callers must not be
	// able to tell these apart.
	ErrInvalid = errors.New("invalid credential")

	// The caller has proved that the credential is its own, but:
	ErrBlocked     = errors.New("key is blocked")
	ErrExpired     = errors.New("key is expired")
	ErrDeactivated = errors.New("key is deactivated")
	ErrSuperseded  = errors.New("secret was superseded")
	// ErrTokenExpired is the access token's own end; its key may be well.
	ErrTokenExpired = errors.New("access token is expired")
	// ErrTokenRevoked: this one access token was revoked; its key may be well.
	ErrTokenRevoked = errors.New("access token was revoked")

	// ErrScope: the credential is good but lacks a required scope.
	ErrScope = errors.New("scope is missing")
	// ErrKeyType: the credential is good but its key is of another type.
	ErrKeyType = errors.New("key type is not allowed")
	// ErrNetwork: the key may not be used from where the request comes.
	ErrNetwork = errors.New("network is not allowed")
	// ErrPermission: no permission of the key allows this method and path.
	ErrPermission = errors.New("permission is missing")
	// ErrLimited: the key is used more often than it may. See LimitedError.
	ErrLimited = errors.New("limit is exceeded")
)

// Why an answer cannot be given at all. None of these is a denial.
var (
	// ErrStale: the lease is over, so this node cannot know.
	ErrStale = errors.New("lease is over")
	// ErrUnavailable: the store was needed and did not answer.
	ErrUnavailable = errors.New("store is unavailable")
	// ErrNotInForce: the change is committed, but this node has not applied it
	// yet. Doing it again would do it twice.
	ErrNotInForce = errors.New("committed, but not yet in force")
	// ErrPositionLost: the log no longer holds the position asked for, or
	// holds another change there. The store was restored, has failed over,
	// or was pruned: whatever was cached before is void.
	ErrPositionLost = errors.New("position in the change log is lost")
)

// Why a management call is refused.
var (
	ErrKeyNotFound          = errors.New("key not found")
	ErrOrganizationNotFound = errors.New("organization not found")
	ErrOrganizationExists   = errors.New("organization exists")
	ErrNameTaken            = errors.New("name is taken")
	ErrNeverExpires         = errors.New("key never expires")
	ErrForbidden            = errors.New("caller may not do this")
	ErrOrganizationInUse    = errors.New("organization has keys")
	ErrDefaultOrganization  = errors.New("the default organization always exists")
	ErrLastKey              = errors.New("key is the last standard one of its organization")
	ErrNoGracePeriod        = errors.New("key has no previous secret")
	ErrCredentialTaken      = errors.New("credential belongs to another key")
	ErrPermissionNotFound   = errors.New("permission not found")
	ErrPermissionInUse      = errors.New("permission is in use")
	ErrTooOften             = errors.New("done too often")
	// ErrStaleEdit: the record changed since the revision the caller edits.
	ErrStaleEdit = errors.New("revision does not match")
	// Idempotency-Key: the same key with another body, with a call that is
	// still running, and with an answer whose secret is no longer kept.
	ErrReplayMismatch   = errors.New("idempotency key was used for another request")
	ErrReplayRunning    = errors.New("request with this idempotency key is still running")
	ErrReplaySecretGone = errors.New("answer with the secret is no longer kept")
)

// managementRefusals are the refusals that the audit log keeps.
var managementRefusals = []error{
	ErrKeyNotFound, ErrOrganizationNotFound, ErrOrganizationExists, ErrNameTaken, ErrNeverExpires, ErrForbidden,
	ErrOrganizationInUse, ErrDefaultOrganization, ErrLastKey, ErrNoGracePeriod, ErrPermissionNotFound, ErrPermissionInUse,
	ErrCredentialTaken, ErrTooOften, ErrStaleEdit, ErrReplayMismatch, ErrReplaySecretGone, ErrBlocked, ErrExpired,
}

// ErrFormerMasterKey: the store has a newer master key than this node.
var ErrFormerMasterKey = errors.New("master key was changed on another node")

// Why a store does not open. Each is fatal at start.
var (
	ErrWrongMasterKey = errors.New("master key does not open this store")
	ErrCorrupt        = errors.New("store is corrupt")
	ErrNewerSchema    = errors.New("store was written by a newer version")
	ErrStoreInUse     = errors.New("store is in use by another process")
)

// FieldError says which field of a management call is wrong, and why.
// Pointer is a JSON pointer (RFC 6901) into the request body.
type FieldError struct {
	Pointer string
	Reason  string
}

func (e *FieldError) Error() string { return e.Pointer + ": " + e.Reason }

// ReplaySecretGoneError carries the id of the key that the first, answered
// call made, so that its owner can find it. It is an ErrReplaySecretGone.
type ReplaySecretGoneError struct{ Key KeyID }

func (e *ReplaySecretGoneError) Error() string {
	return ErrReplaySecretGone.Error() + " for key " + string(e.Key)
}

// Unwrap makes errors.Is(err, ErrReplaySecretGone) true.
func (e *ReplaySecretGoneError) Unwrap() error { return ErrReplaySecretGone }

// ItemError says which of several things a refusal is about. It is the error
// that it holds.
type ItemError struct {
	Pointer string
	Err     error
}

func (e *ItemError) Error() string { return e.Pointer + ": " + e.Err.Error() }

// Unwrap makes errors.Is see the refusal.
func (e *ItemError) Unwrap() error { return e.Err }

// PermissionInUseError carries the keys, or the first of them, that refer to
// the permission. It is an ErrPermissionInUse.
type PermissionInUseError struct {
	Keys          []KeyID
	Organizations []string // that allow it
}

func (e *PermissionInUseError) Error() string {
	return fmt.Sprintf("%v by %d keys and %d organizations", ErrPermissionInUse, len(e.Keys), len(e.Organizations))
}

// Unwrap makes errors.Is(err, ErrPermissionInUse) true.
func (e *PermissionInUseError) Unwrap() error { return ErrPermissionInUse }

// unavailable marks err as a failure of the store, whatever the driver made
// of it: a time-out is not a denial.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
