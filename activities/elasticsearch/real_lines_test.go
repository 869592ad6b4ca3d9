package elasticsearch

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/groundplan/groundplan/internal/elasticserver"
)

// sameLog reads an instance's run.out back, in the order of its lines, and says how it differs from the file.
func sameLog(s *elasticserver.Server, o Order, instance int) error {
	want, err := os.ReadFile(filepath.Join(o.Folder.Outputs("eu", instance), "run.out"))
	if err != nil {
		return err
	}
	const page = 5000
	lines := 0
	for after := -1.0; ; {
		found := s.Ask(http.MethodPost, "/"+o.Index+"/_search", object{
			"size": page, "_source": []string{"message", "offset"}, "sort": []any{object{"offset": "asc"}}, "search_after": []any{after},
			"query": object{"bool": object{"filter": []any{object{"term": object{"instance": instance}}, object{"term": object{"file": "run.out"}}}}},
		})
		hits := found["hits"].(object)["hits"].([]any)
		for _, hit := range hits {
			source := hit.(object)["_source"].(object)
			line := append([]byte(source["message"].(string)), '\n')
			if after = source["offset"].(float64); !bytes.HasPrefix(want, line) {
				return fmt.Errorf("instance %d, offset %.0f: %q is there, want %.100q", instance, after, line, want)
			}
			want = want[len(line):]
			lines++
		}
		if len(hits) < page {
			break
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("instance %d: %d lines are there, and %d bytes more should be", instance, lines, len(want))
	}
	return nil
}
