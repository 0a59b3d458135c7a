package postgres

// The log keeps logKept rows, and what nodes that may still decide have yet to
// apply. But however many they are and however far behind, no more than
// logLimit times as many: who is further behind reloads.
const logLimit = 10

// pruneLog removes what is old enough ($1), unless a node needs it, and what
// is too old ($2) in any case.
const pruneLog = "DELETE FROM log WHERE revision <= greatest($2::bigint, least($1::bigint," +
	" (SELECT min(revision) - 1 FROM nodes WHERE " + mayDecide + ")))" // a position is the row that it names

// prune queues a pruning if it is due. That is not at every change: removing
// many rows at once costs little more than removing one.
func (t *tx) prune() {
	kept := t.store.logKept
	if t.head.Revision < t.head.pruneAt {
		return
	}
	t.head.pruneAt = t.head.Revision + max(kept/10, 1)
	t.queued = append(t.queued, statement{"pruning the log", pruneLog, []any{
		int64(t.head.Revision - kept), int64(t.head.Revision - logLimit*kept),
	}})
}
