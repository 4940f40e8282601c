package db

// ExplainListing is the statement of [ListServers], with its parameters.
func ExplainListing(q *ServersQuery) (statement string, args []any) { return q.statement(730) }

// PruneHistorySQL is for a look at its plan.
const PruneHistorySQL = pruneHistory
