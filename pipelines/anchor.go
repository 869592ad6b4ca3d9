package pipelines

import (
	"fmt"
	"regexp"
	"strings"
)

var statePattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_./-]{0,127}$`)

// parseAnchor reads a moment of a run: `30s`, `half-done`, `split.healed + 10s`. Whether a name is an event's or a
// state's is for the check to say: State holds it, and Healed that `.healed` was cut off.
func parseAnchor(text string) (Anchor, error) {
	first, offset, plus := strings.Cut(text, "+")
	first, offset = strings.TrimSpace(first), strings.TrimSpace(offset)
	var a Anchor
	if plus {
		d, err := ParseDuration(offset)
		if err != nil {
			return a, fmt.Errorf("the offset of a moment: %w", err)
		}
		a.Offset = d
	}
	if first != "" && (first[0] >= '0' && first[0] <= '9' || first[0] == '-' || first[0] == '.') {
		d, err := ParseDuration(first)
		if err != nil {
			return a, err
		}
		if d < 0 || a.Offset < 0 || d+a.Offset < 0 {
			return a, fmt.Errorf("`%s` is before the start or too far after it", clip(text))
		}
		return Anchor{Offset: d + a.Offset}, nil
	}
	if a.Offset < 0 {
		return a, fmt.Errorf("`%s`: an offset can't be negative", clip(text))
	}
	a.State, a.Healed = strings.CutSuffix(first, ".healed")
	if !statePattern.MatchString(a.State) {
		return a, fmt.Errorf("`%s` is not a moment: 30s, the name of a state or event, `event.healed`, with or without `+ 10s` behind it", clip(text))
	}
	return a, nil
}
