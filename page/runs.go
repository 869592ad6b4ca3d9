package page

import (
	"context"
	"net/http"
	"slices"
	"time"
)

const runsFeed = "runs"

func (p *Page) runsStream(w http.ResponseWriter, r *http.Request) {
	p.stream(w, r, runsFeed, func() subject { return &runList{services: p.services, shown: map[string]Run{}} })
}

// mostRuns is how many runs are listed, the newest.
const mostRuns = 5000

// runList is the list of runs.
type runList struct {
	services Services
	order    []string // newest first
	shown    map[string]Run
	older    int
	trouble  string
}

// rowsChange tells the rows that are new or have changed, and those that have gone.
type rowsChange struct {
	Set  []Run    `json:"set,omitempty"`
	Gone []string `json:"gone,omitempty"`
	// Older is how many runs are not listed.
	Older int `json:"older,omitempty"`
}

// note is one sentence about the page itself; empty: all is well again.
type note struct {
	Text string `json:"text"`
}

func (l *runList) pace() time.Duration { return time.Second }

func (l *runList) look(ctx context.Context) func(teller) {
	ctx, cancel := context.WithTimeout(ctx, 2*asked)
	defer cancel()
	list, err := l.services.Runs(ctx)
	return func(tell teller) {
		l.trouble = said(tell, l.trouble, err)
		if err == nil {
			l.take(list, tell)
		}
	}
}

// said tells of trouble once when it begins, and once when it is over.
func said(tell teller, before string, err error) (now string) {
	if err != nil {
		now = err.Error()
	}
	if (now == "") != (before == "") {
		tell("note", note{now})
	}
	return now
}

func (l *runList) take(list []Run, tell teller) {
	change := rowsChange{Older: max(len(list)-mostRuns, 0)}
	list = list[:min(len(list), mostRuns)]
	now := make(map[string]Run, len(list))
	l.order = l.order[:0]
	for _, r := range list {
		now[r.ID] = r
		l.order = append(l.order, r.ID)
		if before, there := l.shown[r.ID]; !there || !same(before, r) {
			change.Set = append(change.Set, r)
		}
	}
	for id := range l.shown {
		if _, there := now[id]; !there {
			change.Gone = append(change.Gone, id)
		}
	}
	slices.Sort(change.Gone)
	if len(change.Set) > 0 || len(change.Gone) > 0 || change.Older != l.older {
		tell("rows", change)
	}
	l.shown, l.older = now, change.Older
}

// same compares rows; a time is the same however it is written.
func same(a, b Run) bool {
	if !a.Started.Equal(b.Started) || !a.Ended.Equal(b.Ended) {
		return false
	}
	a.Started, a.Ended = b.Started, b.Ended
	return a == b
}

func (l *runList) whole(tell teller) {
	all := rowsChange{Set: make([]Run, 0, len(l.order)), Older: l.older}
	for _, id := range l.order {
		all.Set = append(all.Set, l.shown[id])
	}
	tell("rows", all)
	if l.trouble != "" {
		tell("note", note{l.trouble})
	}
}
