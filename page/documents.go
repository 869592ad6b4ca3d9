package page

import (
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mostDocument is how long a JSON document of a run may be to be shown, in bytes.
const mostDocument = 16 << 20

// document is a file that is written whole.
type document struct {
	info os.FileInfo
}

// look gives what the file holds when it is another one than before and whole, else nil.
func (d *document) look(path string) []byte {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > mostDocument || d.info != nil && os.SameFile(d.info, info) && d.info.ModTime().Equal(info.ModTime()) {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, mostDocument))
	if err != nil || !json.Valid(data) {
		return nil
	}
	d.info = info
	return data
}

// mostMetrics is how many metrics are shown; the report has all of them.
const mostMetrics = 500

// metricsMessage tells the metrics that a collect stage has computed, the first of them by name.
type metricsMessage struct {
	Total   int                        `json:"total"`
	Metrics map[string]json.RawMessage `json:"metrics"`
}

// readMetrics is nil where the file holds no metrics.
func readMetrics(data []byte) *metricsMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	m := &metricsMessage{Total: len(all), Metrics: map[string]json.RawMessage{}}
	names := slices.Sorted(maps.Keys(all))
	for _, name := range names[:min(len(names), mostMetrics)] {
		m.Metrics[name] = all[name]
	}
	return m
}

// proof is what the pairs of a data network were found to do, beside what was asked of them.
type proof struct {
	Stage     string `json:"stage"`
	Shaper    string `json:"shaper"`
	Tolerance string `json:"tolerance"`
	// Pairs counts all pairs, and Faults those outside the tolerance.
	Pairs  int `json:"pairs"`
	Faults int `json:"faults"`
	// Shown are at most mostPairs, those outside the tolerance first.
	Shown []pair `json:"shown"`

	info os.FileInfo
}

type pair struct {
	From     string         `json:"from"`
	To       string         `json:"to"`
	Asked    map[string]any `json:"asked"`
	Achieved map[string]any `json:"achieved"`
	OK       bool           `json:"ok"`
	Fault    string         `json:"fault,omitempty"`
	Note     string         `json:"note,omitempty"`
}

const mostPairs = 60

// lookAtProofs reads the proofs that are new.
func (r *run) lookAtProofs() map[string]*proof {
	paths, _ := filepath.Glob(filepath.Join(globbed(string(r.folder)), "stages", "*.network.json"))
	fresh := map[string]*proof{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".network.json")
		known := document{}
		if p := r.proofs[name]; p != nil {
			known.info = p.info
		}
		data := known.look(path)
		if data == nil {
			continue
		}
		if p, err := readProof(name, data); err == nil {
			p.info = known.info
			fresh[name] = p
		}
	}
	return fresh
}

// globbed is a path that means itself in a pattern.
func globbed(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func readProof(name string, data []byte) (*proof, error) {
	var file struct {
		Shaper    string `json:"shaper"`
		Tolerance string `json:"tolerance"`
		Pairs     []pair `json:"pairs"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	p := &proof{Stage: name, Shaper: file.Shaper, Tolerance: file.Tolerance, Pairs: len(file.Pairs)}
	for _, pair := range file.Pairs {
		if !pair.OK {
			p.Faults++
		}
	}
	slices.SortStableFunc(file.Pairs, func(a, b pair) int { return cmp.Compare(rank(a), rank(b)) })
	p.Shown = file.Pairs[:min(len(file.Pairs), mostPairs)]
	return p, nil
}

func rank(p pair) int {
	if p.OK {
		return 1
	}
	return 0
}
