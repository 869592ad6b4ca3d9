package pipelines

import (
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
)

// maxRegions bounds the rows and columns of a region file.
const maxRegions = 256

// regions is a region file: one-way latencies between regions.
type regions struct {
	names  []string // in the order of the file
	matrix map[string]map[string]Duration
}

// readRegions reads a region file, each once; nil when it is wrong.
func (d *Document) readRegions(name string, at place) *regions {
	if r, ok := d.regions[name]; ok {
		return r
	}
	d.regions[name] = nil
	f := d.files.file(name, at)
	if f == nil {
		return nil
	}
	if problem := f.src.oversize(); problem != "" {
		d.files.faults.faultf(f.src.at(1, 1), "%s", problem)
		return nil
	}
	r := f.src.parseRegions(d.files.faults)
	d.regions[name] = r
	return r
}

// parseRegions reads CSV: the first row has the destinations, the first column the sources. An empty field or `-` sets
// nothing.
func (s *source) parseRegions(faults *collector) *regions {
	reader := csv.NewReader(strings.NewReader(s.text))
	reader.FieldsPerRecord = -1
	reader.TrimLeadingSpace = true
	reader.Comment = '#'
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		faults.faultf(s.at(1, 1), "the file is empty: the first row names the destinations")
		return nil
	}
	if err != nil {
		s.csvFault(faults, err)
		return nil
	}
	r := &regions{matrix: map[string]map[string]Duration{}}
	if len(header)-1 > maxRegions {
		faults.faultf(s.at(1, 1), "a region file has at most %d regions, this one has %d", maxRegions, len(header)-1)
		return nil
	}
	columns := make([]string, len(header))
	for i, field := range header[1:] {
		columns[i+1] = s.regionName(faults, reader, i+1, field)
		if slices.Contains(columns[1:i+1], columns[i+1]) {
			faults.faultf(s.csvAt(reader, i+1), "the region `%s` has two columns", clip(columns[i+1]))
		}
	}
	r.names = columns[1:]
	for !faults.full() {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err != nil {
			s.csvFault(faults, err)
			return nil
		}
		s.parseRow(faults, reader, r, columns, row)
	}
	return r
}

func (s *source) parseRow(faults *collector, reader *csv.Reader, r *regions, columns, row []string) {
	from := s.regionName(faults, reader, 0, row[0])
	switch {
	case r.matrix[from] != nil:
		faults.faultf(s.csvAt(reader, 0), "the region `%s` has two rows", clip(from))
		return
	case !slices.Contains(columns[1:], from):
		faults.suggestf(s.csvAt(reader, 0), nearest(from, columns[1:]), "the region `%s` has a row but no column", clip(from))
		return
	case len(row) != len(columns):
		faults.faultf(s.csvAt(reader, 0), "the row has %d fields, the first row has %d", len(row), len(columns))
		return
	}
	r.matrix[from] = map[string]Duration{}
	for i, field := range row[1:] {
		field = strings.TrimSpace(field)
		if field == "" || field == "-" {
			continue
		}
		d, err := ParseDuration(field)
		if err == nil {
			err = notNegative(d)
		}
		if err != nil {
			faults.faultf(s.csvAt(reader, i+1), "%v", err)
			continue
		}
		r.matrix[from][columns[i+1]] = d
	}
}

func (s *source) regionName(faults *collector, reader *csv.Reader, field int, text string) string {
	text = strings.TrimSpace(text)
	if !regionName.pattern.MatchString(text) {
		faults.faultf(s.csvAt(reader, field), "`%s` is not the name of a region: %s", clip(text), regionName.rule)
	}
	return text
}

func (s *source) csvAt(reader *csv.Reader, field int) place {
	line, column := reader.FieldPos(field)
	return s.at(line, len([]rune(s.lineText(line)[:min(column-1, len(s.lineText(line)))]))+1)
}

func (s *source) csvFault(faults *collector, err error) {
	var p *csv.ParseError
	if errors.As(err, &p) {
		faults.faultf(s.at(p.Line, max(1, p.Column)), "not valid CSV: %v", p.Err)
		return
	}
	faults.faultf(s.at(1, 1), "not valid CSV: %v", err)
}

// of gives the part of the matrix between some regions.
func (r *regions) of(names map[string]bool) map[string]map[string]Duration {
	part := map[string]map[string]Duration{}
	for from, row := range r.matrix {
		for to, d := range row {
			if names[from] && names[to] {
				if part[from] == nil {
					part[from] = map[string]Duration{}
				}
				part[from][to] = d
			}
		}
	}
	if len(part) == 0 {
		return nil
	}
	return part
}
