package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/warderhq/warder/keystore"
)

// AskBeats implements keystore.Notifier.
func (s *Store) AskBeats(ctx context.Context) error {
	return s.ask(ctx, s.rolls, "asking for heartbeats", func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, notify, s.config.channel(), payloadBeat)
		return err
	})
}

// Listen implements keystore.Notifier, on a connection of its own. One that is
// silently dead is found out by a question that it does not answer, and makes
// the store let go of all others too.
func (s *Store) Listen(ctx context.Context, heard func(keystore.Notice)) error {
	const doing = "listening for changes"
	if err := s.enter(ctx, s.listener, doing); err != nil {
		return err
	}
	defer s.listener.leave()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()

	err := s.listen(within, heard)
	switch {
	case ctx.Err() != nil:
		return s.failure(ctx, doing, ctx.Err())
	case s.life.Err() != nil:
		return s.failure(ctx, doing, errClosed)
	default:
		if !answered(err) {
			s.pool.Reset()
		}
		return s.failure(ctx, doing, err)
	}
}

// answered reports whether an error is what a server said: one that has no
// place for another connection, say, is well for those that it has.
func answered(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer)
}

func (s *Store) listen(ctx context.Context, heard func(keystore.Notice)) error {
	conn, err := s.connectListener(ctx)
	if err != nil {
		return err
	}
	defer closeListener(conn)
	heard(keystore.Notice{})
	for {
		notification, err := waitFor(ctx, conn, s.config.Ping)
		if err == nil {
			heard(parseNotice(notification.Payload))
			continue
		}
		if ctx.Err() != nil || !errors.Is(err, errSilence) {
			return err
		}
		if err := s.ping(ctx, conn); err != nil {
			return err
		}
	}
}

func (s *Store) connectListener(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.timeouts.write)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{s.config.channel()}.Sanitize()); err != nil {
		closeListener(conn)
		return nil, err
	}
	return conn, nil
}

// closeListener says farewell, if that can be sent.
func closeListener(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// errSilence is the end of a wait in which nothing was heard.
var errSilence = errors.New("nothing was heard")

func waitFor(ctx context.Context, conn *pgx.Conn, patience time.Duration) (*pgconn.Notification, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	notification, err := conn.WaitForNotification(limited)
	if err != nil && limited.Err() != nil && !conn.IsClosed() {
		return nil, errSilence
	}
	return notification, err
}

func (s *Store) ping(ctx context.Context, conn *pgx.Conn) error {
	limited, cancel := context.WithTimeout(ctx, s.config.timeouts.feed)
	defer cancel()
	if err := conn.Ping(limited); err != nil {
		return fmt.Errorf("asking whether the connection lives: %w", err)
	}
	return nil
}
