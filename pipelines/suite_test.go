package pipelines

import (
	"path/filepath"
	"testing"
)

// TestSuitesThatShip: every suite of the repository can be created, with all of its pipelines.
func TestSuitesThatShip(t *testing.T) {
	files, err := filepath.Glob("../suites/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no suites: %v", err)
	}
	for _, file := range files {
		s, err := LoadSuite(file, Options{Root: ".."})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if s.Schedule.Cron == "" || len(s.Pipelines) == 0 || s.Compare == nil {
			t.Errorf("%s shows little of what a suite can say: %+v", file, s)
		}
	}
}
