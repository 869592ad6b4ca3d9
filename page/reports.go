package page

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/groundplan/groundplan/report"
	"github.com/groundplan/groundplan/runs"
)

func (p *Page) runReport(w http.ResponseWriter, r *http.Request) {
	p.report(w, r.PathValue("id"), func(to io.Writer, id string) error { return report.Run(to, p.home, id) })
}

func (p *Page) suiteReport(w http.ResponseWriter, r *http.Request) {
	p.report(w, r.PathValue("name"), func(to io.Writer, name string) error { return report.Suite(to, p.home, name) })
}

// report answers with a report, as it is at this moment.
func (p *Page) report(w http.ResponseWriter, name string, write func(io.Writer, string) error) {
	if err := runs.CheckID(name); err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	var document bytes.Buffer
	if err := write(&document, name); err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, runs.ErrNoRecord) {
			status = http.StatusNotFound
		}
		fail(w, status, err.Error())
		return
	}
	w.Header().Set("Content-Security-Policy", reportPolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = document.WriteTo(w)
}
