//go:build unix

package clustertest

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// A link is the network between one node and the database: a TCP proxy that
// can be slow, lossy, cut or silent, in each direction on its own.
type link struct {
	listener net.Listener
	toStore  *way
	toNode   *way
	ended    context.Context // is done when the link is closed
	end      context.CancelFunc
	passages sync.WaitGroup

	mu     sync.Mutex // guards what follows
	target string
	closed bool // to new connections
	open   map[*passage]struct{}
}

// A passage is one connection through the link.
type passage struct{ node, store net.Conn }

func newLink(t testing.TB, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, toStore: new(way), toNode: new(way), target: target, open: make(map[*passage]struct{})}
	l.ended, l.end = context.WithCancel(context.Background())
	l.passages.Go(l.accept)
	t.Cleanup(func() {
		l.end()
		listener.Close()
		l.breakAll()
		l.passages.Wait()
	})
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

// lead has new connections go to another server. Those there are stay.
func (l *link) lead(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

// cut resets all connections, and new ones at once, until heal.
func (l *link) cut() {
	l.refuse(true)
	l.breakAll()
}

// swallow keeps all connections, accepts new ones, and forwards nothing: to
// the database, to the node, or neither. What is under way is kept until heal,
// as TCP would send it again.
func (l *link) swallow(toStore, toNode bool) {
	l.toStore.block(toStore)
	l.toNode.block(toNode)
}

// heal ends what cut and swallow did.
func (l *link) heal() {
	l.refuse(false)
	l.swallow(false, false)
}

// breakAll resets all connections that there are now.
func (l *link) breakAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.open {
		reset(p.node)
		reset(p.store)
	}
}

func (l *link) refuse(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = yes
}

// reset closes a connection, if there is one, without a word to say.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else what was written is still delivered
		tcp.Close()
	}
}

func (l *link) accept() {
	for {
		node, err := l.listener.Accept()
		if err != nil {
			return // the listener was closed
		}
		l.passages.Go(func() { l.carry(node) })
	}
}

// carry forwards one connection until both ends have closed it or it breaks.
func (l *link) carry(node net.Conn) {
	ctx, cancel := context.WithCancel(l.ended)
	defer cancel()
	p := &passage{node: node}
	if !l.enter(p) {
		reset(node)
		return
	}
	defer l.leave(p)
	if l.toStore.passable(ctx) != nil || !l.reach(ctx, p) {
		return
	}
	// The protocol knows no half-closed connections: the end of either
	// direction is the end of both.
	var both sync.WaitGroup
	both.Go(func() { l.toStore.forward(ctx, p.store, node); cancel(); node.Close(); p.store.Close() })
	both.Go(func() { l.toNode.forward(ctx, node, p.store); cancel(); node.Close(); p.store.Close() })
	both.Wait()
}

// reach connects to the server that the link leads to now.
func (l *link) reach(ctx context.Context, p *passage) bool {
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	store, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p.store = store
	return !l.closed
}

func (l *link) enter(p *passage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[p] = struct{}{}
	return !l.closed
}

func (l *link) leave(p *passage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, p)
	reset(p.node)
	reset(p.store)
}

// A way is one direction of a link.
type way struct {
	mu      sync.Mutex // guards what follows
	delay   time.Duration
	loss    float64       // how likely a segment is lost
	blocked chan struct{} // nil: it is not; closed when it no longer is
}

// segmentSize is what one packet carries on most networks.
const segmentSize = 1448

// retransmission is how much later a lost segment arrives: TCP loses nothing,
// but sends again after about so long, and all that follows waits for it.
const retransmission = 200 * time.Millisecond

// slow sets the delay of each segment and the likelihood that it is lost.
func (w *way) slow(delay time.Duration, loss float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay, w.loss = delay, loss
}

func (w *way) block(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case yes && w.blocked == nil:
		w.blocked = make(chan struct{})
	case !yes && w.blocked != nil:
		close(w.blocked)
		w.blocked = nil
	}
}

// passable waits while the way is blocked.
func (w *way) passable(ctx context.Context) error {
	for {
		w.mu.Lock()
		blocked := w.blocked
		w.mu.Unlock()
		if blocked == nil {
			return ctx.Err()
		}
		select {
		case <-blocked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// latency is how long a segment that is sent now is under way.
func (w *way) latency() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loss > 0 && rand.Float64() < w.loss {
		return w.delay + retransmission
	}
	return w.delay
}

type segment struct {
	data    []byte
	arrives time.Time
}

// forward carries what comes from one side to the other, in order, until
// either is closed.
func (w *way) forward(ctx context.Context, to io.Writer, from io.Reader) {
	sent := make(chan segment, 1024) // then the sender has to wait, as for a window
	go func() {
		defer close(sent)
		for {
			data := make([]byte, segmentSize)
			n, err := from.Read(data)
			if n > 0 {
				select {
				case sent <- segment{data[:n], time.Now().Add(w.latency())}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for s := range sent {
		wait := time.NewTimer(time.Until(s.arrives))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		if w.passable(ctx) != nil {
			return
		}
		if _, err := to.Write(s.data); err != nil {
			return
		}
	}
	_ = w.passable(ctx) // the end is a segment, too
}
