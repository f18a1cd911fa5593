package conntrack

import "context"

// turn is whose it is to touch what flows are judged by: the loop's, that changes the wanted state and the rules, or
// that of a pass. Who waits for it longest is next.
type turn chan struct{}

func newTurn() turn {
	t := make(turn, 1)
	t <- struct{}{}
	return t
}

// take waits for the turn, or for the end of ctx.
func (t turn) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // of what is ready, select takes any
		return err
	}
	select {
	case <-t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { t <- struct{}{} }
