package elasticsearch

import (
	"fmt"
	"path/filepath"
	"strings"
)

// outcome puts what came of a push into words.
func (p *push) outcome(err error) Outcome {
	var out Outcome
	if p.target.note != "" {
		out.Notes = append(out.Notes, p.target.note)
	}
	if n := p.outputs.binaries; n > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%s not pushed to Elasticsearch, as no text: %s", files(n, "was", "were"), listed(p.outputs.binary, n)))
	}
	if n := p.outputs.lost; n > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%s not pushed to Elasticsearch whole, because of a fault in reading: %s", files(n, "was", "were"), p.outputs.unreadable))
	}
	var reasons []string
	if err != nil {
		reasons = append(reasons, fmt.Sprintf("the logs are not all in the Elasticsearch index %s at %s (%s of %s are): %v; the outputs are in %s and `groundplan resume %s` goes on with the push",
			p.Index, p.conn.host, size(p.done.Load()), size(p.total), err, filepath.Join(string(p.folder), "outputs"), p.Input.Run.ID))
	}
	if n := p.state.Refused; n > 0 {
		documents := "1 document"
		if n > 1 {
			documents = fmt.Sprintf("%d documents", n)
		}
		refused := fmt.Sprintf("Elasticsearch refused %s: %s; kept in %s", documents, p.state.FirstRefusal, p.refused.path)
		if err == nil {
			refused += fmt.Sprintf(", and `groundplan resume %s` tries again", p.Input.Run.ID)
		}
		reasons = append(reasons, refused)
	}
	out.Reason = strings.Join(reasons, "; ")
	return out
}

func files(n int, one, many string) string {
	if n == 1 {
		return "1 file " + one
	}
	return fmt.Sprintf("%d files %s", n, many)
}

func listed(names []string, n int) string {
	text := strings.Join(names, ", ")
	if more := n - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// size is a number of bytes as people read it.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
