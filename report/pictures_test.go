//go:build pictures

package report

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/groundplan/groundplan/internal/browser"
)

// TestPictures makes pictures of reports, to look at: GROUNDPLAN_PICTURES names the folder that they go to, and
// GROUNDPLAN_PICTURES_OF the state folder whose runs' reports they are of; without it they are of the tests' own.
func TestPictures(t *testing.T) {
	folder := os.Getenv("GROUNDPLAN_PICTURES")
	if folder == "" {
		t.Fatal("GROUNDPLAN_PICTURES names no folder for pictures")
	}
	files := documents(t)
	if home := os.Getenv("GROUNDPLAN_PICTURES_OF"); home != "" {
		files = map[string]string{}
		paths, _ := filepath.Glob(filepath.Join(home, "*", "*", "report.html"))
		for _, path := range paths {
			files[filepath.Base(filepath.Dir(path))] = path
		}
	}
	b := browser.Start(t)
	for name, path := range files {
		page := b.OpenFile(t, path, browser.Phone)
		for suffix, look := range map[string]browser.Look{"phone": browser.Phone, "phone-dark": browser.PhoneDark, "desktop": browser.Desktop, "desktop-dark": browser.DesktopDark} {
			page.Look(look)
			page.Screenshot(filepath.Join(folder, name+"-"+suffix+".png"), false)
		}
	}
}
