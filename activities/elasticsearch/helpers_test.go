package elasticsearch

import (
	"regexp"
	"strings"
)

var (
	amounts = regexp.MustCompile(`\([0-9.]+ k?B of`)
	numbers = regexp.MustCompile(`refused \d+ documents|stopped after \d+|nothing for \S+:`)
	sockets = regexp.MustCompile(`(read|write|dial) tcp \S+?(->\S+)?: .*?(\)|;|$)|EOF`)
)

// steady takes from a text what differs from one time to the next.
func steady(text string) string {
	text = amounts.ReplaceAllString(text, "(SOME of")
	text = sockets.ReplaceAllString(text, "NETWORK FAULT$3")
	return numbers.ReplaceAllStringFunc(text, func(s string) string {
		return strings.NewReplacer("0", "N", "1", "N", "2", "N", "3", "N", "4", "N", "5", "N", "6", "N", "7", "N", "8", "N", "9", "N", "NN", "N").Replace(s)
	})
}
