package page

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"
)

// subject is what a feed looks at.
type subject interface {
	// look looks once, and returns what takes over what it saw: that is called with the feed's lock held, and tells what
	// has changed.
	look(ctx context.Context) (take func(tell teller))
	// whole tells everything; it is called with the feed's lock held.
	whole(tell teller)
	// pace is how long to wait before the next look.
	pace() time.Duration
}

// teller is told one message.
type teller func(kind string, body any)

// message is one event of a stream, encoded once for all who read it.
type message struct {
	kind string
	body []byte
}

// What a feed remembers, and how long it goes on without a reader.
const (
	memoryMessages = 4000
	memoryBytes    = 4 << 20
	linger         = 20 * time.Second
	slowest        = 5 * time.Second
)

// feed looks at a subject for all its readers, and remembers the newest messages.
type feed struct {
	subject subject
	epoch   string // names this feed: places in another one's memory mean nothing here
	wake    chan struct{}

	mu      sync.Mutex
	looked  bool
	last    uint64    // number of the newest message
	memory  []message // the newest ones; the last of them has the number last
	bytes   int
	changed chan struct{} // closed when there is something new
	readers int
	left    time.Time // when the last reader left
	ended   bool
}

func newFeed(s subject) *feed {
	return &feed{subject: s, epoch: rand.Text()[:10], wake: make(chan struct{}, 1), changed: make(chan struct{}), left: time.Now()}
}

// run looks until the context ends or nobody has read for a while, which retire decides.
func (f *feed) run(ctx context.Context, retire func(*feed) bool) {
	defer f.end()
	for {
		if f.idle() {
			if retire(f) {
				return
			}
		} else {
			began := time.Now()
			f.take(f.subject.look(ctx))
			// A subject that is costly to look at is looked at less often.
			if !f.rest(ctx, max(f.subject.pace(), min(10*time.Since(began), slowest))) {
				return
			}
			continue
		}
		if !f.rest(ctx, time.Second) {
			return
		}
	}
}

// rest waits, or until somebody wants a look now.
func (f *feed) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-f.wake:
	case <-timer.C:
	}
	return true
}

// soon has the feed look now instead of later.
func (f *feed) soon() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readers == 0
}

// take takes over what a look saw.
func (f *feed) take(take func(teller)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.last
	if take != nil {
		take(f.tell)
	}
	if f.last != before || !f.looked {
		f.looked = true
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// tell remembers a message; the lock is held.
func (f *feed) tell(kind string, body any) {
	m := encode(kind, body)
	f.last++
	f.memory = append(f.memory, m)
	f.bytes += len(m.body)
	for len(f.memory) > memoryMessages || f.bytes > memoryBytes && len(f.memory) > 0 {
		f.bytes -= len(f.memory[0].body)
		f.memory = f.memory[1:]
	}
}

func encode(kind string, body any) message {
	data, err := json.Marshal(body)
	if err != nil {
		kind, data = "note", []byte(`{"text":`+strconv.Quote("what the page should tell can't be encoded: "+strings.ToValidUTF8(err.Error(), "?"))+`}`)
	}
	return message{kind, data}
}

func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	close(f.changed)
	f.changed = make(chan struct{})
}

// place is how far a reader has come in a feed.
type place struct {
	epoch string
	last  uint64
}

// String is the id of the last message that was read.
func (p place) String() string { return p.epoch + "." + strconv.FormatUint(p.last, 10) }

// parsePlace reads an id; what is none is the place of who has read nothing.
func parsePlace(text string) place {
	epoch, number, _ := strings.Cut(text, ".")
	last, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return place{}
	}
	return place{epoch, last}
}

// next gives what comes behind a place: the messages there, or everything where the memory doesn't reach back so far. With
// nothing to give, changed is closed once there may be. done says that the feed has ended.
func (f *feed) next(p place) (messages []message, now place, changed <-chan struct{}, done bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now = place{f.epoch, f.last}
	if !f.looked || f.ended {
		return nil, p, f.changed, f.ended
	}
	behind := f.last - p.last // wraps around for a place that isn't reached yet
	if p.epoch != f.epoch || behind > uint64(len(f.memory)) {
		messages = append(messages, message{"reset", []byte("{}")})
		f.subject.whole(func(kind string, body any) { messages = append(messages, encode(kind, body)) })
		return append(messages, message{"ready", []byte("{}")}), now, f.changed, false
	}
	if behind > 0 {
		messages = append(messages, f.memory[uint64(len(f.memory))-behind:]...)
	}
	return messages, now, f.changed, false
}

// feeds are those that somebody reads, by name.
type feeds struct {
	ctx  context.Context
	mu   sync.Mutex
	all  map[string]*feed
	done sync.WaitGroup
}

func newFeeds(ctx context.Context) *feeds { return &feeds{ctx: ctx, all: map[string]*feed{}} }

// join makes the caller a reader of a feed, which is begun when there is none; leave has to be called in the end.
func (fs *feeds) join(name string, begin func() subject) (f *feed, leave func()) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f = fs.all[name]
	if f == nil {
		f = newFeed(begin())
		fs.all[name] = f
		fs.done.Go(func() {
			f.run(fs.ctx, func(f *feed) bool { return fs.retire(name, f) })
		})
	}
	f.mu.Lock()
	f.readers++
	f.mu.Unlock()
	f.soon()
	return f, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.readers--
		f.left = time.Now()
	}
}

// find is a feed that somebody reads, or nil.
func (fs *feeds) find(name string) *feed {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.all[name]
}

// retire forgets a feed that nobody has read for a while.
func (fs *feeds) retire(name string, f *feed) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers > 0 || time.Since(f.left) < linger {
		return false
	}
	delete(fs.all, name)
	return true
}

// wait returns once all feeds have ended, after their context has.
func (fs *feeds) wait() { fs.done.Wait() }
