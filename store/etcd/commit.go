package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// MaxOps is how many ops one Commit may have: what etcd takes in a transaction unless
// it was told otherwise (--max-txn-ops).
const MaxOps = 128

// Commit writes all ops or none, in one transaction. After ErrUnavailable it is unknown
// whether they were written.
func (s *Store) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if len(ops) > MaxOps {
		return 0, fmt.Errorf("etcd: commit: %w: %d ops are more than the %d that fit in one transaction; split them", store.ErrInvalid, len(ops), MaxOps)
	}
	for {
		rev, again, err := s.tryCommit(ctx, ops)
		if !again {
			return rev, err
		}
	}
}

// tryCommit sends the transaction once. It is to be tried again if what it read to
// prepare an op changed before the op was made.
func (s *Store) tryCommit(ctx context.Context, ops []store.Op) (rev store.Revision, again bool, err error) {
	writes := make([]write, len(ops))
	for i, op := range ops {
		if writes[i], err = s.prepare(ctx, op); err != nil {
			return 0, false, err
		}
	}
	r, err := s.txn(ctx, writes)
	if err != nil {
		return 0, false, err
	}
	if !r.Succeeded {
		return s.refused(ctx, writes, r)
	}
	for i := range writes {
		writes[i].record(r.Header.Revision)
	}
	return r.Header.Revision, false, nil
}

// write is an op made ready for etcd.
type write struct {
	op      store.Op
	path    string
	body    []byte         // of a put
	want    store.Revision // the mod revision to be compared; AnyRevision: none
	guarded bool           // want is what was read, not what the caller asked for
	uid     types.UID      // for the object, as age, once it is written
	age     metav1.Time
}

// prepare finds the op's path and body. What a caller leaves unsaid is read first: the
// uid and age of an object that may be there already, the path of one whose name does
// not say it.
func (s *Store) prepare(ctx context.Context, op store.Op) (write, error) {
	w, c := write{op: op, want: op.Revision}, codecOf(op.Key)
	if op.Object == nil {
		return w, s.find(ctx, c, &w)
	}
	var err error
	if w.path, err = c.path(op.Object); err != nil {
		return w, err
	}
	w.uid, w.age = op.Object.GetUID(), op.Object.GetCreationTimestamp()
	if c.metadata {
		if err := s.identify(ctx, c, &w); err != nil {
			return w, err
		}
	}
	w.body, err = w.encode(c)
	if err != nil {
		return w, invalid(op.Key, "%v", err)
	}
	return w, nil
}

// find sets the path of a deletion.
func (s *Store) find(ctx context.Context, c *codec, w *write) error {
	paths, err := c.paths(w.op.Key)
	if err != nil {
		return err
	}
	w.path = paths[0]
	if len(paths) == 1 {
		return nil
	}
	kv, err := s.fetch(ctx, c, w.op.Key, clientv3.WithKeysOnly())
	if err == nil && kv != nil {
		w.path = string(kv.Key)
	}
	return err
}

// identify sets uid and age: new ones for a new object, else those it has.
func (s *Store) identify(ctx context.Context, c *codec, w *write) error {
	if w.op.Revision == 0 {
		w.uid, w.age = uuid.NewUUID(), metav1.NewTime(s.Now().UTC().Truncate(1e9))
		return nil
	}
	if w.uid != "" {
		return nil
	}
	kv, err := s.fetch(ctx, c, w.op.Key)
	if err != nil {
		return err
	}
	if w.want == store.AnyRevision {
		w.guarded, w.want = true, 0
		if kv != nil {
			w.want = kv.ModRevision
		}
	}
	if kv != nil {
		if old, err := c.readKV(kv); err == nil { // else it is overwritten whole
			w.uid, w.age = old.GetUID(), old.GetCreationTimestamp()
		}
	}
	if w.uid == "" {
		w.uid, w.age = uuid.NewUUID(), metav1.NewTime(s.Now().UTC().Truncate(1e9))
	}
	return nil
}

// encode returns the body with the uid and age to come, and leaves the object as it is.
func (w *write) encode(c *codec) ([]byte, error) {
	o := w.op.Object
	uid, age := o.GetUID(), o.GetCreationTimestamp()
	defer func() { o.SetUID(uid); o.SetCreationTimestamp(age) }()
	o.SetUID(w.uid)
	o.SetCreationTimestamp(w.age)
	return c.encode(o)
}

// record tells the caller's object what has become of it.
func (w *write) record(rev store.Revision) {
	if o := w.op.Object; o != nil {
		api.SetRevision(o, rev)
		o.SetUID(w.uid)
		o.SetCreationTimestamp(w.age)
	}
}

// txn compares all and writes all, or else reads what there is at every path.
func (s *Store) txn(ctx context.Context, writes []write) (*clientv3.TxnResponse, error) {
	var compare []clientv3.Cmp
	var then, otherwise []clientv3.Op
	for _, w := range writes {
		if w.want != store.AnyRevision {
			compare = append(compare, clientv3.Compare(clientv3.ModRevision(w.path), "=", w.want))
		}
		switch {
		case w.op.Object != nil:
			then = append(then, clientv3.OpPut(w.path, string(w.body)))
		case w.want != 0:
			then = append(then, clientv3.OpDelete(w.path))
		}
		otherwise = append(otherwise, clientv3.OpGet(w.path, clientv3.WithKeysOnly()))
	}
	a := s.patient(ctx)
	within, cancel := context.WithTimeout(a.in(ctx), s.Timeout)
	defer cancel()
	r, err := s.client.Txn(within).If(compare...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return nil, s.failure(ctx, "commit", err, a)
	}
	return r, nil
}

// refused finds the op whose comparison failed. If it was only our own guard, the
// commit is to be tried again.
func (s *Store) refused(ctx context.Context, writes []write, r *clientv3.TxnResponse) (store.Revision, bool, error) {
	for i, w := range writes {
		have := store.Revision(0)
		if kvs := r.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			have = kvs[0].ModRevision
		}
		if w.guarded {
			continue
		}
		if err := w.op.Compare(have); err != nil {
			return 0, false, err
		}
	}
	if ctx.Err() != nil {
		return 0, false, fmt.Errorf("etcd: commit: %w", ctx.Err())
	}
	return 0, true, nil
}
