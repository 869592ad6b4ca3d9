package runs

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// SidecarSaid is the last line of the sidecar's log behind an offset, cut to what fits into a sentence; empty where there
// is none.
func (f Folder) SidecarSaid(offset int64) string {
	const most = 400
	file, err := os.Open(f.SidecarLog())
	if err != nil {
		return ""
	}
	defer file.Close()
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		offset = max(offset, size-16*most)
	}
	data, err := io.ReadAll(io.NewSectionReader(file, offset, 16*most))
	if err != nil {
		return ""
	}
	data = bytes.TrimSpace(data)
	line := string(data[bytes.LastIndexByte(data, '\n')+1:])
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}
