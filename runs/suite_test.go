package runs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

func TestSuiteTurns(t *testing.T) {
	home := Home(t.TempDir())
	if turns, err := home.ReadSuiteTurns("nightly"); turns != nil || err != nil {
		t.Fatalf("of none: %v, %v", turns, err)
	}
	if names, err := home.SuiteNames(); names != nil || err != nil {
		t.Fatalf("of none: %v, %v", names, err)
	}
	started := time.Date(2026, 1, 2, 2, 0, 0, 0, time.UTC)
	for i, id := range []string{"20260102-020000", "20260103-020000-2", "20260103-020000"} {
		turn := SuiteTurn{ID: id, Suite: "nightly", Status: stage.StatusEnded, Started: started.Add(time.Duration(i) * time.Hour)}
		if err := home.WriteSuiteTurn(turn); err != nil {
			t.Fatal(err)
		}
	}
	// What isn't a turn is left alone, and what can't be read is named.
	for name, text := range map[string]string{"notes.json": "{}", "20260104-020000.json": "{", ".20260102-020000.json-1": "{"} {
		if err := os.WriteFile(filepath.Join(home.Suites(), "nightly", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	turns, err := home.ReadSuiteTurns("nightly")
	if err == nil || !strings.Contains(err.Error(), "20260104-020000.json") {
		t.Errorf("the unreadable turn is not named: %v", err)
	}
	var ids []string
	for _, turn := range turns {
		ids = append(ids, turn.ID)
	}
	if want := []string{"20260103-020000", "20260103-020000-2", "20260102-020000"}; !slices.Equal(ids, want) {
		t.Errorf("turns %v, want %v", ids, want)
	}
	if _, err := home.ReadSuiteTurn("nightly", "20200101-000000"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a turn that never was: %v", err)
	}
}

func TestSuiteDefinition(t *testing.T) {
	home := Home(t.TempDir())
	if _, err := home.ReadSuite("nightly"); !errors.Is(err, ErrNoSuite) {
		t.Errorf("of none: %v", err)
	}
	want := Suite{Suite: pipelines.Suite{Name: "nightly"}, Ground: "local", Root: "/repo", Created: time.Unix(1, 0).UTC()}
	if err := home.WriteSuite(want); err != nil {
		t.Fatal(err)
	}
	if got, err := home.ReadSuite("nightly"); err != nil || got.Root != want.Root || got.Suite.Name != "nightly" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := home.WriteSuiteTurn(SuiteTurn{ID: "20260102-020000", Suite: "nightly"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to forget
		if err := home.RemoveSuite("nightly"); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := home.SuiteNames(); err != nil || !slices.Equal(names, []string{"nightly"}) {
		t.Errorf("the history of a deleted suite is gone: %v, %v", names, err)
	}
}

func TestSuiteNamesAreFolders(t *testing.T) {
	home := Home(t.TempDir())
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".hidden", strings.Repeat("a", 64)} {
		_, turns := home.ReadSuiteTurns(name)
		_, suite := home.ReadSuite(name)
		for what, err := range map[string]error{
			"ReadSuiteTurns": turns, "ReadSuite": suite, "RemoveSuite": home.RemoveSuite(name),
			"WriteSuite":     home.WriteSuite(Suite{Suite: pipelines.Suite{Name: name}}),
			"WriteSuiteTurn": home.WriteSuiteTurn(SuiteTurn{Suite: name, ID: "20260102-020000"}),
		} {
			if err == nil || errors.Is(err, ErrNoSuite) {
				t.Errorf("%s takes %q: %v", what, name, err)
			}
		}
	}
	for _, id := range []string{"", "..", "20260102", "20260102-020000-", "20260102-020000/1", "suite"} {
		if err := home.WriteSuiteTurn(SuiteTurn{Suite: "nightly", ID: id}); err == nil {
			t.Errorf("a turn with the id %q is written", id)
		}
	}
}
