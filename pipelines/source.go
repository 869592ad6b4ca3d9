package pipelines

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits on what is read. They are there so that no file, however it came about, takes more than a second or 256 MiB.
const (
	maxFileBytes  = 1 << 20
	maxAliases    = 10_000  // alias expansions in a document
	maxDepth      = 64      // of nesting
	maxValues     = 100_000 // values in a document once aliases are expanded
	maxStructural = 150_000 // bytes in a file that can begin a value, before it goes to the YAML parser
)

// source is the text of one file.
type source struct {
	path  string // relative to the root, with forward slashes
	text  string
	lines []string
	order int
}

func newSource(path, text string, order int) *source {
	text = strings.TrimPrefix(text, "\ufeff")
	return &source{path: path, text: text, order: order}
}

// lineText returns a line, counting from 1; the text is split when the first fault asks.
func (s *source) lineText(line int) string {
	if s.lines == nil {
		s.lines = strings.Split(s.text, "\n")
	}
	if line < 1 || line > len(s.lines) {
		return ""
	}
	return s.lines[line-1]
}

func (s *source) at(line, column int) place { return place{s, line, column} }

// parse turns the text into the one YAML node of the file, or adds what is wrong and returns nil.
func (s *source) parse(faults *collector) *yaml.Node {
	if problem := s.oversize(); problem != "" {
		faults.faultf(s.at(1, 1), "%s", problem)
		return nil
	}
	if !utf8.ValidString(s.text) {
		line := 1 + strings.Count(s.text[:firstInvalid(s.text)], "\n")
		faults.faultf(s.at(line, 1), "the file is not UTF-8 text")
		return nil
	}
	decoder := yaml.NewDecoder(strings.NewReader(s.text))
	var node yaml.Node
	if err := decodeYAML(decoder, &node); errors.Is(err, io.EOF) || (err == nil && len(node.Content) == 0) {
		faults.faultf(s.at(1, 1), "the file is empty")
		return nil
	} else if err != nil {
		s.syntaxFault(faults, err)
		return nil
	}
	var second yaml.Node
	if err := decodeYAML(decoder, &second); err == nil {
		faults.faultf(s.at(max(1, second.Line), max(1, second.Column)), "a file holds one YAML document, and here a second one begins")
		return nil
	} else if !errors.Is(err, io.EOF) {
		s.syntaxFault(faults, err)
		return nil
	}
	return node.Content[0]
}

// oversize says which limit the text breaks. It runs before the YAML parser, which makes a node of some 200 bytes out
// of a single character.
func (s *source) oversize() string {
	if len(s.text) > maxFileBytes {
		return fmt.Sprintf("the file has %d bytes, more than the limit of 1 MiB", len(s.text))
	}
	structural, flow := 0, 0
	lineStart := true
	for i := range len(s.text) {
		switch c := s.text[i]; {
		case c == '\n':
			structural++
			lineStart = true
			continue
		case lineStart && (c == ' ' || c == '-' || c == '?'):
			if c != ' ' {
				structural++
			}
			continue
		case c == '[' || c == '{':
			flow++
			structural++
		case c == ']' || c == '}':
			flow--
		case c == ',' || c == ':' || c == '&' || c == '*' || c == '!' || c == '#' || c == '?':
			structural++
		}
		lineStart = false
		if flow > 16*maxDepth {
			return fmt.Sprintf("the file nests brackets deeper than the limit of %d", maxDepth)
		}
	}
	if structural > maxStructural {
		return fmt.Sprintf("the file holds about %d values, more than the limit of %d", structural, maxValues)
	}
	return ""
}

func firstInvalid(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return i
			}
		}
	}
	return len(text)
}

// decodeYAML makes an error of a panic of the YAML parser: it is not ours, and a file must never end the program.
func decodeYAML(decoder *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: cannot be read: %v", p)
		}
	}()
	return decoder.Decode(into)
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// countedFromZero are messages for which the YAML parser counts lines from 0 rather than from 1.
var countedFromZero = regexp.MustCompile(`did not find expected (<|node content|'-' indicator|key|',' or)|found undefined tag|directive|incompatible`)

// syntaxFault places what the YAML parser says: it knows the line only.
func (s *source) syntaxFault(faults *collector, err error) {
	line, message := 1, strings.ReplaceAll(err.Error(), "\n", " ")
	if m := yamlError.FindStringSubmatch(message); m != nil {
		if n, convErr := strconv.Atoi(m[1]); convErr == nil {
			line = n
		}
		if m[1] != "" && countedFromZero.MatchString(m[2]) {
			line++
		}
		message = m[2]
	}
	if strings.HasPrefix(strings.TrimLeft(s.lineText(line), " "), "\t") {
		message = "a tab can't indent YAML: use spaces"
	}
	text := s.lineText(line)
	column := 1 + len([]rune(text)) - len([]rune(strings.TrimLeft(text, " ")))
	faults.faultf(s.at(line, column), "not valid YAML: %s", message)
}
