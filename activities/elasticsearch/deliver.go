package elasticsearch

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// mostFaults is how often the server may fail over one document (status 500) before it counts as refused.
const mostFaults = 5

// delivery sends batches, one after the other.
type delivery struct {
	*push
	compressed bytes.Buffer
	zip        *gzip.Writer
	// uncertain says that the last request was sent, and nobody knows what became of it.
	uncertain bool
}

func newDelivery(p *push) *delivery {
	zip, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is one of gzip's own
	}
	return &delivery{push: p, zip: zip}
}

// deliver sends a batch until each of its documents is taken or refused.
func (d *delivery) deliver(ctx context.Context, b *batch) error {
	d.uncertain = d.rolled
	pending := make([]*item, len(b.items))
	for i := range b.items {
		pending[i] = &b.items[i]
	}
	return d.items(ctx, b, pending)
}

func (d *delivery) items(ctx context.Context, b *batch, pending []*item) error {
	for try := 0; len(pending) > 0; {
		again, why, err := d.once(ctx, b, pending)
		if err != nil {
			return err
		}
		if len(again) < len(pending) {
			d.pace.taken()
			try = 0
		}
		pending = again
		if why == nil {
			continue // what there is again is sent otherwise
		}
		var r *refusal
		if errors.As(why, &r) && r.status == http.StatusRequestEntityTooLarge {
			return d.halves(ctx, b, pending)
		}
		if err := d.pace.wait(ctx, try, why); err != nil {
			return err
		}
		try++
	}
	return nil
}

// halves sends a request that was too large in two.
func (d *delivery) halves(ctx context.Context, b *batch, pending []*item) error {
	if len(pending) == 1 {
		return b.refuse(*pending[0], http.StatusRequestEntityTooLarge, "the server takes no request of this size")
	}
	middle := len(pending) / 2
	if err := d.items(ctx, b, pending[:middle]); err != nil {
		return err
	}
	return d.items(ctx, b, pending[middle:])
}

// once sends documents once. It returns those that are to be sent again, and why where that has to wait.
func (d *delivery) once(ctx context.Context, b *batch, pending []*item) (again []*item, why error, err error) {
	if d.uncertain && d.target.stream {
		if pending, why = d.unknown(ctx, pending); why != nil || len(pending) == 0 {
			return pending, why, nil
		}
	}
	if err := d.compress(b, pending); err != nil {
		return nil, nil, err
	}
	status, after, answer, err := d.conn.do(ctx, http.MethodPost, "/"+d.Index+"/_bulk?filter_path=items.*.status,items.*.error", d.compressed.Bytes(), http.Header{
		"Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"gzip"},
	})
	if err != nil {
		d.uncertain = true
		return pending, err, nil
	}
	if status >= 300 {
		d.uncertain = status >= 500
		return pending, refused(status, after, answer), nil
	}
	d.uncertain = d.rolled
	return d.sort(b, pending, answer)
}

func (d *delivery) compress(b *batch, pending []*item) error {
	d.compressed.Reset()
	d.zip.Reset(&d.compressed)
	for _, i := range pending {
		parts := b.document(*i)
		for _, part := range [][]byte{b.body[i.start:i.doc], parts[0], parts[1], {'\n'}} {
			if _, err := d.zip.Write(part); err != nil {
				return fmt.Errorf("compressing a request: %w", err)
			}
		}
	}
	return d.zip.Close()
}

// itemAnswer is what the server says about one document.
type itemAnswer struct {
	Status int          `json:"status"`
	Error  *serverError `json:"error"`
}

// sort looks at what became of each document.
func (d *delivery) sort(b *batch, pending []*item, answer []byte) (again []*item, why error, err error) {
	var said struct {
		Items []struct{ Create, Index *itemAnswer } `json:"items"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || len(said.Items) != len(pending) {
		d.uncertain = true
		return pending, fmt.Errorf("its answer can't be read (%d bytes about %d of %d documents)", len(answer), len(said.Items), len(pending)), nil
	}
	for n, i := range pending {
		a := said.Items[n].Create
		if a == nil {
			a = said.Items[n].Index
		}
		if a == nil {
			a = &itemAnswer{Status: http.StatusInternalServerError}
		}
		retry, fault, err := judge(b, i, *a)
		if err != nil {
			return nil, nil, err
		}
		if retry {
			again = append(again, i)
		}
		if fault != nil {
			why = fault
		}
	}
	return again, why, nil
}

// judge decides what is to be done about a document: nothing more, sending it again, at once or, where there is a fault,
// later.
func judge(b *batch, i *item, a itemAnswer) (again bool, fault error, err error) {
	if a.Status < 300 || a.Status == http.StatusConflict { // an earlier try's
		return false, nil, nil
	}
	if a.Error == nil {
		a.Error = &serverError{}
	}
	r := &refusal{status: a.Status, kind: a.Error.Type, reason: a.Error.text()}
	switch {
	case r.passing(), r.account(), r.status == http.StatusNotFound:
		return true, r, nil
	case r.status >= 500:
		if i.faults++; i.faults < mostFaults {
			return true, r, nil
		}
	case i.event > 0 && !i.leaveEvent:
		i.leaveEvent = true // a plan may write JSON that the server can't take apart: its line is taken all the same
		return true, nil, nil
	}
	return false, nil, b.refuse(*i, r.status, r.Error())
}

// unknown leaves out those of some documents that are in the data stream: there, an id keeps nobody from creating a document
// that a backing index before the newest has.
func (d *delivery) unknown(ctx context.Context, pending []*item) ([]*item, error) {
	ids := make([]string, len(pending))
	for n, i := range pending {
		ids[n] = i.id
	}
	if _, err := d.conn.ask(ctx, http.MethodPost, "/"+d.Index+"/_refresh", nil); err != nil {
		return pending, err
	}
	answer, err := d.conn.ask(ctx, http.MethodPost, "/"+d.Index+"/_search?filter_path=hits.hits._id", object{
		"size": len(ids), "_source": false, "query": object{"ids": object{"values": ids}},
	})
	if err != nil {
		return pending, err
	}
	var found struct {
		Hits struct {
			Hits []struct {
				ID string `json:"_id"`
			} `json:"hits"`
		} `json:"hits"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return pending, fmt.Errorf("its answer can't be read: %w", err)
	}
	there := make(map[string]bool, len(found.Hits.Hits))
	for _, hit := range found.Hits.Hits {
		there[hit.ID] = true
	}
	return slices.DeleteFunc(pending, func(i *item) bool { return there[i.id] }), nil
}
