package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"time"

	"github.com/groundplan/groundplan/report"
)

// file is a document, script or style of the page.
type file struct {
	kind string // its media type
	tag  string
	data []byte
}

// load reads the page's own files, and adds the style that it shares with reports.
func load(static fs.FS) (map[string]file, error) {
	files := map[string]file{"report.css": newFile("report.css", []byte(report.Stylesheet))}
	entries, err := fs.ReadDir(static, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		data, err := fs.ReadFile(static, e.Name())
		if err != nil {
			return nil, err
		}
		files[e.Name()] = newFile(e.Name(), data)
	}
	return files, nil
}

// kinds are the media types of the page's files: those of the machine may say anything.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func newFile(name string, data []byte) file {
	kind := kinds[path.Ext(name)]
	if kind == "" {
		kind = mime.TypeByExtension(path.Ext(name))
	}
	sum := sha256.Sum256(data)
	return file{kind: kind, tag: `"` + hex.EncodeToString(sum[:12]) + `"`, data: data}
}

// file answers with one of the page's own files; a browser keeps it and asks whether it is still that.
func (p *Page) file(w http.ResponseWriter, r *http.Request, name string) {
	f, ok := p.files[name]
	if !ok {
		fail(w, http.StatusNotFound, "there is no such page")
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", f.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
}
