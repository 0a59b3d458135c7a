package keystore

import "time"

// Examination is what can be said of a store without opening it for use, and
// without changing anything in it.
type Examination struct {
	Exists  bool // else the first start makes it, and nothing below is set
	Version int  // of its schema
	Known   int  // the newest version that this program knows
	Unclean bool // it was not closed the last time, so that nothing below was read
	Sealed  SealedSecret
	Head    Position
	Clock   time.Duration // how far this machine's clock is ahead of the store's own, if it has one
}
